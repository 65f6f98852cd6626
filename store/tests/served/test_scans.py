"""Reads of many rows take turns, and no turn of the loop reads more than one slice of one of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from holdfast.kv import requests
from holdfast.kv import slices as sorting
from holdfast.kv.space import KeySpace
from holdfast.kv.store import MemoryStore, Pending, StateDamaged
from holdfast.outbox import Outbox
from holdfast.proto import kv_pb2, rpc_pb2
from holdfast.served import memory
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

    def __init__(self, name: str, slices: int, seen: list[str], *, last: int = 1, floor: int | None = None) -> None:
        """`last`: what the last slice leaves of its budget."""
        self.name = name
        self.floor = floor
        self.held = 0
        self._last = last
        self._left = slices
        self._seen = seen

    def close(self) -> None: ...

    def advance(self, budget: int) -> int:
        assert budget == SLICE
        self._seen.append(self.name)
        self._left -= 1
        return self._last if self._left == 0 else 0


class Calls:
    """Calls of connections, which read so many slices each."""

    def __init__(self) -> None:
        self.loop, self.seen, self.done = Loop(), list[str](), list[str]()
        self.refused: list[str] = []
        self.scans = Scans(self.loop.soon, lambda: self.done.append("told"))

    def run(
        self, name: str, slices: int, *, of: str = "", last: int = 1, floor: int | None = None
    ) -> Callable[[], None]:
        cancel = self.scans.run(
            lambda: Slices(name, slices, self.seen, last=last, floor=floor),
            lambda scan: self.done.append(scan.name),
            lambda error: self.refused.append(name),
            owner=of or name,
        )
        return cancel or (lambda: None)

    def turn(self) -> list[str]:
        """The scans that read a slice in one turn."""
        self.seen.clear()
        self.loop.turn()
        return list(self.seen)

    def finish(self) -> None:
        while self.loop.turn():
            pass


def test_scans_take_turns_and_a_turn_reads_one_slice() -> None:
    calls = Calls()
    calls.run("a", 4)
    assert calls.seen == ["a"]
    for name, slices in (("b", 3), ("c", 1)):
        calls.run(name, slices, floor=7)
    assert calls.seen == ["a"]  # the slice of this turn of the loop is used up
    assert calls.scans.floor is None
    # "c" does not use up its slice, so that the next one begins in the same turn.
    assert [calls.turn() for _ in range(6)] == [["a"], ["b"], ["c", "a"], ["b"], ["a", "b"], []]
    assert calls.done == ["c", "told", "a", "b", "told"]
    calls.run("d", 2, floor=3)
    assert calls.turn() == ["d"]
    assert calls.scans.floor == 3
    calls.scans.stop()
    assert calls.turn() == []
    assert calls.scans.idle
    assert calls.scans.floor is None


def test_small_reads_are_answered_at_once_until_the_slice_of_the_turn_is_used_up() -> None:
    calls = Calls()
    for n in range(3 * SLICE):
        calls.run(f"get{n}", 1, last=SLICE - 1)
    assert len(calls.done) == SLICE
    assert len(calls.turn()) == SLICE
    assert calls.done.count("told") == 1  # answers of one turn are sent together
    assert len(calls.turn()) == SLICE


def test_a_refused_call_costs_little() -> None:
    def refuse() -> Slices:
        raise RequestError(STATE_DAMAGED)

    calls = Calls()
    for _ in range(SLICE // 2):
        with pytest.raises(RequestError):
            calls.scans.run(refuse, lambda _: None, never, owner="refused")
    calls.run("get", 1)
    assert calls.done == ["get"]


def test_a_connection_with_many_calls_does_not_delay_others() -> None:
    """Two hundred calls that arrived in one turn each read a slice at once; another client's call waited seconds."""
    calls = Calls()
    for n in range(200):
        calls.run(f"many{n}", 2, of="greedy")
    assert len(calls.seen) == 1
    calls.run("get", 1, of="polite")
    assert "get" in calls.turn()
    calls.finish()
    assert len([name for name in calls.done if name.startswith("many")]) == 200


def test_who_gives_up_leaves_no_work_behind_and_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RUNNING", 2)
    calls = Calls()
    cancel_a, cancel_b = calls.run("a", 100, floor=5), calls.run("b", 3, floor=5)
    calls.run("c", 2, floor=5)
    calls.run("small", 1)
    assert calls.turn() == ["a"]
    assert calls.turn() == ["b"]
    assert calls.turn() == ["c"]
    assert calls.refused == ["c"]
    assert calls.turn() == ["small", "a"]
    cancel_a()
    cancel_a()
    assert calls.scans.floor == 5
    calls.run("d", 2)
    calls.finish()
    assert [name for name in calls.done if name != "told"] == ["small", "b", "d"]
    cancel_b()
    assert calls.scans.idle


def test_a_scan_that_fails_does_not_stop_the_others() -> None:
    class Fails:
        floor: int | None = None
        held = 0

        def close(self) -> None: ...

        def advance(self, budget: int) -> int:
            if looked_at:
                raise AssertionError("history lacks it")
            looked_at.append(1)
            return 0

    looked_at: list[int] = []
    calls = Calls()
    calls.scans.run(Fails, lambda scan: calls.done.append("never"), never, owner=1)
    calls.run("a", 2)
    with pytest.raises(AssertionError, match="history"):
        calls.turn()
    calls.finish()
    assert calls.done == ["a", "told"]


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


class Damaged:
    """Rows of which the second slice cannot be read."""

    floor: int | None = None
    held = 0

    def __init__(self) -> None:
        self._slices = 0

    def close(self) -> None: ...

    def advance(self, budget: int) -> int:
        self._slices += 1
        if self._slices == 2:
            raise StateDamaged("a block fails its checksum")
        return 0


def test_who_asks_for_damaged_rows_gets_an_error_and_not_a_short_answer() -> None:
    calls, refused = Calls(), list[Refusal]()
    calls.scans.run(Damaged, lambda _: calls.done.append("never"), refused.append, owner=1)
    calls.run("a", 3)
    calls.finish()
    assert refused == [STATE_DAMAGED]
    assert calls.done == ["told", "a", "told"]


def test_sorting_is_part_of_the_slices_and_keeps_no_more_than_the_limit() -> None:
    """A Range of limit 1 with a sort over the key space sorted all of it in one go."""
    pending = Pending(MemoryStore())
    space = KeySpace(pending)
    for n in range(5000):
        space.put(b"k%05d" % n, b"%d" % (n * 7919 % 5000), 0)
    space.commit()
    pending.flush()
    request = rpc_pb2.RangeRequest(
        key=b"k", range_end=b"l", sort_order=rpc_pb2.RangeRequest.DESCEND, sort_target=rpc_pb2.RangeRequest.VALUE
    )
    for limit, at_least in ((0, 10_000), (1, 5000)):
        request.limit = limit
        scan, slices = space.scan(request), 1
        while not scan.advance(100):
            slices += 1
        assert slices >= at_least // 100
        kvs, more, count = scan.result()
        values = [kv_pb2.KeyValue.FromString(kv).value for kv in kvs]
        assert values == sorted((b"%d" % n for n in range(5000)), reverse=True)[: limit or None]
        assert (more, count) == (limit == 1, 5000)


@pytest.mark.parametrize("seed", range(20))
def test_a_sort_in_slices_is_a_sort(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(sorting, "RUN", rng.choice((1, 3, 1000)))
    limit, reverse = rng.choice((0, 1, 5, 1000)), rng.random() < 0.5
    order: sorting.SlicedSort[tuple[int, int]] = sorting.SlicedSort(lambda item: item[0], reverse=reverse, limit=limit)
    items = [(rng.randrange(10), n) for n in range(rng.randrange(100))]
    for item in items:
        order.add(item)
    wanted = sorted(items, key=lambda item: item[0], reverse=reverse)
    assert list(order.merged()) == (wanted[:limit] if limit else wanted)


# ---- memory ------------------------------------------------------------------------------------------------------


class Keeps(Slices):
    """A scan that keeps so many bytes once it has begun."""

    def __init__(self, name: str, seen: list[str], held: int, slices: int = 2) -> None:
        super().__init__(name, slices, seen)
        self.held = held


class Kept:
    """Scans of connections; what those that have begun and are not finished keep, at most."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.scans = Scans(self.loop.soon, lambda: None)
        self.open: dict[str, Keeps] = {}
        self.done: list[str] = []
        self.most = 0
        self.seen: list[str] = []

    def run(self, name: str, held: int, owner: str, outbox: Outbox | None = None) -> Callable[[], None] | None:
        def begin() -> Keeps:
            self.open[name] = Keeps(name, self.seen, held)
            self.most = max(self.most, sum(scan.held for scan in self.open.values()))
            return self.open[name]

        def done(scan: Keeps) -> None:
            del self.open[scan.name]
            self.done.append(scan.name)

        return self.scans.run(begin, done, never, owner=owner, outbox=outbox)

    def until_idle(self) -> None:
        while self.loop.turn():
            pass


def test_scans_of_one_connection_keep_little_at_a_time_and_all_are_answered() -> None:
    kept = Kept()
    for n in range(300):
        kept.run(f"a{n}", memory.OWN_BYTES // 8, "a")
    for n in range(5):
        kept.run(f"b{n}", 100, "b")
    kept.until_idle()
    assert sorted(kept.done) == sorted([*(f"a{n}" for n in range(300)), *(f"b{n}" for n in range(5))])
    assert kept.most <= 2 * memory.OWN_BYTES
    assert max(kept.done.index(f"b{n}") for n in range(5)) < 100, "the other connection does not wait"


class Grows(Slices):
    """A scan that keeps more after each slice."""

    def __init__(self, name: str, seen: list[str], slices: int, step: int) -> None:
        super().__init__(name, slices, seen)
        self._step = step

    def advance(self, budget: int) -> int:
        self.held += self._step
        return super().advance(budget)


def test_scans_that_have_begun_do_not_all_grow() -> None:
    kept, most = Kept(), 0
    scans = [Grows(f"a{n}", kept.seen, 50, memory.OWN_BYTES // 30) for n in range(30)]
    ended: list[str] = []

    def finished(scan: Grows) -> None:
        ended.append(scan.name)
        scan.held = 0

    waiting = iter(scans)  # they begin in the order in which they were asked for
    for _ in scans:
        kept.scans.run(lambda: next(waiting), finished, never, owner="a")
    while kept.loop.turn():
        most = max(most, sum(scan.held for scan in scans))
    assert sorted(ended) == sorted(scan.name for scan in scans)
    assert most <= 4 * memory.OWN_BYTES, "one of them and the bound"
    assert kept.scans.idle


def test_one_scan_may_keep_more_than_is_allowed_to_many() -> None:
    kept = Kept()
    kept.run("large", 10 * memory.ALL_BYTES, "a")
    kept.run("small", 1, "a")
    kept.run("other", 1, "b")
    kept.until_idle()
    assert sorted(kept.done) == ["large", "other", "small"]


def test_nothing_is_read_for_a_connection_that_reads_no_answers_until_it_does() -> None:
    kept, outbox = Kept(), Outbox()
    outbox.set(True)
    cancels = [kept.run(f"a{n}", 100, "a", outbox) for n in range(100)]
    kept.run("b", 100, "b", Outbox())
    kept.until_idle()
    assert kept.done == ["b"]
    assert not any("a" in name for name in kept.seen)
    for cancel in cancels[:40]:
        assert cancel is not None
        cancel()
    outbox.set(False)
    kept.until_idle()
    assert sorted(kept.done) == sorted(["b", *(f"a{n}" for n in range(40, 100))])


def test_who_has_to_wait_is_released_by_whatever_ends() -> None:
    """Also if what it waited for is cancelled."""
    kept = Kept()
    first = kept.run("first", 2 * memory.OWN_BYTES, "a")
    kept.run("second", 1, "a")
    assert first is not None
    kept.loop.turn()
    first()
    kept.until_idle()
    assert kept.done in (["second"], ["first", "second"])
