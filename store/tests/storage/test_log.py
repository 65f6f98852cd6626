"""The durable log: what was synced comes back, a torn tail is cut, rot is refused and named."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from holdfast.raft.log import Entry
from holdfast.raft.types import DurableAppend, HardState
from holdfast.storage.damage import Damaged
from holdfast.storage.log import DurableLog, LogCorrupt
from holdfast.storage.records import HEADER_BYTES

from .rot import flip, used, zero


def mark_of(directory: Path) -> Path:
    return DurableLog(directory).mark_path


def record(index: int, size: int = 20) -> DurableAppend:
    return DurableAppend(index, HardState(term=1, commit=index - 1), 0, (Entry(index, 1, bytes([index % 256]) * size),))


def written(directory: Path, count: int, *, batch: int = 1, size: int = 20, segment: int = 1 << 16) -> DurableLog:
    log = DurableLog(directory, segment_bytes=segment)
    log.create()
    records = [record(n, size) for n in range(1, count + 1)]
    for at in range(0, count, batch):
        log.append(records[at : at + batch])
    return log


def entries(directory: Path, segment: int = 1 << 16) -> list[int]:
    log = DurableLog(directory, segment_bytes=segment)
    found = [e.index for r in log.replay() for e in r.entries]
    log.close()
    return found


def test_what_was_appended_comes_back(tmp_path: Path) -> None:
    written(tmp_path, 100).close()
    log = DurableLog(tmp_path, segment_bytes=1 << 16)
    records = [r for r in log.replay() if r.entries]
    assert [r.entries[0].index for r in records] == list(range(1, 101))
    assert records[-1].hard_state == HardState(term=1, commit=99)
    assert records[41].entries[0].data == bytes([42]) * 20
    log.append([record(101)])
    log.close()
    assert entries(tmp_path)[-1] == 101


def test_segments_rotate_and_are_forgotten(tmp_path: Path) -> None:
    log = written(tmp_path, 200, size=200, segment=4096)
    before = len(list(tmp_path.glob("*.log")))
    assert before > 5
    log.forget(150)
    log.close()
    assert len(list(tmp_path.glob("*.log"))) < before
    found = entries(tmp_path, segment=4096)
    assert found[-1] == 200
    assert found[0] <= 151
    # The hard state stands at the head of every segment, so it is never forgotten.
    reopened = DurableLog(tmp_path, segment_bytes=4096)
    states = [r.hard_state for r in reopened.replay() if r.hard_state is not None]
    assert states[-1] == HardState(term=1, commit=199)


@pytest.mark.parametrize("seed", range(40))
def test_scenario_28_a_torn_last_write_is_cut(tmp_path: Path, seed: int) -> None:
    """etcd 6378, 6379: a torn tail made the member unbootable. Any subset of the last, unsynced write may be on disk:
    what was durable before stays, the log goes on."""
    chance = random.Random(seed)
    log = written(tmp_path, 20)
    path = next(tmp_path.glob("*.log"))
    before, mark = path.read_bytes(), mark_of(tmp_path).read_bytes()
    log.append([record(21, 300), record(22, 300), record(23, 300)])
    log.close()
    after = bytearray(path.read_bytes())
    changed = [at for at in range(0, len(after), 64) if after[at : at + 64] != before[at : at + 64]]
    lost = chance.sample(changed, chance.randrange(1, len(changed) + 1))
    for at in lost:
        after[at : at + 64] = before[at : at + 64]
    path.write_bytes(after)
    mark_of(tmp_path).write_bytes(mark)
    found = entries(tmp_path)
    assert found[:20] == list(range(1, 21))
    assert found == list(range(1, len(found) + 1))
    assert len(found) < 23
    log = DurableLog(tmp_path, segment_bytes=1 << 16)
    assert len([r for r in log.replay() if r.entries]) == len(found)
    log.append([record(len(found) + 1)])
    log.close()
    assert entries(tmp_path) == list(range(1, len(found) + 2))


@pytest.mark.parametrize("flipped", range(0, 2000, 97))
def test_scenario_28_rot_in_what_was_durable_is_refused(tmp_path: Path, flipped: int) -> None:
    """Protocol-aware recovery (FAST'18), Jepsen NATS: damage in the middle was cut like a torn tail, and what was
    committed was lost. A flipped byte is never taken for a torn tail while a later record says it was durable."""
    written(tmp_path, 100).close()
    path = next(tmp_path.glob("*.log"))
    data = bytearray(path.read_bytes())
    at = HEADER_BYTES + flipped
    original = bytes(data)
    data[at] ^= 0x55
    path.write_bytes(data)
    log = DurableLog(tmp_path, segment_bytes=1 << 16)
    if original[at] == 0 and _is_padding(original, at):
        assert [e.index for r in log.replay() for e in r.entries] == list(range(1, 101))
        return
    with pytest.raises(LogCorrupt, match="offset") as refused:
        list(log.replay())
    assert path.name in str(refused.value)
    assert path.read_bytes() == bytes(data), "refusing changes nothing"


def _is_padding(data: bytes, at: int) -> bool:
    """Whether `at` lies in the zeros between two frames, which no checksum covers."""
    offset = HEADER_BYTES
    while True:
        length = int.from_bytes(data[offset : offset + 4], "little")
        end = offset + 16 + length
        if at < end:
            return False
        offset = end + (-length % 8)
        if at < offset:
            return True


def test_a_turn_of_any_size_fits(tmp_path: Path) -> None:
    """Much may be proposed in one turn; it goes out in several frames, and is one write all the same."""
    log = DurableLog(tmp_path, segment_bytes=1 << 16)
    log.create()
    entries_ = tuple(Entry(n, 2, bytes([n]) * (3 << 20)) for n in range(1, 31))
    log.append([DurableAppend(1, HardState(term=2, vote=7), 0, entries_)])
    log.close()
    reopened = DurableLog(tmp_path, segment_bytes=1 << 16)
    records = list(reopened.replay())
    assert [(e.index, e.data[:1]) for r in records for e in r.entries] == [(n, bytes([n])) for n in range(1, 31)]
    assert [r.hard_state for r in records if r.hard_state is not None][-1] == HardState(term=2, vote=7)


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    written(tmp_path, 200, size=200, segment=4096).close()
    sorted(tmp_path.glob("*.log"))[2].unlink()
    with pytest.raises(LogCorrupt, match="missing"):
        list(DurableLog(tmp_path, segment_bytes=4096).replay())


def test_truncation_and_base_survive(tmp_path: Path) -> None:
    log = written(tmp_path, 5)
    log.append([DurableAppend(6, HardState(term=2), 4, (Entry(4, 2, b"new"),))])
    log.append([DurableAppend(7, HardState(term=3), 0, (), base=(50, 3))])
    log.close()
    last = list(DurableLog(tmp_path, segment_bytes=1 << 16).replay())[-2:]
    assert last[0].truncate_from == 4
    assert last[0].entries[0].term == 2
    assert last[1].base == (50, 3)


def test_the_next_segment_is_made_ahead_of_its_time(tmp_path: Path) -> None:
    log = written(tmp_path, 3, segment=4096)
    assert not log.prepared
    log.prepare()
    assert log.prepared
    log.append([record(n, 200) for n in range(4, 40)])
    log.close()
    assert entries(tmp_path, 4096) == list(range(1, 40))


def test_what_a_spare_segment_of_an_earlier_run_holds_does_not_matter(tmp_path: Path) -> None:
    log = written(tmp_path, 3, segment=4096)
    log.close()
    (tmp_path / "spare").write_bytes(b"anything" * 1000)
    log = DurableLog(tmp_path, segment_bytes=4096)
    assert len([r for r in log.replay() if r.entries]) == 3
    log.append([record(n, 200) for n in range(4, 40)])
    log.close()
    assert entries(tmp_path, 4096) == list(range(1, 40))


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def last(directory: Path) -> Path:
    return segments(directory)[-1]


def rename(directory: Path) -> None:
    last(directory).rename(directory / "0000000000ffffff.log")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut in half": lambda d: os.truncate(last(d), used(last(d)) // 2),
    "cut to nothing": lambda d: os.truncate(last(d), 0),
    "cut to its header": lambda d: os.truncate(last(d), HEADER_BYTES),
    "cut by a byte": lambda d: os.truncate(last(d), last(d).stat().st_size - 1),
    "grown": lambda d: os.truncate(last(d), last(d).stat().st_size + 8),
    "second half zeroed": lambda d: zero(last(d), used(last(d)) // 2, used(last(d))),
    "all zeroed": lambda d: zero(last(d), 0, used(last(d))),
    "all but its header zeroed": lambda d: zero(last(d), HEADER_BYTES, used(last(d))),
    "a page zeroed": lambda d: zero(last(d), 512, 1024),
    "its last frame zeroed": lambda d: zero(last(d), used(last(d)) - 40, used(last(d))),
    "a bit of its last frame": lambda d: flip(last(d), used(last(d)) - 3),
    "a bit of its last but one": lambda d: flip(last(d), used(last(d)) - 200),
    "a bit of its magic": lambda d: flip(last(d), 2),
    "a bit of its first position": lambda d: flip(last(d), 9),
    "a bit of its size": lambda d: flip(last(d), 17),
    "that and a bit in the middle": lambda d: (flip(last(d), 9), flip(last(d), used(last(d)) // 2)),
    "removed": lambda d: last(d).unlink(),
    "renamed": rename,
    "all segments removed": lambda d: [path.unlink() for path in segments(d)],
    "the directory removed": shutil.rmtree,
    "a segment that is none": lambda d: (d / "zzz.log").write_bytes(b"x" * 100),
    "the end of an earlier one zeroed": lambda d: zero(segments(d)[0], used(segments(d)[0]) - 300, 4096),
    "all but the header of an earlier one zeroed": lambda d: zero(segments(d)[1], HEADER_BYTES, 4096),
    "the mark removed": lambda d: mark_of(d).unlink(),
    "both places of the mark": lambda d: (flip(mark_of(d), 9), flip(mark_of(d), 4096 + 17)),
    "the mark cut": lambda d: os.truncate(mark_of(d), 0),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_was_acknowledged_is_never_lost_in_silence(tmp_path: Path, what: str) -> None:
    """Each of these lost acknowledged writes silently: a log that ends early looks complete."""
    log = written(tmp_path / "log", 70, size=100, segment=4096)
    log.seal()  # kill -9: nothing is closed
    assert len(segments(tmp_path / "log")) >= 3
    DAMAGE[what](tmp_path / "log")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(Damaged, match=r"log.*remove this member, empty its volume"):
        list(DurableLog(tmp_path / "log", segment_bytes=4096).replay())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("slot", [0, 4096])
def test_one_place_of_the_mark_is_enough(tmp_path: Path, slot: int) -> None:
    """A write of it that was torn leaves the other one."""
    written(tmp_path, 20).close()
    flip(mark_of(tmp_path), slot + 10)
    assert entries(tmp_path) == list(range(1, 21))


def test_a_log_is_looked_at_without_changing_it(tmp_path: Path) -> None:
    log = written(tmp_path, 20)
    mark = mark_of(tmp_path).read_bytes()
    log.append([record(21)])
    log.close()
    mark_of(tmp_path).write_bytes(mark)
    flip(last(tmp_path), used(last(tmp_path)) - 3)
    before = last(tmp_path).read_bytes()
    log = DurableLog(tmp_path, segment_bytes=1 << 16)
    assert len([r for r in log.replay(read_only=True) if r.entries]) == 20
    log.close()
    assert last(tmp_path).read_bytes() == before


def test_the_largest_request_there_may_be_fits_a_frame(tmp_path: Path) -> None:
    """A request of the largest size that the server can be configured for stopped it."""
    log = DurableLog(tmp_path)
    log.create()
    log.append([DurableAppend(1, HardState(term=1), 0, (Entry(1, 1, bytes(64 << 20)), Entry(2, 1, b"x")))])
    log.close()
    found = [e for r in DurableLog(tmp_path).replay() for e in r.entries]
    assert [len(e.data) for e in found] == [64 << 20, 1]
