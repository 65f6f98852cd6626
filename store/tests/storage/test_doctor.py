"""`holdfast doctor` reads everything, changes nothing, and says how to recover."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from holdfast.cli.main import command_line
from holdfast.kv.store import Family
from holdfast.machine import Genesis
from holdfast.member.disk import found_cluster, make_log, open_disk
from holdfast.proto import raft_pb2
from holdfast.storage.identity import DataDirectory
from typer.testing import CliRunner

from .rot import flip, largest_table, zero


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("founded") / "m"
    data = DataDirectory(place)
    found_cluster(data, Genesis((raft_pb2.MemberInfo(id=1),)), 0x77)
    disk = open_disk(place)
    disk.store.apply([(Family.CUR, b"%05d" % n, bytes(100)) for n in range(2000)])
    disk.store.flush()
    disk.store.close()
    disk.durable.close()
    data.close()
    return place


@pytest.fixture
def place(founded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(founded, tmp_path / "m"))


def doctor(place: Path) -> tuple[int, str]:
    result = CliRunner().invoke(command_line(), ["doctor", f"--data-dir={place}"])
    return result.exit_code, result.output


def content(place: Path) -> dict[str, tuple[bytes, int]]:
    return {str(f): (f.read_bytes(), f.stat().st_mtime_ns) for f in place.rglob("*") if f.is_file()}


def test_a_directory_that_is_well(place: Path) -> None:
    before = content(place)
    status, said = doctor(place)
    assert status == 0, said
    assert "of cluster 77" in said
    assert "1 segment, entries after 1 up to 1" in said
    assert "the state ends at entry 1" in said
    assert "all of them read" in said
    assert "it is safe to start" in said
    assert content(place) == before


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "state": ("state", lambda d: flip(largest_table(d), largest_table(d).stat().st_size // 2)),
    "pointer": ("state", lambda d: [f.write_bytes(b"") for f in (d / "state").glob("current*")]),
    "log": ("log", lambda d: zero(next((d / "log").glob("*.log")), 40, 400)),
    "no log": ("log", lambda d: shutil.rmtree(d / "log")),
    "identity": ("identity", lambda d: [f.unlink() for f in d.glob("identity.json*")]),
    "format": ("format", lambda d: (d / "FORMAT").unlink()),
    "log that begins too late": (
        "log and state",
        lambda d: (shutil.rmtree(d / "log"), make_log(d, (500, 1), 1)),
    ),
    "marked": ("mark of damage", lambda d: (d / "DAMAGED").write_text("a table failed its checksum\n")),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_named_with_the_way_back(place: Path, what: str) -> None:
    part, damage = DAMAGE[what]
    data = DataDirectory(place)
    member = data.identity.member_id
    data.close()
    damage(place)
    before = content(place)
    status, said = doctor(place)
    assert status == 4, said
    lines = [line for line in said.splitlines() if "DAMAGED" in line and line.startswith(part)]
    assert len(lines) == 1, said
    assert str(place) in lines[0] or "entries are missing" in lines[0]
    known = "ID" if part == "identity" else f"{member:x}"
    assert f"holdfast member remove {known} --endpoints ANOTHER_MEMBER" in said
    assert content(place) == before


def test_a_replica_is_only_emptied(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / "r", kind="replica")
    data.begin_making()
    data.made()
    data.close()
    status, said = doctor(tmp_path / "r")
    assert status == 4, said
    assert "follows anew" in said
    assert "member remove" not in said


def test_a_directory_in_use_and_none(place: Path, tmp_path: Path) -> None:
    data = DataDirectory(place)
    status, said = doctor(place)
    data.close()
    assert status == 0, said
    assert "held by a running process" in said
    status, said = doctor(tmp_path / "none")
    assert status == 1
    assert "is not a directory" in said
