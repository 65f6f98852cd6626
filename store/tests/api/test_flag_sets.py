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
from holdfast.api.flag_parsing import COST_PER_SET, COST_PER_TURN, ParsingTurns
from holdfast.api.flag_sets import FlagSets
from holdfast.api.shared_flags import COALESCE_SECONDS, Position, SharedSet
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
    for reader in readers:
        await reader.has({"a"})
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


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, int]]:
    """(selector, cost) of each step of parsing, of all sets."""
    steps: list[tuple[bytes, int]] = []
    take = FlagSet.take

    def noted(self: FlagSet, key: bytes, value: bytes | None) -> Iterator[int]:
        for cost in take(self, key, value):
            steps.append((self._selector.key, cost))
            yield cost

    monkeypatch.setattr(FlagSet, "take", noted)
    return steps


async def turns_until(finished: Callable[[], bool], taken: list[tuple[bytes, int]]) -> list[list[tuple[bytes, int]]]:
    """What each turn of the loop parsed."""
    turns = []
    async with asyncio.timeout(60):
        while not finished():
            taken.clear()
            await asyncio.sleep(0)
            if taken:
                turns.append(list(taken))
    return turns


def costliest(turns: list[list[tuple[bytes, int]]]) -> int:
    return max(sum(cost for _, cost in turn) for turn in turns)


NESTED = [Selector(b"/flags/" + b"n/" * n) for n in range(32)]


async def test_no_turn_of_the_loop_parses_more_than_its_share(taken: list[tuple[bytes, int]]) -> None:
    world = World()
    for n in range(300):
        world.write({f"f{n}": flag("x", 10_000)})
    reader = Reader(world.get())
    turns = await turns_until(lambda: bool(reader.documents), taken)
    assert len(reader.documents[0]) == 300
    assert len(turns) > 50
    assert costliest(turns) < COST_PER_TURN + 11_000


async def test_sets_that_change_together_share_the_turns(taken: list[tuple[bytes, int]]) -> None:
    """One key is in many sets, whose selectors are prefixes of each other: read together, then changed together."""
    world = World()
    name = "n/" * 32 + "f"
    world.write({name: flag("x", 20_000)})
    readers = [Reader(world.get(selector)) for selector in NESTED]
    for number in (1, 2):
        turns = await turns_until(lambda number=number: all(len(r.documents) == number for r in readers), taken)  # type: ignore[misc]
        assert sum(map(len, turns)) == len(NESTED)
        assert len(turns) >= len(NESTED) // 2
        assert costliest(turns) < COST_PER_TURN + 21_000
        world.write({name: flag("y", 20_000)})


async def test_a_definition_with_many_elements_costs_a_turn(taken: list[tuple[bytes, int]]) -> None:
    dense = flag("x").replace(b": 1}", b": [%s]}" % b",".join([b"[]"] * 2000))
    assert len(dense) < 8_000
    world = World()
    world.write({f"f{n}": dense for n in range(20)})
    reader = Reader(world.get())
    turns = await turns_until(lambda: bool(reader.documents), taken)
    assert len(reader.documents[0]) == 20
    assert [len(turn) for turn in turns] == [1] * 20


class Endless:
    """Work that is never finished. Implements `flag_parsing.Work`."""

    def __init__(self, parsing: ParsingTurns, owner: str, id: int) -> None:
        self._parsing, self._owner, self._id = parsing, owner, id
        self.spent = 0
        self.advance(0)

    def advance(self, budget: int) -> int:
        self.spent += budget
        self._parsing.add(self._owner, self._id, self)
        return budget


async def test_a_connection_with_many_sets_delays_only_itself() -> None:
    parsing = ParsingTurns()
    greedy = [Endless(parsing, "greedy", n) for n in range(100)]
    modest = Endless(parsing, "modest", 100)
    for turn in range(1, 21):
        await asyncio.sleep(0)
        assert modest.spent == turn * COST_PER_TURN // 2
    assert sum(work.spent for work in greedy) == 20 * COST_PER_TURN // 2
    assert max(work.spent for work in greedy) <= min(work.spent for work in greedy) + COST_PER_SET


async def test_work_that_exceeds_a_turn_takes_the_turns_that_follow() -> None:
    """So that other work of the loop goes on in between."""
    parsing = ParsingTurns()
    advanced = 0

    class Large:
        def advance(self, budget: int) -> int:
            nonlocal advanced
            advanced += 1
            parsing.add("", 0, self)
            return 4 * COST_PER_TURN

    parsing.add("", 0, Large())
    for turn in range(40):
        await asyncio.sleep(0)
        assert advanced == 1 + turn // 4


async def test_sets_that_are_dropped_leave_the_queue(taken: list[tuple[bytes, int]]) -> None:
    world = World()
    world.write({"a": flag("x")})
    reader = Reader(world.get())
    reader.found.leave(reader)
    world.sets.drop(reader.found)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not taken
    assert world.sets.size == 0


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
    readers = [Reader(world.get(whole)) for _ in range(5)]
    async with asyncio.timeout(20):
        while not readers[-1].failed:
            await asyncio.sleep(0)
    readers += [Reader(world.get(whole)) for _ in range(5)]
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
