"""A data directory that was used is not changed, whatever is wrong with its small files."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from holdfast.machine import Genesis, applied
from holdfast.member.disk import found_cluster, join_cluster, open_disk
from holdfast.member.messages import MAX_INCARNATION
from holdfast.proto import raft_pb2
from holdfast.storage import files, sealed
from holdfast.storage.damage import Damaged
from holdfast.storage.doctor import examine
from holdfast.storage.identity import DataDirectory, DataDirectoryError
from holdfast.storage.sealed import SealedFile

from ..integration.versions import WHEEL
from .alone import Alone
from .rot import flip

OLD = Path(__file__).with_name("format-1.tar.gz")
OLD_ENTRIES = 50  # puts that a member of format 1 had acknowledged when it was killed


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("founded") / "m"
    data = DataDirectory(place)
    SealedFile(place / "founding.json").write({"m": f"{data.identity.volume_id:x}"})
    found_cluster(data, Genesis((raft_pb2.MemberInfo(id=1),)), 77)
    data.close()
    close(place)
    return place


@pytest.fixture
def place(founded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(founded, tmp_path / "m"))


def close(place: Path) -> int:
    """Open the member's files and close them. Returns what is applied or in the log."""
    disk = open_disk(place)
    last = max(disk.log.last, applied(disk.store)[0])
    disk.store.close()
    disk.durable.close()
    return last


def start(place: Path) -> int:
    data = DataDirectory(place)
    try:
        return close(place)
    finally:
        data.close()


def content(place: Path) -> dict[str, bytes]:
    found = {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()}
    return {name: data for name, data in found.items() if "LOG" not in name}


def both(file: Path, damage: Callable[[Path], object]) -> None:
    """Damage a file and its copy."""
    damage(file)
    damage(file.with_name(file.name + ".copy"))


def middle(file: Path) -> None:
    flip(file, len(file.read_bytes()) // 2)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def of_no_cluster(place: Path) -> None:
    """As it was before it belonged to a cluster: both are restored from a backup."""
    file = SealedFile(place / "identity.json")
    known = file.read("")
    assert known is not None
    file.write({**known, "cluster_id": 0, "member_id": 0, "made": False})


def without_checksum(file: Path) -> None:
    """A hand has changed it."""
    body = json.loads(file.read_bytes())
    body["fields"]["cluster_id"] = 5
    file.write_text(json.dumps(body))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "FORMAT missing": lambda d: (d / "FORMAT").unlink(),
    "FORMAT emptied": lambda d: empty(d / "FORMAT"),
    "FORMAT flipped": lambda d: flip(d / "FORMAT", 3),
    "FORMAT not text": lambda d: (d / "FORMAT").write_bytes(b"\xff\xfe"),
    "identity missing": lambda d: both(d / "identity.json", Path.unlink),
    "identity and founding missing": lambda d: (
        both(d / "identity.json", Path.unlink),
        both(d / "founding.json", Path.unlink),
    ),
    "identity emptied": lambda d: both(d / "identity.json", empty),
    "identity flipped": lambda d: both(d / "identity.json", middle),
    "identity not text": lambda d: both(d / "identity.json", lambda file: file.write_bytes(b"\xff")),
    "identity changed by hand": lambda d: both(d / "identity.json", without_checksum),
    "identity of no cluster": of_no_cluster,
    "pointer missing": lambda d: both(d / "state" / "current", Path.unlink),
    "pointer emptied": lambda d: both(d / "state" / "current", empty),
    "pointer flipped": lambda d: both(d / "state" / "current", middle),
    "pointer names the parent": lambda d: both(d / "state" / "current", lambda file: file.write_text("..")),
    "generation missing": lambda d: shutil.rmtree(d / "state" / "00000001"),
    "generation emptied": lambda d: [file.unlink() for file in (d / "state" / "00000001").iterdir()],
    "state missing": lambda d: shutil.rmtree(d / "state"),
    "log missing": lambda d: shutil.rmtree(d / "log"),
    "log and state missing": lambda d: (shutil.rmtree(d / "log"), shutil.rmtree(d / "state")),
    "segment missing": lambda d: next((d / "log").glob("*.log")).unlink(),
    "marked as damaged": lambda d: (d / "DAMAGED").write_text("a table failed its checksum\n"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_refused_and_nothing_removed(place: Path, what: str) -> None:
    """Each of these was taken for an empty volume, or for a generation to clean up: log and state were removed."""
    DAMAGE[what](place)
    before = content(place)
    with pytest.raises(Damaged, match=str(place)):
        start(place)
    after = content(place)
    for name in ("identity.json", "identity.json.copy"):  # each start of a member's directory is counted
        before.pop(name, None)
        after.pop(name, None)
    assert after == before


@pytest.mark.parametrize("name", ["identity.json", "founding.json", "state/current"])
@pytest.mark.parametrize("which", ["", ".copy"])
@pytest.mark.parametrize("damage", [Path.unlink, empty, middle])
def test_one_of_the_two_is_enough(place: Path, name: str, which: str, damage: Callable[[Path], object]) -> None:
    known = SealedFile(place / name).read("")
    assert known is not None
    damage(place / (name + which))
    assert start(place) == 1
    assert SealedFile(place / name).read("") is not None
    if name != "founding.json":  # that file is never written again
        assert (place / name).read_bytes() == (place / (name + ".copy")).read_bytes()


def test_a_start_is_never_counted_twice(place: Path, tmp_path: Path) -> None:
    """identity.json restored from an older copy: what was proposed then looked like a duplicate, and every write timed
    out."""
    old = (place / "identity.json").read_bytes()

    def incarnation() -> int:
        data = DataDirectory(place)
        data.close()
        return data.identity.incarnation

    seen = [incarnation() for _ in range(3)]
    (place / "identity.json").write_bytes(old)
    seen.append(incarnation())
    assert seen == sorted(set(seen))
    # Both from a backup of long ago: the clock has gone on.
    file = SealedFile(place / "identity.json")
    known = file.read("")
    assert known is not None
    file.write({**known, "incarnation": 1})
    assert incarnation() > 100_000


def test_a_clock_far_ahead_does_not_use_up_the_starts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member started once in 2058 could never serve again: its number did not fit into its messages."""

    def start(year: int) -> int:
        monkeypatch.setattr(time, "time", lambda: (year - 1970) * 31_556_952.0)
        data = DataDirectory(place)
        data.close()
        return data.identity.incarnation

    before = start(2027)
    for year in (2058, 2500, 1970, 2027):
        assert start(year) == before + 1
        before += 1
    assert start(2040) < MAX_INCARNATION // 2
    file = SealedFile(place / "identity.json")
    known = file.read("")
    assert known is not None
    file.write({**known, "incarnation": MAX_INCARNATION - 1})
    with pytest.raises(DataDirectoryError, match="remove it from the cluster"):
        DataDirectory(place)
    with pytest.raises(DataDirectoryError, match="remove it from the cluster"):
        examine(place)


def test_a_format_of_the_future_is_refused(place: Path) -> None:
    (place / "FORMAT").write_text("holdfast data 3\n")
    with pytest.raises(DataDirectoryError, match="use a version of holdfast that knows it"):
        DataDirectory(place)


def test_what_is_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("draft")
    with pytest.raises(DataDirectoryError, match=r"thesis\.txt"):
        DataDirectory(tmp_path)


class Killed(BaseException):
    """As if by kill -9: nothing catches it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Raise Killed instead of the `step`-th rename of a small file."""
    left = [step]
    whole = files.write_atomically

    def write(path: Path, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            path.with_name(path.name + ".new").write_bytes(data[: len(data) // 2])
            raise Killed
        whole(path, data)

    for module in (
        sealed,
        sys.modules["holdfast.storage.identity"],
        sys.modules["holdfast.storage.migration"],
        sys.modules["holdfast.storage.mark"],
    ):
        monkeypatch.setattr(module, "write_atomically", write)


@pytest.mark.parametrize("step", range(12))
@pytest.mark.parametrize("way", ["found", "join"])
def test_becoming_a_member_is_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, way: str
) -> None:
    place = tmp_path / "m"

    def become() -> None:
        data = DataDirectory(place)
        try:
            if way == "found":
                found_cluster(data, Genesis((raft_pb2.MemberInfo(id=1),)), 77)
            else:
                join_cluster(data, 77, data.identity.volume_id)
        finally:
            data.close()

    with monkeypatch.context() as patched:
        kill_at(patched, step)
        with suppress(Killed):
            become()
    data = DataDirectory(place)
    made = data.identity.made
    data.close()
    assert made == bool(data.identity.cluster_id)
    if not made:
        become()
    assert start(place) == (1 if way == "found" else 0)
    assert not (place / "making").exists()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The directory of a member, killed, as version 0.1.0 with format 1 left it."""
    with tarfile.open(OLD) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "m1"


def test_a_directory_of_the_format_before_is_taken_over(old: Path) -> None:
    before = json.loads((old / "identity.json").read_text())
    last = start(old)
    assert last >= OLD_ENTRIES
    assert (old / "FORMAT").read_text() == "holdfast data 2\n"
    data = DataDirectory(old)
    data.close()
    assert (data.identity.cluster_id, data.identity.member_id) == (before["cluster_id"], before["member_id"])
    assert data.identity.incarnation > before["incarnation"]
    assert start(old) == last


@pytest.mark.parametrize("step", range(10))
def test_that_may_be_interrupted_anywhere(old: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    with monkeypatch.context() as patched:
        kill_at(patched, step)
        with suppress(Killed):
            start(old)
    assert start(old) >= OLD_ENTRIES
    assert (old / "FORMAT").read_text() == "holdfast data 2\n"


# A start of the program before, up to where it would serve; it stops in the middle, as by kill -9.
OLD_START = (
    "import os, sys; from pathlib import Path; from holdfast.member.disk import open_disk;"
    "from holdfast.storage.identity import DataDirectory; place = Path(sys.argv[1]);"
    "DataDirectory(place); open_disk(place); os._exit(7)"
)


@pytest.mark.parametrize("step", range(8))
def test_the_program_before_may_be_started_in_between(old: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """An upgrade that is interrupted and taken back. The old program goes on with what is there, or refuses; it took a
    pointer of the new form for one to nowhere, and removed the state."""
    incarnation = json.loads((old / "identity.json").read_text())["incarnation"]
    with monkeypatch.context() as patched:
        kill_at(patched, step)
        with suppress(Killed):
            start(old)
    assert (old / "FORMAT").read_text() == "holdfast data 1\n"
    went_on = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-P", "-c", OLD_START, str(old)],
            env={"PYTHONPATH": str(WHEEL)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 7 or b"DataDirectoryError" in done.stderr, done.stderr.decode()
        went_on.append(done.returncode == 7)
    if all(went_on):
        known = json.loads((old / "identity.json").read_text())
        assert known["incarnation"] == incarnation + 2
        known["member_id"] += 1  # as if it had become another member meanwhile
        (old / "identity.json").write_text(json.dumps(known))
    assert start(old) >= OLD_ENTRIES
    if all(went_on):
        data = DataDirectory(old)
        data.close()
        assert data.identity.member_id == known["member_id"], "an older copy counted"


OLD_DAMAGE: dict[str, Callable[[Path], object]] = {
    "pointer flipped": lambda d: flip(d / "state" / "current", 7, 1),
    "pointer emptied": lambda d: empty(d / "state" / "current"),
    "pointer missing": lambda d: (d / "state" / "current").unlink(),
    "pointer names the parent": lambda d: (d / "state" / "current").write_text(".."),
    "identity missing": lambda d: (d / "identity.json").unlink(),
    "identity emptied": lambda d: empty(d / "identity.json"),
    "identity of no cluster": lambda d: (d / "identity.json").write_text(
        json.dumps({**json.loads((d / "identity.json").read_text()), "cluster_id": 0})
    ),
    "segment missing": lambda d: next((d / "log").glob("*.log")).unlink(),
    "log missing": lambda d: shutil.rmtree(d / "log"),
    "segment cut": lambda d: next((d / "log").glob("*.log")).write_bytes(b"HFLOG\1\0\0" + bytes(8)),
    "founding flipped": lambda d: flip(d / "founding.json", 0),
}


@pytest.mark.parametrize("what", OLD_DAMAGE)
def test_damage_before_that_is_refused_and_nothing_removed(old: Path, what: str) -> None:
    OLD_DAMAGE[what](old)
    before = content(old)
    with pytest.raises(Damaged, match=str(old)):
        start(old)
    assert content(old) == before


def test_nobody_else_may_read_what_is_kept(tmp_path: Path) -> None:
    """Also what was written before, and by RocksDB, whatever the umask was."""
    place = tmp_path / "m"
    program = (
        "import os, sys; from pathlib import Path; from holdfast.machine import Genesis;"
        "from holdfast.member.disk import found_cluster; from holdfast.storage.identity import DataDirectory;"
        "os.umask(0); data = DataDirectory(Path(sys.argv[1])); found_cluster(data, Genesis((), '0.1.0'), 7)"
    )
    subprocess.run([sys.executable, "-c", program, str(place)], check=True)
    assert any(stat.S_IMODE(file.stat().st_mode) & 0o077 for file in place.rglob("*.sst"))
    DataDirectory(place).close()
    for file in (place, *place.rglob("*")):
        assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file


@pytest.mark.parametrize("flushed", [False, True])
def test_a_member_whose_count_of_starts_is_an_older_copy_counts_on(tmp_path: Path, flushed: bool) -> None:
    """Its number was used again, so every write counted as applied before, and timed out."""
    member = Alone(tmp_path)
    member.put(b"k", b"1")
    member.close()
    older = {name: (tmp_path / name).read_bytes() for name in ("identity.json", "identity.json.copy")}
    for value in (b"2", b"3"):  # within a minute, so that the clock does not tell these starts apart
        member = Alone(tmp_path)
        member.put(b"k", value)
        if flushed:
            member.flush(keep=0)
        member.close()
    for name, data in older.items():
        (tmp_path / name).write_bytes(data)
    member = Alone(tmp_path)
    assert member.put(b"k", b"4") == 5
    assert member.content() == {b"k": b"4"}
    member.close()
