"""A snapshot's manifest is validated, and compared with the state before a member is made of it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from holdfast.machine import Genesis, Machine
from holdfast.member.restore import restore
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.log import Entry
from holdfast.storage.archive import ArchiveError, Manifest, pack, verify
from holdfast.storage.identity import DataDirectory, Identity
from holdfast.storage.state import RocksStore


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A snapshot of a cluster with one put and one alarm: revision 2, index 3."""
    store = RocksStore(tmp_path / "state")
    Genesis((raft_pb2.MemberInfo(id=0xAB, name="m"),)).write(store)
    machine = Machine(store)
    put = raft_pb2.Command(put=rpc_pb2.PutRequest(key=b"k", value=b"v"))
    alarm = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=0xAB, alarm=rpc_pb2.NOSPACE)
    for index, command in ((2, put), (3, raft_pb2.Command(alarm=alarm))):
        command.origin, command.incarnation, command.seq, command.window_low = 1, 1, index, index
        machine.apply(Entry(index, 1, command.SerializeToString()))
    machine.flush()
    store.flush()
    store.checkpoint(tmp_path / "checkpoint")
    store.close()
    file = tmp_path / "saved"
    pack(tmp_path / "checkpoint", file, Manifest(cluster_id=1, epoch=1, revision=2, index=3, term=1))
    return _summed(file, file.read_bytes())


def _summed(file: Path, body: bytes) -> Path:
    file.write_bytes(body + hashlib.sha256(body).digest())
    return file


def with_manifest(saved: Path, text: bytes) -> Path:
    body = io.BytesIO()
    with tarfile.open(saved) as source, tarfile.open(fileobj=body, mode="w") as target:
        for member in source:
            data = text if member.name == "manifest.json" else source.extractfile(member).read()  # type: ignore[union-attr]
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return _summed(saved.with_name("changed"), body.getvalue())


def manifest(**changed: object) -> bytes:
    fields = {"format": "holdfast snapshot 1", "cluster_id": "1", "epoch": 1, "revision": 2, "index": 3, "term": 1}
    return json.dumps({**fields, **changed}).encode()


def identity(directory: Path) -> Identity:
    data = DataDirectory(directory)
    data.close()
    return data.identity


def test_what_was_saved_is_restored_and_told(saved: Path, tmp_path: Path) -> None:
    outcome = restore(with_manifest(saved, manifest()), tmp_path / "m", "m1", ("http://localhost:2380",))
    assert outcome == (2, ("NOSPACE of member ab",))
    assert identity(tmp_path / "m").opened


def test_for_an_operator_it_is_not_open_to_clients(saved: Path, tmp_path: Path) -> None:
    """The volume may be one of several that an operator looks at: only the cluster that it takes over may serve."""
    file = with_manifest(saved, manifest())
    restore(file, tmp_path / "m", "m1", ("http://localhost:2380",), opened=False)
    found = identity(tmp_path / "m")
    assert (found.made, found.opened) == (True, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("revision", -5),
        ("revision", 1 << 63),
        ("revision", 2.0),
        ("revision", None),
        ("revision", True),
        ("index", (1 << 64) - 1),
        ("term", "1"),
        ("epoch", "x"),
        ("epoch", [1]),
        ("cluster_id", 1),
        ("cluster_id", "-1"),
        ("cluster_id", "1" + "0" * 16),
        ("cluster_id", "f" * 60_000),
        ("more", 1),
    ],
)
def test_a_manifest_of_wrong_types_is_refused_at_once(saved: Path, name: str, value: object) -> None:
    with pytest.raises(ArchiveError, match="its manifest is wrong") as refused:
        verify(with_manifest(saved, manifest(**{name: value})))
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("text", [b"", b"[]", b"7", b"{", b"\xff", b"[" * 60_000])
def test_a_manifest_that_is_none_is_refused_at_once(saved: Path, text: bytes) -> None:
    with pytest.raises(ArchiveError, match="its manifest is wrong"):
        verify(with_manifest(saved, text))


@pytest.mark.parametrize("changed", [{"revision": 1_000_000}, {"index": 0}, {"term": 2}, {"epoch": 7}])
def test_a_manifest_of_another_state_is_refused(saved: Path, tmp_path: Path, changed: dict[str, int]) -> None:
    file = with_manifest(saved, manifest(**changed))
    (name,) = changed
    with pytest.raises(ArchiveError, match=f"its manifest says {name} {changed[name]}, its state has"):
        restore(file, tmp_path / "m", "m1", ("http://localhost:2380",))
    # Nothing was made, so the right file can be restored into the same place.
    restore(saved, tmp_path / "m", "m1", ("http://localhost:2380",))
