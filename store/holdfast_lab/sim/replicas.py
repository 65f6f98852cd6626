"""Edge replicas that follow members: `edge.upstream` and `edge.core` at the ends of a simulated connection."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from holdfast.edge.core import Loaded, Loop, ReplicaCore, ranges_of
from holdfast.edge.data import BrokenUpstream, ReplicaData
from holdfast.edge.holding import Holding, without
from holdfast.edge.lineage import Lineage
from holdfast.edge.upstream import Followers, Source, Upstream, check_start
from holdfast.keyrange import Range
from holdfast.kv import requests
from holdfast.kv.rows import Change, unpack_current
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, MemoryStore, StateDamaged
from holdfast.member.core import MemberCore
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.status import RequestError
from holdfast.watch.hub import Delivery, Hub

from holdfast_lab.sim.mix import MS, SECOND
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.oracle import Oracle
from holdfast_lab.sim.violation import Violation, check
from holdfast_lab.sim.world import World

TICK = 200 * MS
_PREFIXES = (["k"], ["k1", "k2"], ["k0", "k4", "k7"])


class _NodeSource:
    """A simulated member as an upstream, for as long as it lives."""

    users = False
    rights = b""

    def __init__(self, node: Node, core: MemberCore, hub: Hub) -> None:
        self._node = node
        self._core = core
        self.hub = hub
        self.path = holdfast_pb2.FollowPath(nodes=[core.id])

    @property
    def lineage(self) -> Lineage:
        machine = self._core.machine
        return Lineage.of(1, machine.epoch, machine.lineage, machine.restored_from)

    @property
    def term(self) -> int:
        return self._core.term

    @property
    def space(self) -> KeySpace:
        return self._core.machine.space

    def poke(self) -> None:
        self._node.poke()


class Followed(Protocol):
    """What a replica can follow: a member, or another replica."""

    removed: bool
    paused: bool


class SimReplica:
    """One replica and its stream. What it shows, and what it has of a snapshot that is not whole yet, is compared with
    the oracle at its watermark. What it has shown it shows until it starts again, and of its first snapshot nothing
    before it is whole (I22)."""

    removed = False  # as a node may be
    paused = False

    def __init__(
        self, world: World, oracle: Oracle, number: int, nodes: Callable[[], list[Node]], followers: Followers
    ) -> None:
        self._world = world
        self._first_oracle = oracle
        self._nodes = nodes
        self._followers = followers
        self.stream = 1000 + number
        self._chance: Random = world.chance(f"replica/{number}")
        self._ranges = ranges_of(self._chance.choice(_PREFIXES))
        self._store = MemoryStore()
        self._building: MemoryStore | None = None  # what a snapshot is built in
        self._synced = self._store.snapshot()
        self._synced_building: MemoryStore | None = None
        self._node: Followed | None = None
        self._upstream: Upstream | None = None
        self._connection = 0  # its number; events planned for an earlier connection are void
        self._pumping = False
        self._shown: list[Range] | None = None  # since it started
        self._had_data = False  # when it was checked last
        self._plain = False  # its upstream is of an earlier version, whose chunks say nothing of themselves
        self._pace = MS  # the longest time between parts of a snapshot
        self._hurried = False
        self.core = self._started()
        world.at(world.now + self._chance.randrange(SECOND), self._connect)
        world.at(world.now + SECOND, self._live)

    def _started(self) -> ReplicaCore:
        self._shown = None
        return ReplicaCore(self._store, self._ranges, self.stream, self._building)

    def _truth(self, lineage: Lineage) -> Oracle:
        """The truth about this history."""
        return self._first_oracle

    @property
    def _oracle(self) -> Oracle:
        """The truth about the history that the replica serves."""
        return self._truth(self.core.position.lineage)

    # ---- the upstream's side -------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._node is not None:
            return
        usable = self._usable()
        if not usable:
            self._world.at(self._world.now + 300 * MS, self._connect)
            return
        node = self._chance.choice(usable)
        source = self._source_of(node)
        start = self.core.start("replica", "")
        if source.space.revision < start.watermark:
            self._world.sometimes("replica waits for a member that is behind")
        self._node = node
        self._connection += 1
        self._pace = MS if self._hurried else self._chance.choice((4 * MS, 50 * MS, 300 * MS))
        start.resumes = self._chance.random() < 0.8  # else as a replica of an earlier version
        self._plain = self._chance.random() < 0.2
        self._upstream = Upstream(source, self.stream, self._followers)
        try:
            check_start(start)
            self._upstream.begin(start)
        except RequestError:
            self._refused()
            return
        self._tick(self._connection)
        pause = self._chance.randrange(4 * SECOND)
        self._world.at(self._world.now + pause, self._change_pace, self._connection, True)

    def _refused(self) -> None:
        raise Violation("I11", "a member refused a replica")

    def _usable(self) -> list[Followed]:
        """What can be followed now."""
        return [n for n in self._nodes() if n.core is not None and n.core.machine.members and not n.removed]

    def _source_of(self, node: Followed) -> Source:
        assert isinstance(node, Node)
        assert node.core is not None
        assert node.hub is not None
        return _NodeSource(node, node.core, node.hub)

    def _served(self, connection: int) -> Upstream | None:
        return self._upstream if connection == self._connection else None

    def _tick(self, connection: int) -> None:
        upstream, node = self._served(connection), self._node
        if upstream is None or node is None:
            return
        if not node.paused:
            self._send(lambda: upstream.tick(self._world.now))
            self._pump_soon()
        self._world.at(self._world.now + TICK, self._tick, connection)

    def _pump_soon(self) -> None:
        if self._upstream is not None and self._upstream.filling and not self._pumping:
            self._pumping = True
            self._world.at(self._world.now + 1 + self._chance.randrange(self._pace), self._pump, self._connection)

    def _pump(self, connection: int) -> None:
        upstream = self._served(connection)
        if upstream is not None:
            self._pumping = False
            self._send(lambda: upstream.fill(self._world.now))
            self._pump_soon()

    def _change_pace(self, connection: int, slow: bool) -> None:
        """The replica reads slowly for a while, then again."""
        upstream = self._served(connection)
        if upstream is None or self._hurried:
            return
        if slow:
            upstream.over()
            self._world.sometimes("replica reads slowly")
        else:
            upstream.writable()
            self._pump_soon()
        pause = self._chance.randrange(4 * SECOND if slow else 6 * SECOND)
        self._world.at(self._world.now + pause, self._change_pace, connection, not slow)

    def delivered(self, node: Followed, delivery: Delivery) -> None:
        upstream = self._upstream
        if node is self._node and upstream is not None:
            self._send(lambda: upstream.deliver(delivery))

    def _send(self, frames: Callable[[], list[bytes]]) -> None:
        """Send in order on one connection: what is in flight when it closes is lost."""
        try:
            for frame in frames():
                self._world.at(self._world.now + 5 * MS, self._take, self._connection, frame)
        except RequestError:
            self._world.sometimes("replica fell behind the history")
            self.leave()
        except StateDamaged:
            self.leave()  # the member has noticed the damage and stops

    def gone(self, node: Followed) -> None:
        if node is not self._node:
            return
        if self._upstream is not None:
            self._upstream.close()
        self._node = self._upstream = None
        self._pumping = False
        self._connection += 1
        longest = self._chance.choice((2, 2, 2, 30)) * SECOND  # in the longest, history that it needs is compacted
        pause = 100 * MS if self._hurried else self._chance.randrange(longest)
        self._world.at(self._world.now + pause, self._connect)

    def leave(self) -> None:
        if self._node is not None:
            self.gone(self._node)

    def hurry(self) -> None:
        """Follow a member without further faults, and read without delay."""
        self._hurried = True
        self._pace = MS
        if self._node is None:
            self._connect()
        elif self._node.removed:
            self.leave()
        elif self._upstream is not None:
            self._upstream.writable()
            self._pump_soon()

    # ---- the replica's side --------------------------------------------------------------------------------

    def _live(self) -> None:
        draw = 1.0 if self._hurried else self._chance.random()
        if draw < 0.05:
            self.leave()
        elif draw < 0.08:
            self._power_cut()
        elif draw < 0.6:
            self._synced = self._store.snapshot()
            self._synced_building = None if self._building is None else self._building.snapshot()
        self._check_past()
        self._world.at(self._world.now + 300 * MS + self._chance.randrange(SECOND), self._live)

    def _take(self, connection: int, frame: bytes) -> None:
        if connection != self._connection:
            return
        response = holdfast_pb2.FollowResponse.FromString(frame)
        if self._plain:
            _make_plain(response)
        core, kind = self.core, response.WhichOneof("response")
        try:
            if kind == "hello":
                core.hello(response.hello)
                self._greeted(response.hello)
                self._world.sometimes("replica resumed" if not response.hello.snapshot else "replica took a snapshot")
                if response.hello.partial:
                    resumed = core.building is not None
                    self._world.sometimes("replica resumed a snapshot" if resumed else "replica took a part")
            elif kind == "chunk":
                core.chunk(response.chunk)
            elif kind == "trailer":
                loaded = core.trailer(response.trailer)
                check(loaded is not Loaded.REFUSED, "I11", "a replica refused a whole snapshot")
                if loaded is not Loaded.KEPT:
                    self._replaced(loaded)
            elif kind == "revision":
                self._check_keys(response.revision)
                self._changed(core.revision(response.revision))
            elif kind == "progress":
                core.progress(response.progress)
            elif kind == "path":
                core.follows(response.path)
            elif kind == "probe":
                self._probed(response.probe)
        except Loop:
            self._world.sometimes("replica would follow itself")
            self.leave()
        except BrokenUpstream as error:
            raise Violation("I11", f"a replica's upstream breaks the protocol: {error}") from error
        self._build()
        self.check()

    def _build(self) -> None:
        """What the driver of a replica does about stores."""
        core = self.core
        if core.wants_store:
            if core.complete:
                self._world.sometimes("replica builds a copy beside what it serves")
            self._building, self._synced_building = MemoryStore(), None
            core.build(self._building)
        elif core.building is None:
            self._building = self._synced_building = None
        if core.built:
            assert self._building is not None
            core.conclude()
            self._store, self._synced = self._building, self._building.snapshot()
            self._building = self._synced_building = None
            self._replaced(core.succeed())

    def _check_keys(self, frame: holdfast_pb2.FollowRevision) -> None:
        """A replica is not told of keys of others, even if it would not take them."""
        for event in frame.events:
            key = event.kv.key
            check(self.core.wants(key, key + b"\x00"), "I11", f"a replica was sent {key!r}, which it did not ask for")

    def _changed(self, changes: list[Change]) -> None:
        """A revision was applied."""

    def _greeted(self, hello: holdfast_pb2.FollowHello) -> None:
        """An upstream has said hello."""

    def _replaced(self, loaded: Loaded) -> None:
        """A snapshot has replaced the data."""

    def _probed(self, reply: holdfast_pb2.ProbeReply) -> None:
        """A probe was answered."""

    def _power_cut(self) -> None:
        """Return to what was synced: older than what it has served, but never different."""
        self.leave()
        amid = self.core.building is not None
        self._store = self._synced.snapshot()
        self._building = None if self._synced_building is None else self._synced_building.snapshot()
        self.core = self._started()
        self._world.sometimes("replica lost power amid a snapshot" if amid else "replica lost power")
        self.check()

    # ---- what is checked -----------------------------------------------------------------------------------

    def check(self) -> None:
        """The replica has exactly the keys that the prefixes had at the watermark, and so has a part of a snapshot."""
        self._check_data("an edge replica", self.core.here)
        if self.core._next is not None:
            self._check_data("a snapshot that is not whole", self.core._next)
        before, self._shown = self._shown, self.core.shown
        had_data, self._had_data = self._had_data, self.core.position.watermark > 0
        if before is not None:
            check(not without(before, self._shown), "I22", f"a replica showed {before}, and shows {self._shown}")
            begins = bool(self._shown and not before and not had_data)
            check(not begins or self.core.whole, "I22", f"a replica shows {self._shown} of its first snapshot")

    def _check_data(self, what: str, data: ReplicaData) -> None:
        oracle, store, position = self._truth(data.position.lineage), data.store, data.position
        for low, high in data.shown:
            seen = [unpack_current(value).kv for _, value in store.scan(Family.CUR, low, high)]
            oracle.check_range(what, low, high, position.watermark, seen)
        held = Holding.read(data.held.SerializeToString()).parts
        known = sum(1 for low, high, _ in held for _ in store.scan(Family.CUR, low, high))
        total = sum(1 for _ in store.scan(Family.CUR, b"", None))
        check(known == total, "I11", f"{what} has {total - known} keys that it does not hold")
        check(known == len(data.space.live), "I11", f"{what} has {known} keys, and counts {len(data.space.live)}")

    def _check_past(self) -> None:
        """It can be read at any revision between its floor and its watermark."""
        core = self.core
        if not core.complete:
            return
        revision = core.position.floor + self._chance.randrange(core.position.watermark - core.position.floor + 1)
        for low, high in core.shown:
            request = rpc_pb2.RangeRequest(key=low, range_end=high or b"\x00", revision=revision)
            seen = [kv.SerializeToString() for kv in requests.range_now(core.space, request).kvs]
            self._oracle.check_range("an edge replica, asked for the past,", low, high, revision, seen)
        self._check_history()

    def _check_history(self) -> None:
        """A watch that begins anywhere in its history is sent what really happened, deletions above all."""
        core, events = self.core, self._oracle.events
        first, last = core.space.history_from, core.position.watermark
        start = first + self._chance.randrange(max(1, last - first + 2))
        history = (c for c, _, _ in core.space.history(start, last) if core.covers(c.key, c.key + b"\x00"))
        seen = [(c.key, c.type, c.revision, c.kv) for c in history]
        true = [
            (c.key, c.type, c.revision, c.kv)
            for c in events[self._oracle.position(start - 1) : self._oracle.position(last)]
            if any(low <= c.key and (high is None or c.key < high) for low, high in core.shown)
        ]
        check(seen == true, "I11", f"an edge replica says that from {start} to {last} {seen} happened, it was {true}")

    def check_end(self) -> None:
        """With a member that serves it, a replica catches up with the cluster."""
        self.check()
        at, end = self.core.position.watermark, self._oracle.revision
        check(at == end, "L1", f"a replica stays at revision {at}, while the cluster is at {end}")


def _make_plain(response: holdfast_pb2.FollowResponse) -> None:
    """As an earlier version says it."""
    if response.HasField("hello"):
        response.hello.ClearField("ranged")
    elif response.HasField("chunk"):
        response.chunk.CopyFrom(holdfast_pb2.FollowChunk(kvs=response.chunk.kvs))
