"""Edge replicas: the pure core of `edge.core`, fed from a member's watch hub as the Follow stream feeds it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import google_crc32c
from holdfast.edge.core import ReplicaCore, ranges_of
from holdfast.keyrange import bounds
from holdfast.kv.rows import DELETE, Change, unpack_current
from holdfast.kv.store import Family, MemoryStore, StateDamaged
from holdfast.proto import holdfast_pb2, kv_pb2
from holdfast.watch.hub import Compacted, Delivery, Events, Watcher

from holdfast_lab.sim.mix import MS, SECOND
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.truth import Truth
from holdfast_lab.sim.violation import check
from holdfast_lab.sim.world import World

_PREFIXES = (["k"], ["k1", "k2"], ["k0", "k4", "k7"])


class SimReplica:
    """One replica and its stream. What it shows is compared with the truth at its watermark."""

    def __init__(self, world: World, truth: Truth, number: int, nodes: Callable[[], list[Node]]) -> None:
        self._world = world
        self._truth = truth
        self._nodes = nodes
        self.stream = 1000 + number
        self._chance: Random = world.chance(f"replica/{number}")
        self._ranges = ranges_of(self._chance.choice(_PREFIXES))
        self._store = MemoryStore()
        self._synced = self._store.snapshot()
        self._node: Node | None = None
        self._connection = 0
        self._told = 0
        self.core = ReplicaCore(self._store, self._ranges)
        world.at(world.now + self._chance.randrange(SECOND), self._connect)
        world.at(world.now + SECOND, self._tick)

    # ---- the upstream's side -------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._node is not None:
            return
        usable = [n for n in self._nodes() if n.core is not None and n.core.machine.members and not n.removed]
        if not usable:
            self._world.at(self._world.now + 300 * MS, self._connect)
            return
        node = self._chance.choice(usable)
        assert node.core is not None
        assert node.hub is not None
        start = self.core.start("replica", "")
        machine = node.core.machine
        if machine.space.revision < start.watermark:
            self._world.mark("replica waits for a member that is behind")
            self._world.at(self._world.now + 300 * MS, self._connect)
            return
        self._node = node
        self._connection += 1
        snapshot = not start.watermark or start.watermark + 1 < machine.space.compacted
        hello = holdfast_pb2.FollowHello(
            cluster_id=1,
            epoch=machine.epoch,
            term=node.core.term,
            filter_version=start.filter_version,
            snapshot=snapshot,
        )
        self._frame(holdfast_pb2.FollowResponse(hello=hello))
        if snapshot:
            try:
                self._send_snapshot(node, start, machine.space.revision)
            except StateDamaged:
                return  # without its trailer it is not taken; the member ends, and with it the connection
        self._told = machine.space.revision if snapshot else start.watermark
        node.hub.open(self.stream)
        intervals = tuple(bounds(r.key, r.range_end) for r in self._ranges)
        node.hub.add(self.stream, Watcher(0, intervals, self._told + 1, prev_kv=True))
        node.poke()

    def _send_snapshot(self, node: Node, start: holdfast_pb2.FollowStart, revision: int) -> None:
        crc = count = 0
        chunk = holdfast_pb2.FollowChunk()
        for low, high in (bounds(r.key, r.range_end) for r in self._ranges):
            for _, value in node.store.scan(Family.CUR, low, high):
                kv = unpack_current(value).kv
                crc, count = google_crc32c.extend(crc, kv), count + 1
                chunk.kvs.add().ParseFromString(kv)
        self._frame(holdfast_pb2.FollowResponse(chunk=chunk))
        trailer = holdfast_pb2.FollowTrailer(
            filter_version=start.filter_version, revision=revision, count=count, hash=crc
        )
        self._frame(holdfast_pb2.FollowResponse(trailer=trailer))

    def delivered(self, node: Node, delivery: Delivery) -> None:
        if node is not self._node:
            return
        if isinstance(delivery, Compacted):
            self._leave()
        elif isinstance(delivery, Events):
            by_revision: dict[int, list[Change]] = {}
            for change in delivery.changes:
                by_revision.setdefault(change.revision, []).append(change)
            for revision, changes in by_revision.items():
                self._frame(holdfast_pb2.FollowResponse(revision=_revision(revision, changes, node)))
                self._told = revision

    def _tick(self) -> None:
        node = self._node
        if node is not None and node.hub is not None and node.core is not None:
            progress = node.hub.progress(self.stream)
            if progress is not None and progress.revision > self._told:
                self._told = progress.revision
                frame = holdfast_pb2.FollowProgress(revision=progress.revision, term=node.core.term)
                self._frame(holdfast_pb2.FollowResponse(progress=frame))
        draw = self._chance.random()
        if draw < 0.05:
            self._leave()
        elif draw < 0.08:
            self._power_cut()
        elif draw < 0.6:
            self._synced = self._store.snapshot()
        self._world.at(self._world.now + 300 * MS + self._chance.randrange(SECOND), self._tick)

    def _frame(self, response: holdfast_pb2.FollowResponse) -> None:
        """In order, on one connection: what is under way when it ends is lost."""
        self._world.at(self._world.now + 5 * MS, self._take, self._connection, response)

    # ---- the replica's side --------------------------------------------------------------------------------

    def _take(self, connection: int, response: holdfast_pb2.FollowResponse) -> None:
        if connection != self._connection:
            return
        core, kind = self.core, response.WhichOneof("response")
        if kind == "hello":
            core.hello(response.hello)
            self._world.mark("replica resumed" if not response.hello.snapshot else "replica took a snapshot")
        elif kind == "chunk":
            core.chunk(response.chunk)
        elif kind == "trailer":
            check(core.trailer(response.trailer), "I11", "a replica refused a whole snapshot")
            self.check()
        elif kind == "revision":
            core.revision(response.revision)
        elif kind == "progress":
            core.progress(response.progress)
            self.check()

    def gone(self, node: Node) -> None:
        if node is self._node:
            self._node = None
            self._connection += 1
            self._world.at(self._world.now + self._chance.randrange(2 * SECOND), self._connect)

    def _leave(self) -> None:
        node = self._node
        if node is not None and node.hub is not None:
            node.hub.close(self.stream)
            self.gone(node)

    def _power_cut(self) -> None:
        """Back to what was synced: behind what it has served, never beside it."""
        self._leave()
        self._connection += 1
        self._store = self._synced.snapshot()
        self.core = ReplicaCore(self._store, self._ranges)
        self._world.mark("replica lost power")
        self.check()

    def check(self) -> None:
        """What is here is what the prefixes held at the watermark: nothing lost, nothing invented."""
        core = self.core
        if not core.complete:
            return
        for low, high in core.intervals:
            seen = [unpack_current(value).kv for _, value in self._store.scan(Family.CUR, low, high)]
            self._truth.check_range("an edge replica", low, high, core.position.watermark, seen)


def _revision(revision: int, changes: list[Change], node: Node) -> holdfast_pb2.FollowRevision:
    assert node.core is not None
    message = holdfast_pb2.FollowRevision(revision=revision, term=node.core.term)
    for change in changes:
        event = message.events.add(type=kv_pb2.Event.DELETE if change.type == DELETE else kv_pb2.Event.PUT)
        event.kv.ParseFromString(change.kv)
    return message
