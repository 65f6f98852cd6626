"""Operator processes: the real loops, woken by watch events that arrive late, twice, or not before the next relist."""

from __future__ import annotations

import asyncio
import logging
from random import Random

from holdfast import client
from holdfast.client.connection import Connection

from holdfast_operator.cluster_loop import cluster_loops
from holdfast_operator.kube import ApiError, Kube
from holdfast_operator.members import Members
from holdfast_operator.resources.common import CLUSTER_LABEL
from holdfast_operator.sim.kube import Request, SimKube
from holdfast_operator.sim.members import SimConnection, SimMembers
from holdfast_operator.sim.objects import Object, labels_of, name_of
from holdfast_operator.sim.world import Acting, World

REPOSITORY = "holdfast"
# What app.py watches; children only with the label of their cluster.
_CUSTOM = ("HoldfastCluster", "HoldfastEdgePool", "HoldfastConfig")
CHILDREN = ("Secret", "Pod", "PersistentVolumeClaim", "Service", "StatefulSet", "PodDisruptionBudget")
_WATCHED = (*_CUSTOM, *CHILDREN, "Node")
RELIST_SECONDS = 30.0


class Operator:
    """One process of the operator. `crash` ends it wherever it is."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name
        self._rng = Random(f"{world.seed}/{name}")
        self.pass_at = 0.0  # when the pass that is under way began to look
        self.alive = True
        kube = SimKube(world.api, self._rng, world.faults, self._before, self._after)
        self._loops = cluster_loops(kube, REPOSITORY, members=self._members)
        world.api.watchers.append(self._noticed)
        self._relist()

    def _members(self, kube: Kube, cluster: str, namespace: str, tls: bool) -> Members:
        return SimMembers(kube, cluster, namespace, tls, self._connect)

    def _connect(self, address: str) -> Connection:
        return SimConnection(self._world, self._world.calls, address)

    def _before(self, request: Request) -> None:
        if request.kind.name == "HoldfastCluster" and not request.writes:
            self.pass_at = self._world.now
        if request.writes:
            self._world.trace(f"{self.name}: {request}")
            if self._world.judge is not None:
                self._world.judge.before_write(self, request)

    def _after(self, request: Request) -> None:
        if self._world.judge is not None:
            self._world.judge.after_write()

    async def crash(self) -> None:
        self.alive = False
        self._world.api.watchers.remove(self._noticed)
        await self._loops.close()

    # ---- watches, as in app.py -----------------------------------------------------------------------------

    def _noticed(self, event: str, obj: Object) -> None:
        if obj["kind"] not in _WATCHED:
            return
        loop, rng = asyncio.get_running_loop(), self._rng
        fate = rng.random()
        if fate < self._world.watch.dropped:
            loop.call_later(RELIST_SECONDS * rng.random(), self._relist)
            return
        times = 2 if fate < self._world.watch.dropped + self._world.watch.repeated else 1
        for _ in range(times):
            loop.call_later(rng.random() * self._world.watch.lag, self._deliver, obj)

    def _relist(self) -> None:
        for kind in _WATCHED:
            for obj in self._world.api.list(kind):
                self._deliver(obj)

    def _deliver(self, obj: Object) -> None:
        if not self.alive:
            return
        namespace = obj["metadata"].get("namespace", "")
        if obj["kind"] == "HoldfastCluster":
            self._loops.wake(namespace, name_of(obj))
        elif obj["kind"] in ("HoldfastEdgePool", "HoldfastConfig"):
            self._loops.wake(namespace, obj["spec"]["clusterRef"]["name"])
        elif obj["kind"] == "Node":
            self._loops.wake_all()
        elif CLUSTER_LABEL in labels_of(obj):
            self._loops.wake(namespace, labels_of(obj)[CLUSTER_LABEL])


def start(world: World) -> Operator:
    world.started += 1
    operator = Operator(world, f"operator-{world.started}")
    world.operators.append(operator)
    return operator


async def stop(world: World, operator: Acting) -> None:
    world.operators.remove(operator)
    await operator.crash()


class Log(logging.Handler):
    """Takes the operator's log: into the trace, and an exception that no reconciler expects is a violation."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        suffix = f": {type(error).__name__}: {error}" if error is not None else ""
        self._world.trace(f"log: {record.getMessage()}{suffix}")
        if error is not None and not isinstance(error, ApiError | client.ClientError | TimeoutError):
            self._world.fail("unexpected exception", f"{type(error).__name__}: {error}")
