"""Every watcher gets every change of its range once, in order, however fast its client reads."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from holdfast.keyrange import bounds
from holdfast.kv import requests
from holdfast.kv.rows import Change, Version
from holdfast.kv.space import KeySpace
from holdfast.kv.store import MemoryStore, Pending
from holdfast.proto import rpc_pb2
from holdfast.watch.hub import (
    CATCH_UP_CHANGES,
    CATCH_UP_READS,
    CATCH_UP_WATCHERS,
    LIVE_LOOKS,
    LIVE_WATCHERS,
    Compacted,
    Delivery,
    Events,
    Hub,
    Progress,
)
from holdfast.watch.slice import SLICE_BYTES
from holdfast.watch.watcher import Watcher


class World:
    def __init__(self) -> None:
        self.pending = Pending(MemoryStore())
        self.space = KeySpace(self.pending)
        self.hub = Hub(self.space)
        self.log: list[Change] = []
        self.told: dict[tuple[int, int], list[Change]] = {}
        self.progressed: list[tuple[int, int]] = []

    def write(self, *pairs: tuple[bytes, bytes | None]) -> None:
        for key, value in pairs:
            if value is None:
                self.space.delete(key)
            else:
                requests.put(self.space, (), rpc_pb2.PutRequest(key=key, value=value))
        changes = self.space.commit()
        self.pending.flush()
        if changes:
            self.log += changes
            self.take(self.hub.publish([changes]))

    def put(self, key: bytes, value: bytes) -> list[Change]:
        """Write, and publish later."""
        requests.put(self.space, (), rpc_pb2.PutRequest(key=key, value=value))
        changes = self.space.commit()
        self.pending.flush()
        return changes

    def watch(self, stream: int, id: int, start: bytes, end: bytes | None, begin: int = 0) -> None:
        self.hub.add(stream, Watcher(id, ((start, end),), begin))

    def take(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if isinstance(delivery, Events):
                told = self.told.setdefault((delivery.stream, delivery.watcher.id), [])
                if told:
                    assert delivery.changes[0].revision > told[-1].revision, "a revision was split or repeated"
                told += delivery.changes
            elif isinstance(delivery, Progress):
                self.progressed.append((delivery.stream, delivery.revision))

    def catch_up(self) -> None:
        while self.hub.busy:
            self.take(self.hub.catch_up())


def _as_told(watcher: Watcher, changes: list[Change]) -> list[Change]:
    """Previous values count only if the watcher wants them."""
    return changes if watcher.prev_kv else [c._replace(previous=None) for c in changes]


def test_scenario_31_random_watchers_miss_and_repeat_nothing() -> None:
    """etcd 15271, 17529: after a partition a watch saw the past again; a starved one lost events."""
    for seed in range(30):
        chance = random.Random(seed)
        world = World()
        keys = [b"a", b"b", b"b/1", b"c"]
        watchers: dict[tuple[int, int], tuple[Watcher, int]] = {}
        for stream in range(4):
            world.hub.open(stream)
        for _ in range(200):
            act = chance.random()
            stream = chance.randrange(4)
            if act < 0.5:
                some = chance.sample(keys, chance.randrange(1, 3))
                world.write(*((k, b"x" if chance.random() < 0.7 else None) for k in some))
            elif act < 0.6:
                start = chance.randrange(0, world.space.revision + 3)
                key = chance.choice(keys)
                end = chance.choice([b"", b"\x00", b"c"])
                low, high = bounds(key, end)
                if high is not None and high <= low:
                    continue
                watcher = Watcher(world.hub.new_id(stream), ((low, high),), start, prev_kv=chance.random() < 0.5)
                begins = start or world.space.revision + 1
                world.hub.add(stream, watcher)
                watchers[stream, watcher.id] = (watcher, begins)
            elif act < 0.7:
                world.hub.block(stream)
            elif act < 0.85:
                world.hub.unblock(stream)
            elif world.hub.busy:
                world.take(world.hub.catch_up())
            progress = world.hub.progress(stream)
            if progress is not None:
                for (owner, id), (watcher, begins) in watchers.items():
                    if owner == stream:
                        wanted = [
                            c for c in world.log if begins <= c.revision <= progress.revision and watcher.wants(c)
                        ]
                        told = world.told.get((owner, id), [])
                        assert _as_told(watcher, told) == _as_told(watcher, wanted), "progress overtook an event"
        for stream in range(4):
            world.hub.unblock(stream)
        world.catch_up()
        for ref, (watcher, begins) in watchers.items():
            wanted = [c for c in world.log if c.revision >= begins and watcher.wants(c)]
            assert _as_told(watcher, world.told.get(ref, [])) == _as_told(watcher, wanted)


def test_scenario_31_a_watch_of_compacted_history_is_cancelled() -> None:
    """etcd 18089, 19179: at the compacted revision itself, a deletion was told or not by chance."""
    world = World()
    for n in range(10):
        world.write((b"a", b"%d" % n))
    world.space.compact(8)
    world.hub.open(1)
    world.hub.add(1, Watcher(0, (bounds(b"a", b""),), 5))
    world.hub.add(1, Watcher(1, (bounds(b"a", b""),), 8))
    deliveries = world.hub.catch_up()
    cancelled = [d for d in deliveries if isinstance(d, Compacted)]
    assert [(d.watcher.id, d.compacted) for d in cancelled] == [(0, 8)]
    assert [c.revision for d in deliveries if isinstance(d, Events) for c in d.changes] == [8, 9, 10, 11]


def test_a_quiet_watcher_survives_compaction_while_it_is_blocked() -> None:
    """It was told everything that mattered: only what it has missed may be lost to compaction."""
    world = World()
    world.hub.open(1)
    world.hub.add(1, Watcher(0, (bounds(b"quiet", b""),), 0))
    for n in range(10):
        world.write((b"noise", b"%d" % n))
    world.space.compact(9)
    world.hub.block(1)
    world.write((b"quiet", b"x"))
    world.hub.unblock(1)
    world.catch_up()
    assert [c.key for c in world.told[1, 0]] == [b"quiet"]


@pytest.mark.parametrize("count", [1, 2500])
def test_catching_up_with_much_history(count: int) -> None:
    world = World()
    for n in range(count):
        world.write((b"a", b"%d" % n))
    world.hub.open(1)
    world.hub.add(1, Watcher(0, (bounds(b"a", b""),), 1))
    assert world.hub.progress(1) is None
    world.catch_up()
    assert len(world.told[1, 0]) == count
    assert world.hub.progress(1) is not None


def test_scenario_31_a_watch_of_the_future_waits_for_it() -> None:
    """etcd 20221: a watch that is resumed at a member that lags must not get old events again."""
    world = World()
    world.hub.open(1)
    world.hub.add(1, Watcher(0, ((b"a", b"b"),), next=4))
    for value in (b"1", b"2", b"3"):
        world.write((b"a", value))
        assert world.hub.progress(1) is None or world.space.revision >= 3
    assert [c.revision for c in world.told[1, 0]] == [4]


def test_scenario_31_progress_is_never_ahead_of_events() -> None:
    """etcd 15220: a client was told that everything up to a revision was sent, and the event came after."""
    world = World()
    world.hub.open(1)
    world.hub.add(1, Watcher(0, ((b"a", b"b"),), next=0, progress=True))
    world.hub.block(1)
    world.write((b"a", b"1"))
    assert world.hub.progress(1) is None
    assert world.hub.tick() == []
    world.hub.unblock(1)
    assert world.hub.progress(1) is None
    world.catch_up()
    progress = world.hub.progress(1)
    assert progress is not None
    assert progress.revision == 2
    assert [c.revision for c in world.told[1, 0]] == [2]


def test_many_watchers_are_told_in_several_turns_and_all_of_it() -> None:
    world = World()
    world.hub.open(1)
    count = LIVE_WATCHERS + 2 * CATCH_UP_WATCHERS
    for id in range(count):
        world.hub.add(1, Watcher(id, (bounds(b"a", b""),), 0))
    world.write((b"a", b"1"))
    assert len(world.told) == LIVE_WATCHERS
    assert world.hub.progress(1) is None
    world.write((b"a", b"2"))  # before the others have heard of the first
    world.catch_up()
    assert [[c.revision for c in world.told[1, id]] for id in range(count)] == [[2, 3]] * count
    assert world.hub.progress(1) is not None


def test_many_watchers_of_a_key_are_not_all_looked_at_for_each_change() -> None:
    """Thirty thousand watches of wide ranges held up the loop for 14 s when 200 keys were put in one turn."""
    world = World()
    many = 3 * LIVE_LOOKS
    world.hub.open(1)
    for n in range(many):
        world.watch(1, n, b"a%06d" % n, b"z%06d" % n)
    looked_at = 0
    original = world.hub._interest.of

    def counted(key: bytes) -> Iterator[tuple[int, int]]:
        nonlocal looked_at
        for ref in original(key):
            looked_at += 1
            yield ref

    world.hub._interest.of = counted  # type: ignore[method-assign]
    groups = [world.put(b"m", b"%d" % n) for n in range(200)]
    world.take(world.hub.publish(groups))
    assert looked_at <= LIVE_LOOKS + 1
    world.catch_up()
    assert len(world.told) == many
    assert all([change.kv for change in told] == [g[0].kv for g in groups] for told in world.told.values())


def test_a_turn_of_catching_up_sends_no_more_than_so_many_bytes() -> None:
    """Each of 256 watches from a revision of its own read a MiB of the past, and all of them in one turn."""
    world = World()
    for n in range(40):
        world.write((b"k", b"%d" % n + bytes(400_000)))
    world.hub.open(1)
    for n in range(30):
        world.watch(1, n, b"k", b"l", 2 + n)
    sent = sum(len(c.kv) for told in world.hub.catch_up() if isinstance(told, Events) for c in told.changes)
    assert 0 < sent <= (CATCH_UP_CHANGES << 10) + 2 * SLICE_BYTES


def test_a_turn_of_catching_up_reads_no_more_previous_values_than_that() -> None:
    """A small change or a deletion may replace a large value."""
    world = World()
    for n in range(40):
        world.write((b"k%d" % n, bytes(400_000)))
    for n in range(40):
        world.write((b"k%d" % n, b""))
    world.hub.open(1)
    for n in range(30):
        world.hub.add(1, Watcher(n, (bounds(b"k", b"l"),), 42 + n, prev_kv=True))
    while world.hub.busy:
        told = world.hub.catch_up()
        world.take(told)
        sent = sum(len(c.previous or b"") for e in told if isinstance(e, Events) for c in e.changes)
        assert sent <= (CATCH_UP_CHANGES << 10) + 2 * SLICE_BYTES
    assert all(len(world.told[1, n]) == 40 - n for n in range(30))
    assert all(len(c.previous or b"") > 400_000 for told in world.told.values() for c in told)


def test_watchers_of_the_past_cost_no_look_at_each_change() -> None:
    """A thousand watches of a key that does not exist, from the first revision on: each looked at every change, in
    turns that were measured in revisions. One turn took two seconds."""
    world = World()
    for _ in range(30):
        world.write(*((b"k%03d" % n, b"v") for n in range(300)))  # 300 changes in one revision
    world.hub.open(1)
    for id in range(CATCH_UP_WATCHERS + 100):
        world.watch(1, id, *bounds(b"absent", b""), 1)
    world.watch(1, 9999, *bounds(b"k007", b""), 1)
    world.watch(1, 9998, b"k29", b"k3", 1)
    read = 0
    history = world.space.history

    def counted(start: int, end: int, sub: int = 0) -> Iterator[tuple[Change, int, Version]]:
        nonlocal read
        for found in history(start, end, sub):
            read += 1
            yield found

    world.space.history = counted  # type: ignore[method-assign]
    turns = 0
    while world.hub.busy:
        read, turns = 0, turns + 1
        world.take(world.hub.catch_up())
        assert read <= CATCH_UP_READS + 1, "at most the budget, and a look at the next"
    assert turns <= 90
    assert [c.revision for c in world.told[1, 9999]] == list(range(2, 32))
    assert [c.key for c in world.told[1, 9998]] == [b"k%03d" % n for n in range(290, 300)] * 30


def test_watchers_of_many_moments_share_the_budget_of_a_turn() -> None:
    world = World()
    for _ in range(40):
        world.write(*((b"k%03d" % n, b"v") for n in range(300)))
    world.hub.open(1)
    for id in range(40):
        world.watch(1, id, *bounds(b"k%03d" % id, b""), id + 1)  # each needs another slice
    while world.hub.busy:
        sent = len(world.told)
        world.take(world.hub.catch_up())
        assert len(world.told) - sent <= 2, "each slice of a turn reads the budget of a whole one"
    assert all(len(world.told[1, id]) == 40 - max(0, id - 1) for id in range(40))


def test_a_blocked_stream_with_watchers_that_are_behind_is_no_work() -> None:
    world = World()
    world.hub.open(1)
    world.watch(1, 1, b"a", b"b")
    world.hub.block(1)
    world.write((b"a", b"1"))
    assert (world.hub.behind, world.hub.busy) == (1, False)
    world.hub.unblock(1)
    assert world.hub.busy
    world.catch_up()
    assert (world.hub.behind, len(world.told[1, 1])) == (0, 1)
    world.hub.block(1)
    world.write((b"a", b"2"))
    world.hub.close(1)
    assert (world.hub.behind, world.hub.busy) == (0, False)


def test_a_revision_of_many_changes_is_read_in_steps_while_others_are_written() -> None:
    """Each turn reads a part of it; what is written and compacted meanwhile is neither missed nor sent twice."""
    world = World()
    world.write(*((b"k%04d" % n, b"v") for n in range(3 * CATCH_UP_READS)))  # revision 2
    world.hub.open(1)
    world.watch(1, 1, b"k", b"l", 2)
    world.watch(1, 2, *bounds(b"k0007", b""), 2)
    for number in range(2):
        assert world.hub.busy
        world.take(world.hub.catch_up())
        assert not world.told.get((1, 1)), "a revision is sent as a whole"
        world.write((b"k0007", b"%d" % number))
    world.catch_up()
    whole = [c.key for c in world.told[1, 1]]
    assert whole == [b"k%04d" % n for n in range(3 * CATCH_UP_READS)] + [b"k0007"] * 2
    assert [c.revision for c in world.told[1, 2]] == [2, 3, 4]


def test_a_slice_that_is_half_read_is_given_up_with_its_watcher() -> None:
    world = World()
    for _ in range(2):
        world.write(*((b"k%04d" % n, b"v") for n in range(2 * CATCH_UP_READS)))
    world.hub.open(1)
    world.watch(1, 1, b"k", b"l", 2)
    world.watch(1, 2, b"k", b"l", 3)
    world.take(world.hub.catch_up())
    world.space.compact(3)  # the first watcher cannot go on, the second can
    world.catch_up()
    assert not world.told.get((1, 1))
    assert [c.revision for c in world.told[1, 2]] == [3] * (2 * CATCH_UP_READS)
