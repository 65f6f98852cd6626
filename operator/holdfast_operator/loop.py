"""One loop per cluster. Events wake it, several at once count as one, and it backs off after errors.

Handlers only wake the loop. What a pass does depends on what it reads from the API server, never on the event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from holdfast_operator.kube import Kube
from holdfast_operator.members import Members
from holdfast_operator.reconcile_cluster import LATER, ClusterReconciler, MembersOf
from holdfast_operator.reconcile_config import ConfigReconciler
from holdfast_operator.reconcile_pool import PoolReconciler

log = logging.getLogger("holdfast.operator")

Key = tuple[str, str]  # namespace, cluster
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
QUIET_SECONDS = 0.05


class ClusterLoop:
    """Reconciles one cluster, its pools and its configurations."""

    def __init__(self, kube: Kube, key: Key, repository: str, members: MembersOf = Members) -> None:
        self._kube = kube
        self._namespace, self._name = key
        self._repository = repository
        self._cluster = ClusterReconciler(kube, *key, repository, members)
        self._pools: dict[str, PoolReconciler] = {}
        self._configs: dict[str, ConfigReconciler] = {}
        self.woken = asyncio.Event()
        self.passed_at = time.monotonic()

    async def run(self) -> None:
        """Run until no object refers to this cluster any more."""
        failures = 0
        while True:
            self.woken.clear()
            try:
                delay = await self._pass()
                failures = 0
            except Exception:
                log.exception("%s/%s: a pass failed", self._namespace, self._name)
                delay = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
                failures += 1
            self.passed_at = time.monotonic()
            if delay is None:
                await self._cluster.close()
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self.woken.wait()
                    await asyncio.sleep(QUIET_SECONDS)  # events come in bursts; one pass serves them all

    async def _pass(self) -> float | None:
        delays = [await self._cluster.run()]
        seen = self._cluster.seen
        reports = seen.replicas if seen is not None else []
        hf = await self._cluster.client()
        revision = max((node.revision for node in seen.nodes.values()), default=0) if seen is not None else 0
        for pool in await self._mine("HoldfastEdgePool"):
            reconciler = self._pools.setdefault(
                pool, PoolReconciler(self._kube, self._namespace, pool, self._repository)
            )
            delays.append(await reconciler.run(reports, revision))
        for config in await self._mine("HoldfastConfig"):
            writer = self._configs.setdefault(config, ConfigReconciler(self._kube, self._namespace, config))
            delays.append(await writer.run(hf, reports))
        known = [delay for delay in delays if delay is not None]
        return min(known, default=None)

    async def _mine(self, kind: str) -> list[str]:
        found = await self._kube.list(kind, self._namespace)
        return sorted(o["metadata"]["name"] for o in found if o["spec"].get("clusterRef", {}).get("name") == self._name)


class Loops:
    """The loops of all clusters."""

    def __init__(self, kube: Kube, repository: str, members: MembersOf = Members) -> None:
        self._kube = kube
        self._repository = repository
        self._members = members
        self._loops: dict[Key, tuple[ClusterLoop, asyncio.Task[None]]] = {}

    def wake(self, namespace: str, cluster: str) -> None:
        key = (namespace, cluster)
        known = self._loops.get(key)
        if known is None or known[1].done():
            loop = ClusterLoop(self._kube, key, self._repository, self._members)
            self._loops[key] = (loop, asyncio.ensure_future(loop.run()))
        else:
            known[0].woken.set()

    def wake_all(self) -> None:
        for loop, _ in self._loops.values():
            loop.woken.set()

    @property
    def stuck_seconds(self) -> float:
        """The time since a loop last finished a pass, less its longest pause; of the slowest loop."""
        now = time.monotonic()
        running = [now - loop.passed_at for loop, task in self._loops.values() if not task.done()]
        return max(0.0, max(running, default=0.0) - max(LATER, BACKOFF_SECONDS[-1]))

    async def close(self) -> None:
        for _, task in self._loops.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in self._loops.values()), return_exceptions=True)
