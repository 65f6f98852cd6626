"""The state after a crash is always the result of some prefix of the log."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from holdfast.kv.store import Family, StateDamaged
from holdfast.storage.damage import Damaged
from holdfast.storage.sealed import SealedFile
from holdfast.storage.state import RocksStore, StateDirectory

from .rot import flip, zero

PROGRAM = """
import os, signal
from pathlib import Path
import pytest
from holdfast.kv.store import Family
from holdfast.storage.damage import Damaged
from holdfast.storage.sealed import SealedFile
from holdfast.storage.state import RocksStore
store = RocksStore(Path({path!r}), wal={wal})
for n in range(1, 101):
    store.apply([(Family.CUR, b"k%d" % n, b"v"), (Family.META, b"applied", b"%d" % n)])
    if n == {flush_at}:
        store.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def _killed(path: Path, *, wal: bool, flush_at: int = 0) -> None:
    """Write 100 rows in a process that is killed then. (No fork of this one: RocksDB's threads do not survive it.)"""
    program = PROGRAM.format(path=str(path), wal=wal, flush_at=flush_at)
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_crash_goes_back_to_the_last_flush_of_all_families(tmp_path: Path) -> None:
    """RocksDB's atomic_flush does not do this for a flush by hand of several column families; one family does."""
    path = tmp_path / "db"
    _killed(path, wal=False, flush_at=60)
    store = RocksStore(path)
    assert store.get(Family.META, b"applied") == b"60"
    assert len(list(store.scan(Family.CUR, b"", None))) == 60
    store.close()


def test_with_a_log_nothing_is_lost_to_kill_9(tmp_path: Path) -> None:
    """A replica's state: it must not go back behind what it has served."""
    path = tmp_path / "db"
    _killed(path, wal=True)
    store = RocksStore(path, wal=True)
    assert store.get(Family.META, b"applied") == b"100"
    assert len(list(store.scan(Family.CUR, b"", None))) == 100
    store.close()


def _synced(tmp_path: Path) -> tuple[Path, Path, int]:
    """The state of a replica and its mark as kill -9 leaves them, and how long its log was at the last sync. 50 rows
    were written after that."""
    store = RocksStore(tmp_path / "db", wal=True, mark=tmp_path / "mark")
    wal = next((tmp_path / "db").glob("*.log"))
    for n in range(1, 151):
        store.apply([(Family.CUR, b"k%d" % n, b"v" * 50), (Family.META, b"applied", b"%d" % n)])
        if n == 100:
            store.sync()
            synced = wal.stat().st_size
    shutil.copytree(tmp_path / "db", tmp_path / "left")
    store.close()
    return tmp_path / "left", tmp_path / "mark", synced


def _applied(path: Path, mark: Path) -> int:
    store = RocksStore(path, wal=True, mark=mark)
    try:
        applied = int(store.get(Family.META, b"applied") or b"0")
        assert len(list(store.scan(Family.CUR, b"", None))) == applied
        return applied
    finally:
        store.close()


def test_what_was_synced_is_there_or_the_state_is_damaged(tmp_path: Path) -> None:
    """RocksDB recovers its log up to the first damage, and said nothing: the state went back by what came after."""
    left, mark, synced = _synced(tmp_path)
    (wal,) = (file.name for file in left.glob("*.log"))
    size = (left / wal).stat().st_size
    refused = 0
    for at in range(0, size, size // 40):
        place = Path(shutil.copytree(left, tmp_path / f"flipped{at}"))
        flip(place / wal, at)
        try:
            applied = _applied(place, mark)
        except StateDamaged:
            assert at < synced, "nothing was lost that was synced"
            with pytest.raises(StateDamaged, match="was durable"):  # a second start finds it, too
                RocksStore(place, wal=True, mark=mark)
            refused += 1
        else:
            assert 100 <= applied <= 150
    assert refused > 20
    assert _applied(left, mark) == 150


def test_a_power_cut_takes_only_what_was_not_synced(tmp_path: Path) -> None:
    left, mark, synced = _synced(tmp_path)
    (wal,) = (file.name for file in left.glob("*.log"))
    size = (left / wal).stat().st_size
    for cut in range(synced, size, (size - synced) // 10):
        place = Path(shutil.copytree(left, tmp_path / f"cut{cut}"))
        os.truncate(place / wal, cut)
        assert 100 <= _applied(place, mark) < 150
        zeroed = Path(shutil.copytree(left, tmp_path / f"zeroed{cut}"))
        zero(zeroed / wal, cut, min(size, cut + 500))
        assert 100 <= _applied(zeroed, mark) < 150


def test_a_state_from_before_the_mark_gets_one(tmp_path: Path) -> None:
    _killed(tmp_path / "db", wal=True)
    assert _applied(tmp_path / "db", tmp_path / "mark") == 100
    assert (tmp_path / "mark").exists()


def test_a_scan_sees_what_was_there_when_it_began(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "db")
    store.apply([(Family.CUR, b"%03d" % n, b"old") for n in range(100)])
    scan = store.scan(Family.CUR, b"", None)
    first = next(scan)
    store.apply([(Family.CUR, b"%03d" % n, b"new") for n in range(100)] + [(Family.CUR, b"050", None)])
    rest = list(scan)
    assert first == (b"000", b"old")
    assert len(rest) == 99
    assert {value for _, value in rest} == {b"old"}
    store.close()


def test_families_do_not_touch(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "db")
    store.apply([(family, b"k", bytes([family])) for family in Family])
    for family in Family:
        assert list(store.scan(family, b"", None)) == [(b"k", bytes([family]))]
    store.apply([(Family.REV, b"k", None)])
    assert store.get(Family.REV, b"k") is None
    assert store.get(Family.IDX, b"k") is not None
    store.close()


def test_generations_change_by_one_small_file(tmp_path: Path) -> None:
    states = StateDirectory(tmp_path)
    with pytest.raises(Damaged, match="missing"):
        states.current()
    one = states.fresh()
    (one / "file").write_bytes(b"1")
    states.use(one)
    two = states.fresh()
    (two / "file").write_bytes(b"2")
    states = StateDirectory(tmp_path)
    assert states.current() == one
    assert two.exists(), "looking removes nothing"
    states.clean()
    assert not two.exists(), "what was not put in use goes once the one in use was found well"
    three = states.fresh()
    (three / "file").write_bytes(b"3")
    states.use(three)
    states = StateDirectory(tmp_path)
    states.clean()
    assert states.current() == three
    assert not one.exists()


NAMES = {"the parent": "..", "a generation that is not there": "00000007", "nothing": ""}


@pytest.mark.parametrize("text", ["flipped", "emptied", "missing", *NAMES])
def test_a_pointer_that_is_wrong_is_refused_and_removes_nothing(tmp_path: Path, text: str) -> None:
    """With one bit flipped in the pointer, every generation was removed, and then the pointer found wrong."""
    states = StateDirectory(tmp_path)
    one = states.fresh()
    (one / "file").write_bytes(b"1")
    states.use(one)
    pointers = (tmp_path / "current", tmp_path / "current.copy")
    for file in pointers:
        if text == "flipped":
            flip(file, len(file.read_bytes()) // 2)
        elif text == "emptied":
            file.write_bytes(b"")
        elif text == "missing":
            file.unlink()
    if text in NAMES:
        pointer = SealedFile(pointers[0])
        pointer.read("")
        pointer.write({"generation": NAMES[text]})
    states = StateDirectory(tmp_path)
    with pytest.raises(Damaged, match="current"):
        states.current()
    with pytest.raises(Damaged, match="current"):
        states.clean()
    assert one.exists()
