"""One loop per cluster. Events wake it, several at once count as one, and it backs off after errors.

Handlers only wake the loop. What a pass does depends on what it reads from the API server, never on the event. The
cluster, each pool and each configuration fail alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import get_running_loop
from collections.abc import Awaitable

from holdfast_operator.kube import Kube, Object
from holdfast_operator.members import Members
from holdfast_operator.reconcile_cluster import LATER, ClusterReconciler, MembersOf
from holdfast_operator.reconcile_config import ConfigReconciler
from holdfast_operator.reconcile_pool import OLDEST_KUBERNETES, PoolReconciler

log = logging.getLogger("holdfast.operator")

Key = tuple[str, str]  # namespace, cluster
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
QUIET_SECONDS = 0.05


class ClusterLoop:
    """Reconciles one cluster, its pools and its configurations."""

    def __init__(
        self,
        kube: Kube,
        key: Key,
        repository: str,
        members: MembersOf = Members,
        kubernetes: tuple[int, int] = OLDEST_KUBERNETES,
    ) -> None:
        self._kube = kube
        self._namespace, self._name = key
        self._cluster = ClusterReconciler(kube, *key, repository, members)
        self._pools = PoolReconciler(kube, *key, kubernetes)
        self._configs = ConfigReconciler(kube, *key)
        self._failures: dict[str, int] = {}  # by object: how often in a row
        self.woken = asyncio.Event()
        self.passed_at = get_running_loop().time()

    async def run(self) -> None:
        """Run until no object refers to this cluster any more."""
        while True:
            self.woken.clear()
            delay = await self._pass()
            self.passed_at = get_running_loop().time()
            if delay is None:
                await self.close()
                if not self.woken.is_set():  # nothing is awaited between this and the end of the task
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self.woken.wait()
                    await asyncio.sleep(QUIET_SECONDS)  # events come in bursts; one pass serves them all

    async def close(self) -> None:
        await self._cluster.close()

    async def _pass(self) -> float | None:
        """Returns the seconds until the next pass is due; None if nothing is left of the cluster."""
        try:
            pools = await self._mine("HoldfastEdgePool")
            configs = await self._mine("HoldfastConfig")
        except Exception as error:
            return self._failed("lists", error)
        delays = [await self._alone("cluster", self._cluster.run(pools))]
        cluster, reports = self._cluster.for_pools, self._cluster.reports
        self._pools.forget_others(pools)
        delays += [await self._alone(_named(pool), self._pools.run(pool, cluster, reports)) for pool in pools]
        if configs and not self._cluster.paused:
            hf = await self._cluster.client()
            delays += [
                await self._alone(_named(config), self._configs.run(config, configs, pools, hf, reports or []))
                for config in configs
            ]
        return min((delay for delay in delays if delay is not None), default=None)

    async def _alone(self, what: str, work: Awaitable[float | None]) -> float | None:
        """Do the work for one object. If it fails, it is tried again later and later, and nothing else is held up."""
        try:
            delay = await work
        except Exception as error:
            return self._failed(what, error)
        self._failures.pop(what, None)
        return delay

    def _failed(self, what: str, error: Exception) -> float:
        count = self._failures.get(what, 0)
        self._failures[what] = count + 1
        log.warning("%s/%s: the pass for %s failed: %r", self._namespace, self._name, what, error, exc_info=count == 0)
        return BACKOFF_SECONDS[min(count, len(BACKOFF_SECONDS) - 1)]

    async def _mine(self, kind: str) -> list[Object]:
        found = await self._kube.list(kind, self._namespace)
        return sorted(
            (o for o in found if o["spec"].get("clusterRef", {}).get("name") == self._name and _stays(o)),
            key=lambda o: str(o["metadata"]["name"]),
        )


def _stays(obj: Object) -> bool:
    return "deletionTimestamp" not in obj["metadata"]


def _named(obj: Object) -> str:
    return f"{obj['kind']} {obj['metadata']['name']}"


class Loops:
    """The loops of all clusters."""

    def __init__(
        self,
        kube: Kube,
        repository: str,
        members: MembersOf = Members,
        kubernetes: tuple[int, int] = OLDEST_KUBERNETES,
    ) -> None:
        """`kubernetes`: the version of the API server."""
        self._kube = kube
        self._repository = repository
        self._members = members
        self._kubernetes = kubernetes
        self._loops: dict[Key, tuple[ClusterLoop, asyncio.Task[None]]] = {}

    def wake(self, namespace: str, cluster: str) -> None:
        """Something of this cluster has changed. A loop that has ended starts again."""
        key = (namespace, cluster)
        known = self._loops.get(key)
        if known is None or known[1].done():
            loop = ClusterLoop(self._kube, key, self._repository, self._members, self._kubernetes)
            self._loops[key] = (loop, asyncio.ensure_future(self._run(key, loop)))
        else:
            known[0].woken.set()

    async def _run(self, key: Key, loop: ClusterLoop) -> None:
        try:
            await loop.run()
        finally:
            if self._loops.get(key, (None,))[0] is loop:
                del self._loops[key]

    def wake_all(self) -> None:
        for loop, _ in self._loops.values():
            loop.woken.set()

    @property
    def stuck_seconds(self) -> float:
        """The time since a loop last finished a pass, less its longest pause; of the slowest loop."""
        now = get_running_loop().time()
        running = [now - loop.passed_at for loop, task in self._loops.values() if not task.done()]
        return max(0.0, max(running, default=0.0) - max(LATER, BACKOFF_SECONDS[-1]))

    async def close(self) -> None:
        running = list(self._loops.values())
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)
        for loop, _ in running:
            await loop.close()
