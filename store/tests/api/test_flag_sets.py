"""Sets of flags: one read and one watch for all who use them, always of one revision, in bounded turns."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import pytest
from holdfast.api import flag_sets
from holdfast.api.flag_sets import FlagSets
from holdfast.api.shared_flags import COALESCE_SECONDS, PARSED_PER_TURN, Position, SharedSet
from holdfast.flags.definition import MAX_DEFINITION_BYTES
from holdfast.flags.flag_set import FlagSet
from holdfast.flags.selector import Selector
from holdfast.kv import requests
from holdfast.kv.space import KeySpace
from holdfast.kv.store import MemoryStore, Pending
from holdfast.proto import rpc_pb2
from holdfast.served.keyspace import ServedSpace
from holdfast.served.scans import Failed, S, Scans
from holdfast.status import Refusal, RequestError

ALL = Selector(b"/flags/")


def flag(variant: str, padding: int = 0) -> bytes:
    definition: dict[str, Any] = {"state": "ENABLED", "variants": {variant: 1}, "defaultVariant": variant}
    if padding:
        definition["metadata"] = {"x": "y" * padding}
    return json.dumps(definition).encode()


class World:
    """A key space as a server serves it, in memory. Implements `shared_flags.FlagSource`."""

    def __init__(self) -> None:
        self.pending = Pending(MemoryStore())
        self.served = ServedSpace(KeySpace(self.pending), Scans(asyncio.get_running_loop().call_soon, lambda: None))
        self.sets = FlagSets(itertools.count(1).__next__)
        self.staleness: float | None = None
        self.reads = 0

    @property
    def hub(self) -> Any:
        return self.served.hub

    @property
    def space(self) -> KeySpace:
        return self.served.space

    def position(self) -> Position:
        return Position(self.space.revision, self.staleness is not None, self.staleness)

    def poke(self) -> None:
        asyncio.get_running_loop().call_soon(self.publish)

    def publish(self, revisions: Any = ()) -> None:
        for delivery in self.served.publish(revisions):
            assert self.sets.deliver(delivery)

    def scan(
        self, begin: Callable[[], S], done: Callable[[S], None], failed: Failed, owner: Hashable
    ) -> Callable[[], None] | None:
        self.reads += 1
        return self.served.scans.run(begin, done, failed, owner=owner)

    def write(self, values: dict[str, bytes | None], *, told: bool = True) -> int:
        for name, value in values.items():
            if value is None:
                self.space.delete(b"/flags/" + name.encode())
            else:
                requests.put(self.space, (), rpc_pb2.PutRequest(key=b"/flags/" + name.encode(), value=value))
        changes = self.space.commit()
        self.pending.flush()
        if changes and told:
            self.publish([changes])
        return self.space.revision

    def get(self, selector: Selector = ALL, owner: str = "") -> SharedSet:
        return self.sets.get(selector, self, owner)


class Reader:
    """Keeps the documents that it was told of."""

    def __init__(self, found: SharedSet) -> None:
        self.found = found
        self.documents: list[dict[str, Any]] = []
        self.failed: Refusal | None = None
        self._told = asyncio.Event()
        found.use(self)

    def flags_changed(self) -> None:
        assert self.found.document is not None
        self.documents.append(json.loads(self.found.document.text)["flags"])
        self._told.set()

    def flags_failed(self, refusal: Refusal) -> None:
        self.failed = refusal
        self._told.set()

    async def has(self, names: set[str]) -> None:
        async with asyncio.timeout(20):
            while not self.documents or set(self.documents[-1]) != names:
                self._told.clear()
                await self._told.wait()


async def test_one_read_and_one_watcher_for_all() -> None:
    world = World()
    world.write({"a": flag("x")})
    readers = [Reader(world.get()) for _ in range(100)]
    assert (world.reads, world.hub.watchers) == (1, 1)
    for n in range(50):  # together
        world.write({f"n{n}": flag("x")})
    names = {"a", *(f"n{n}" for n in range(50))}
    for reader in readers:
        await reader.has(names)
        assert len(reader.documents) == 2
    world.write(dict.fromkeys(names))
    for reader in readers:
        await reader.has(set())
        reader.found.leave(reader)
    assert readers[0].found.users == 0
    world.write({"a": flag("x")})
    assert (world.reads, world.hub.watchers) == (1, 1)


async def test_a_document_is_of_one_revision() -> None:
    """Each write gives all flags the same variant, or deletes one and adds another: a mixture is never seen."""
    world, rng = World(), random.Random(7)
    names = [f"f{n}" for n in range(30)]
    reader = Reader(world.get())
    for n in range(300):
        values: dict[str, bytes | None] = {name: flag(f"v{n}", 3000) for name in names}
        world.write({**values, f"only{n}": flag(f"v{n}"), f"only{n - 1}": None})
        if rng.random() < 0.3:
            await asyncio.sleep(rng.random() * COALESCE_SECONDS)
    await reader.has({*names, "only299"})
    assert len(reader.documents) > 3
    for document in reader.documents[1:]:
        assert len({found["defaultVariant"] for found in document.values()}) == 1
        assert len(document) == 31


async def test_no_turn_of_the_loop_parses_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for n in range(300):
        world.write({f"f{n}": flag("x", 10_000)})
    parsed = most = 0
    take = FlagSet.take

    def counted(self: FlagSet, key: bytes, value: bytes | None) -> Iterator[int]:
        nonlocal parsed
        for cost in take(self, key, value):
            parsed += cost
            yield cost

    monkeypatch.setattr(FlagSet, "take", counted)
    reader = Reader(world.get())
    while not reader.documents:
        most, parsed = max(most, parsed), 0
        await asyncio.sleep(0)
    assert len(reader.documents[0]) == 300
    assert 0 < most < PARSED_PER_TURN + MAX_DEFINITION_BYTES


async def test_after_a_snapshot_it_reads_again() -> None:
    """The history in between is gone; so are flags that were deleted in it. Until then the old document stays."""
    world = World()
    world.write({"old": flag("x"), "both": flag("x")})
    reader = Reader(world.get())
    await reader.has({"old", "both"})
    world.write({"old": None, "new": flag("x")}, told=False)
    world.served.replace(KeySpace(world.pending))
    world.sets.read_again()
    await reader.has({"new", "both"})
    assert len(reader.documents) == 2
    world.write({"newer": flag("x")})
    await reader.has({"new", "both", "newer"})


async def test_compacted_history_is_read_again() -> None:
    world = World()
    world.write({"a": flag("x")})
    reader = Reader(world.get())
    await reader.has({"a"})
    world.hub.block(reader.found.stream)  # it falls behind
    for _ in range(5):
        world.write({"a": None, "b": flag("x")})
        world.write({"a": flag("x"), "b": None, "c": flag("x")})
    world.space.compacted = world.space.revision
    world.hub.unblock(reader.found.stream)
    reads = world.reads
    world.publish()
    assert world.reads == reads + 1
    await reader.has({"a", "c"})


async def test_what_cannot_be_served_is_not_read_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.write({"doc": b"[]"})
    whole = Selector(b"/flags/doc")
    readers = [Reader(world.get(whole)) for _ in range(10)]
    assert all(reader.failed is not None and "no flagd document" in reader.failed.message for reader in readers)
    assert (world.reads, world.hub.watchers) == (1, 0)
    world.write({"doc": b'{"flags": {"a": %s}}' % flag("x")})
    monkeypatch.setattr(flag_sets, "FAILED_SECONDS", 0.0)
    await Reader(world.get(whole)).has({"a"})


async def test_sets_that_nobody_uses_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flag_sets, "MAX_SETS", 3)
    world = World()
    world.write({"a": flag("x")})
    used = [Reader(world.get(Selector(b"/%d/" % n))) for n in range(3)]
    with pytest.raises(RequestError, match="too many sets"):
        world.get()
    used[1].found.leave(used[1])
    await Reader(world.get()).has({"a"})
    assert world.hub.watchers == 3
    assert used[0].found is world.get(Selector(b"/0/"))


async def test_one_connection_leaves_sets_for_others() -> None:
    world = World()
    readers = [Reader(world.get(Selector(b"/%d/" % n), "greedy")) for n in range(flag_sets.MAX_SHARE)]
    with pytest.raises(RequestError, match="this connection"):
        world.get(owner="greedy")
    world.get(owner="modest")
    assert world.get(owner="greedy") is world.get(owner="modest"), "what is there is for everybody"
    assert all(reader.failed is None for reader in readers)


async def test_a_set_that_nobody_uses_costs_nothing_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    reader = Reader(world.get())
    reader.found.leave(reader)
    world.write({"a": flag("x")})
    assert world.hub.watchers == 1
    monkeypatch.setattr("holdfast.api.shared_flags.IDLE_SECONDS", -1.0)
    world.write({"b": flag("x")})
    assert world.hub.watchers == 0
    await Reader(world.get()).has({"a", "b"})


async def test_a_document_is_as_old_as_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    now = [1000.0]
    monkeypatch.setattr("holdfast.api.shared_flags._now", lambda: now[0])
    world.staleness = 0.5
    world.write({"a": flag("x")})
    reader = Reader(world.get())
    await reader.has({"a"})
    assert reader.found.position == Position(world.space.revision, True, 0.5)
    first = world.space.revision
    world.write({"a": flag("z")})  # here, but not in the document yet: the replica's bound is not that of the document
    now[0] += 7
    world.staleness = 0.1
    assert reader.found.position == Position(first, True, 7.5)
    while len(reader.documents) < 2:
        await asyncio.sleep(0.01)
    assert reader.found.position == Position(first + 1, True, 0.1)
    world.staleness = None
    assert reader.found.position.staleness is None
