"""Reads of many rows take turns, and no turn of the loop reads more than one slice of one of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from holdfast.kv import requests
from holdfast.kv.space import HISTORY_BYTES, KeySpace
from holdfast.kv.store import MemoryStore, Pending, StateDamaged
from holdfast.proto import rpc_pb2
from holdfast.served import scans as module
from holdfast.served.scans import SLICE, Scans
from holdfast.status import STATE_DAMAGED, Refusal, RequestError


def never(error: Refusal) -> None:
    raise AssertionError(f"a scan failed: {error}")


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
        scans.run(
            Slices(name, slices, seen), lambda scan: done.append(scan.name), never, floor=7 if name == "b" else None
        )
    assert (seen, done, scans.floor) == (["a", "b", "c"], ["c"], 7)
    seen.clear()
    turns = 0
    while loop.turn():
        turns += 1
        assert len(seen) == turns
    assert seen == ["a", "b", "a", "b", "a"]
    assert done == ["c", "b", "told", "a", "told"]
    assert scans.floor is None
    scans.run(Slices("d", 2, seen), lambda scan: done.append(scan.name), never, floor=3)
    scans.stop()
    loop.turn()
    assert seen[-1] == "d"
    assert done[-1] == "told"
    assert not loop.turn()


def test_who_gives_up_leaves_no_work_behind_and_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    loop, seen, done = Loop(), list[str](), list[str]()
    scans = Scans(loop.soon, lambda: None)

    def run(name: str, slices: int) -> Callable[[], None]:
        return scans.run(Slices(name, slices, seen), lambda scan: done.append(scan.name), never, floor=5)

    cancel_a, cancel_b = run("a", 100), run("b", 3)
    assert run("small", 1) is not None
    with pytest.raises(RequestError, match="too many requests"):
        run("c", 2)
    cancel_a()
    cancel_a()
    assert scans.floor == 5
    run("c", 2)
    while loop.turn():
        pass
    assert done == ["small", "c", "b"]
    assert seen.count("a") == 1
    cancel_b()
    assert scans.floor is None


def test_a_scan_that_fails_does_not_stop_the_others() -> None:
    class Fails:
        def advance(self, budget: int) -> bool:
            if looked_at:
                raise AssertionError("history lacks it")
            looked_at.append(1)
            return False

    looked_at: list[int] = []
    loop, seen, done = Loop(), list[str](), list[str]()
    scans = Scans(loop.soon, lambda: None)
    scans.run(Fails(), lambda scan: done.append("never"), never, floor=None)
    scans.run(Slices("a", 2, seen), lambda scan: done.append(scan.name), never, floor=None)
    with pytest.raises(AssertionError, match="history"):
        loop.turn()
    while loop.turn():
        pass
    assert done == ["a"]


def test_a_slice_is_not_larger_because_rows_are() -> None:
    pending = Pending(MemoryStore())
    space = KeySpace(pending)
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


class Damaged:
    """Rows of which the second slice cannot be read."""

    def __init__(self) -> None:
        self._slices = 0

    def advance(self, budget: int) -> bool:
        self._slices += 1
        if self._slices == 2:
            raise StateDamaged("a block fails its checksum")
        return False


def test_who_asks_for_damaged_rows_gets_an_error_and_not_a_short_answer() -> None:
    loop, told, refused = Loop(), list[str](), list[Refusal]()
    scans = Scans(loop.soon, lambda: told.append("told"))
    scans.run(Damaged(), lambda _: told.append("never"), refused.append, floor=None)
    scans.run(Slices("a", 3, []), lambda scan: told.append(scan.name), refused.append, floor=None)
    while loop.turn():
        pass
    assert refused == [STATE_DAMAGED]
    assert told == ["told", "a", "told"]
