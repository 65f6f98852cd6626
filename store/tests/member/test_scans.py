"""Reads of many rows take turns, and no turn of the loop reads more than one slice of one of them."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.kv import requests
from holdfast.kv.space import HISTORY_BYTES, Space
from holdfast.kv.store import MemoryStore, Pending
from holdfast.member.scans import SLICE, Scans
from holdfast.proto import rpc_pb2


class Loop:
    """Runs what is due, a turn at a time."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def soon(self, work: Callable[[], None]) -> None:
        self.due.append(work)

    def turn(self) -> int:
        due, self.due = self.due, []
        for work in due:
            work()
        return len(due)


class Slices:
    """A scan of so many slices that says when it is looked at."""

    def __init__(self, name: str, slices: int, seen: list[str]) -> None:
        self.name = name
        self._left = slices
        self._seen = seen

    def advance(self, budget: int) -> bool:
        assert budget == SLICE
        self._seen.append(self.name)
        self._left -= 1
        return self._left == 0


def test_scans_take_turns() -> None:
    loop, seen, done = Loop(), list[str](), list[str]()
    scans = Scans(loop.soon, lambda: done.append("told"))
    for name, slices in (("a", 4), ("b", 3), ("c", 1)):
        scans.run(Slices(name, slices, seen), lambda scan: done.append(scan.name), floor=7 if name == "b" else None)
    assert (seen, done, scans.floor) == (["a", "b", "c"], ["c"], 7)
    seen.clear()
    turns = 0
    while loop.turn():
        turns += 1
        assert len(seen) == turns
    assert seen == ["a", "b", "a", "b", "a"]
    assert done == ["c", "b", "told", "a", "told"]
    assert scans.floor is None
    scans.run(Slices("d", 2, seen), lambda scan: done.append(scan.name), floor=3)
    scans.stop()
    loop.turn()
    assert seen[-1] == "d"
    assert done[-1] == "told"
    assert not loop.turn()


def test_a_slice_is_not_larger_because_rows_are() -> None:
    pending = Pending(MemoryStore())
    space = Space(pending)
    for n in range(40):
        requests.put(space, (), rpc_pb2.PutRequest(key=b"k%d" % n, value=bytes(256 << 10)))
        space.commit()
    pending.flush()
    everything = rpc_pb2.RangeRequest(key=b"\x00", range_end=b"\x00")
    for scan in (space.scan(everything), space.hash(0)):
        slices = 1
        while not scan.advance(SLICE):
            slices += 1
        assert slices >= 10
    groups, following = space.changes_from(2, space.revision, 1000)
    assert HISTORY_BYTES <= sum(len(change.kv) for group in groups for change in group) < 2 * HISTORY_BYTES
    assert following == 2 + len(groups)
