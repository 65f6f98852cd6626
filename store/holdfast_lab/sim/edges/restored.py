"""A cluster that was restored from a saved state: one member without faults, to which its clients write.

Its faults are the simulation's of members; here it is what replicas of the cluster before have to go over to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from holdfast.edge.lineage import Lineage
from holdfast.kv import requests
from holdfast.kv.space import KeySpace
from holdfast.kv.store import MemoryStore
from holdfast.machine import Machine, Restored
from holdfast.proto import holdfast_pb2, kv_pb2, raft_pb2, rpc_pb2
from holdfast.watch.hub import Delivery, Hub

from holdfast_lab.sim.edges.acknowledged import Acknowledged
from holdfast_lab.sim.mix import MS, SECOND
from holdfast_lab.sim.oracle import Oracle
from holdfast_lab.sim.world import World

_CLUSTER, _MEMBER = 2, 0x900
_WRITE_NS = 400 * MS


class _Child(Protocol):
    def delivered(self, node: RestoredCluster, delivery: Delivery) -> None: ...


class RestoredOracle(Oracle):
    """The history of the restored cluster: up to the saved revision that of the one before, of which nothing is known
    but its last state; then, after a gap, its own."""

    def __init__(self, before: Oracle, saved: int, begins: int) -> None:
        super().__init__()
        self._starts = [0] * (begins + 1)
        for kv in before.range(b"", None, saved):
            message = kv_pb2.KeyValue.FromString(kv)
            self._versions[message.key] = [message.mod_revision], [kv]


class RestoredCluster:
    """Implements `edge.upstream.Source`."""

    removed = False
    paused = False
    term = 1
    users = False
    rights = b""

    def __init__(self, world: World, backup: MemoryStore, before: Oracle, bump: int) -> None:
        machine = Machine(backup)
        saved, epoch = machine.space.revision, machine.epoch + 1
        Restored(raft_pb2.MemberInfo(id=_MEMBER, name="restored"), bump, 1, epoch).write(machine)
        self._machine = Machine(backup)
        self._world = world
        self._chance = world.chance("restored")
        self.lineage = Lineage.of(_CLUSTER, epoch, 1, saved)
        self.path = holdfast_pb2.FollowPath(nodes=[_MEMBER])
        self.hub = Hub(self.space)
        self.oracle = RestoredOracle(before, saved, self.space.revision)
        self.acknowledged = Acknowledged()
        self.children: dict[int, _Child] = {}
        self._poked = False
        self.quiet = False  # nothing is written any more
        world.note(f"restored from revision {saved}, continues after {self.space.revision}")
        world.at(world.now + self._chance.randrange(SECOND), self._write)

    @property
    def space(self) -> KeySpace:
        return self._machine.space

    def _write(self) -> None:
        if self.quiet:
            return
        key = b"k%d" % self._chance.randrange(10)
        if self._chance.random() < 0.3:
            requests.delete_range(self.space, rpc_pb2.DeleteRangeRequest(key=key))
        else:
            requests.put(self.space, (), rpc_pb2.PutRequest(key=key, value=b"after the restore"))
        changes = self.space.commit()
        self._machine.flush()
        if changes:
            self.oracle.learn(changes, _MEMBER)
            self.acknowledged.note(self._world.now, self.space.revision)
            self._tell(lambda: self.hub.publish([changes]))
        self._world.at(self._world.now + self._chance.randrange(_WRITE_NS), self._write)

    def poke(self) -> None:
        if not self._poked:
            self._poked = True
            self._world.at(self._world.now + MS, self._catch_up)

    def _catch_up(self) -> None:
        self._poked = False
        self._tell(self.hub.catch_up)

    def _tell(self, deliveries: Callable[[], list[Delivery]]) -> None:
        for delivery in deliveries():
            child = self.children.get(delivery.stream)
            if child is not None:
                child.delivered(self, delivery)
        if self.hub.busy:
            self.poke()
