"""One pass over one HoldfastEdgePool: a replica on each of its nodes, brought up to date one at a time."""

from __future__ import annotations

import itertools
from datetime import datetime

from holdfast.proto import holdfast_pb2

from holdfast_operator import status
from holdfast_operator.children import ensure_certificate
from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.model.parse import InvalidSpec, parse
from holdfast_operator.model.pool import PoolSpec
from holdfast_operator.objects import Leaving, NotOurs, ensure, ensure_from, is_owned
from holdfast_operator.plan.facts import Run
from holdfast_operator.plan.pool import Replica, replace_one
from holdfast_operator.pods import is_ready, run_of, trouble_of
from holdfast_operator.reconcile_cluster import LATER, RETRY, SOON, ForPools
from holdfast_operator.resources import certificates
from holdfast_operator.resources import pool as resources
from holdfast_operator.resources.common import CLUSTER_LABEL, POOL_LABEL, TEMPLATE_LABEL, template_of
from holdfast_operator.resources.rendering import OLDEST

OLDEST_KUBERNETES = (1, 30)
CERTIFICATES_PER_PASS = 4  # looked at again, of replicas that exist


class PoolReconciler:
    """The pools of one cluster."""

    def __init__(
        self, kube: Kube, namespace: str, cluster: str, kubernetes: tuple[int, int] = OLDEST_KUBERNETES
    ) -> None:
        """`kubernetes`: the version of the API server."""
        self._kube = kube
        self._kubernetes = kubernetes
        self._namespace = namespace
        self._cluster = cluster
        self._turn = itertools.count()

    async def run(
        self, pool: Object, cluster: ForPools | None, reports: list[holdfast_pb2.ReplicaReport]
    ) -> float | None:
        """One pass. `cluster`: None if there is none that can be used. `reports`: what the cluster's members report
        about their replicas."""
        if cluster is None:
            message = f"there is no HoldfastCluster {self._cluster} in this namespace that can be used"
            return await self._stalled(pool, "NoCluster", message)
        try:
            return await self._pass(pool, parse(PoolSpec, pool).spec, cluster, reports)
        except InvalidSpec as error:
            return await self._stalled(pool, "InvalidSpec", f"this operator cannot use the object: {error}")
        except NotOurs as conflict:
            return await self._stalled(pool, "NotOurs", str(conflict))
        except Leaving:
            return SOON
        except ApiError as error:
            if error.reason == "Conflict" or error.status == 429 or error.status >= 500:
                raise
            return await self._stalled(pool, "Refused", str(error))

    async def _pass(
        self, pool: Object, spec: PoolSpec, cluster: ForPools, reports: list[holdfast_pb2.ReplicaReport]
    ) -> float:
        paused = cluster.spec.paused
        selector = ",".join(f"{k}={v}" for k, v in spec.placement.nodeSelector.items())
        nodes = {n["metadata"]["name"]: n for n in await self._kube.list("Node", labels=selector)}
        labels = f"{CLUSTER_LABEL}={self._cluster},{POOL_LABEL}={pool['metadata']['name']}"
        live = {s["metadata"]["name"]: s for s in await self._kube.list("StatefulSet", self._namespace, labels=labels)}
        shared = _is_shared(pool, cluster, live)
        wanted = _wanted(pool, spec, cluster, sorted(nodes), shared=shared)
        if not paused:
            await ensure(
                self._kube, pool, resources.service(pool, spec, cluster.rollout.rendering, kubernetes=self._kubernetes)
            )
            if not shared:
                new = [name for name in wanted if name not in live]
                await self._ensure_certificates(pool, cluster, new, list(wanted))
            for name, stateful in wanted.items():
                await ensure_from(self._kube, pool, stateful, live.get(name))
            await self._prune(pool, live, wanted)
        pods = await self._kube.list("Pod", self._namespace, labels=labels)
        templates = {name: template_of(stateful) for name, stateful in wanted.items()}
        found = [_replica(pod, nodes, templates, self._kube.now()) for pod in pods]
        replaced = None if paused else replace_one(found)
        refused = await self._replace(replaced) if replaced is not None else ""
        await status.tell(self._kube, pool, _status(pool, found, len(nodes), reports, refused))
        if refused:
            return RETRY
        return SOON if any(replica.outdated for replica in found) and not paused else LATER

    async def _replace(self, replica: Replica) -> str:
        """End its pod. One that is ready is evicted, so that disruption budgets are respected. Returns why that was
        refused; empty if it was not."""
        if not replica.ready:
            await self._kube.delete("Pod", self._namespace, replica.name, uid=replica.uid)
            return ""
        try:
            await self._kube.evict(self._namespace, replica.name, uid=replica.uid)
        except ApiError as error:
            if error.status != 429:
                raise
            return f"{replica.name} cannot be replaced now: {error}"
        return ""

    async def _ensure_certificates(self, pool: Object, cluster: ForPools, new: list[str], replicas: list[str]) -> None:
        """Certificates of new replicas, and of a few others in turn: a thousand of them cost no thousand requests."""
        ca = cluster.authority
        if ca is None or not replicas:
            return
        start = next(self._turn) * CERTIFICATES_PER_PASS
        turn = [replicas[(start + n) % len(replicas)] for n in range(min(CERTIFICATES_PER_PASS, len(replicas)))]
        service = resources.replica_name(pool["metadata"]["name"])
        due = dict.fromkeys([*new, *turn], service)
        owner = {"metadata": {**pool["metadata"], "name": self._cluster}, "kind": pool["kind"]}
        for wanted in certificates.wanted(owner, cluster.spec, due, []):
            if wanted.role == "edge":
                there = await self._kube.get("Secret", self._namespace, wanted.secret)
                await ensure_certificate(self._kube, pool, wanted, ca, there, self._kube.now())

    async def _prune(self, pool: Object, live: dict[str, Object], wanted: dict[str, Object]) -> None:
        """Remove the replicas of nodes that have left, with their Secrets."""
        for name, stateful in live.items():
            if name in wanted or "deletionTimestamp" in stateful["metadata"] or not is_owned(pool, stateful):
                continue
            await self._kube.delete("StatefulSet", self._namespace, name, uid=stateful["metadata"]["uid"])
            secret = await self._kube.get("Secret", self._namespace, resources.replica_secret(name))
            if secret is not None and is_owned(pool, secret):
                await self._kube.delete(
                    "Secret", self._namespace, secret["metadata"]["name"], uid=secret["metadata"]["uid"]
                )

    async def _stalled(self, pool: Object, reason: str, message: str) -> float:
        conditions = [
            *status.ready(pool, False, reason, message, progressing=False, stalled=True),
            status.condition(pool, "Available", False, reason, message),
        ]
        await status.tell(self._kube, pool, status.with_conditions(pool, conditions))
        return LATER


def _is_shared(pool: Object, cluster: ForPools, live: dict[str, Object]) -> bool:
    """Whether the pool has one StatefulSet for all nodes, as earlier operators made it. Such a pool keeps it, because a
    StatefulSet for each node in its place would end all replicas at once."""
    return cluster.rollout.rendering == OLDEST or resources.replica_name(pool["metadata"]["name"]) in live


def _wanted(pool: Object, spec: PoolSpec, cluster: ForPools, nodes: list[str], *, shared: bool) -> dict[str, Object]:
    """The StatefulSets of the pool by name."""
    rendering, image = cluster.rollout.rendering, cluster.rollout.image
    if shared:
        made = [resources.replicas(pool, spec, cluster.spec, image, len(nodes), rendering)]
    else:
        name, tls = pool["metadata"]["name"], cluster.spec.tls.mode == "SelfManaged"
        made = [
            resources.replica(
                pool,
                spec,
                cluster.spec,
                image,
                node,
                rendering,
                tls_secret=resources.replica_secret(resources.replica_on(name, node)) if tls else "",
            )
            for node in nodes
        ]
    return {stateful["metadata"]["name"]: stateful for stateful in made}


def _replica(pod: Object, nodes: dict[str, Object], templates: dict[str, str], now: datetime) -> Replica:
    meant_for = (pod["metadata"].get("annotations") or {}).get(resources.NODE_ANNOTATION, "")
    node = nodes.get(pod["spec"].get("nodeName") or meant_for)  # one that is not scheduled yet is being replaced
    stateful = pod["metadata"]["name"].rpartition("-")[0]
    return Replica(
        name=pod["metadata"]["name"],
        uid=pod["metadata"]["uid"],
        outdated=pod["metadata"]["labels"].get(TEMPLATE_LABEL) != templates.get(stateful),
        ready=is_ready(pod),
        runs=run_of(pod, now) not in (Run.NEVER, Run.FAILING),
        terminating="deletionTimestamp" in pod["metadata"],
        reachable=node is not None and is_ready(node),
        trouble=trouble_of(pod, now),
    )


def _status(
    pool: Object, replicas: list[Replica], wanted: int, reports: list[holdfast_pb2.ReplicaReport], refused: str
) -> Object:
    """`refused`: why the next replica is not replaced now."""
    name = pool["metadata"]["name"]
    online = sum(report.pool == name for report in reports)
    ready = sum(replica.ready for replica in replicas)
    outdated = sum(replica.outdated for replica in replicas)
    good = 0 < wanted == ready and not outdated
    troubles = [*([refused] if refused else []), *(f"{r.name}: {r.trouble}" for r in replicas if r.trouble)]
    message = "; ".join([f"{ready} of {wanted} replicas are ready, {online} follow the cluster", *troubles])
    reason = "AllReady" if good else "RollingOut" if outdated else "NotReady"
    if wanted == 0:
        reason, message = "NoNodes", "no node has the labels of placement.nodeSelector"
    return {
        "replicas": wanted,
        "online": online,
        "summary": f"{ready}/{wanted}",
        "conditions": [
            *status.ready(pool, good, reason, message, progressing=not good and wanted > 0, stalled=False),
            status.condition(pool, "Available", 0 < wanted == ready, reason, message),
        ],
    }
