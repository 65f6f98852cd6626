"""One loop per cluster. The cluster, each of its pools and each of its configurations fail alone."""

from __future__ import annotations

from holdfast_operator.kube import Kube, Object
from holdfast_operator.loop import Key, Loop, Loops
from holdfast_operator.members import Members
from holdfast_operator.reconcile_cluster import ClusterReconciler, MembersOf
from holdfast_operator.reconcile_config import ConfigReconciler
from holdfast_operator.reconcile_pool import OLDEST_KUBERNETES, PoolReconciler


def cluster_loops(
    kube: Kube,
    repository: str,
    members: MembersOf = Members,
    kubernetes: tuple[int, int] = OLDEST_KUBERNETES,
) -> Loops:
    """The loops of all clusters. `kubernetes`: the version of the API server."""
    return Loops(lambda key: ClusterLoop(kube, key, repository, members, kubernetes))


class ClusterLoop(Loop):
    """Reconciles one cluster, its pools and its configurations, until no object refers to it any more."""

    def __init__(self, kube: Kube, key: Key, repository: str, members: MembersOf, kubernetes: tuple[int, int]) -> None:
        super().__init__(key)
        self._kube = kube
        self._cluster = ClusterReconciler(kube, *key, repository, members)
        self._pools = PoolReconciler(kube, *key, kubernetes)
        self._configs = ConfigReconciler(kube, *key)

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
