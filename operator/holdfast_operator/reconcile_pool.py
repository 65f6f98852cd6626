"""One pass over one HoldfastEdgePool: a replica on each of its nodes, brought up to date one at a time."""

from __future__ import annotations

from holdfast.proto import holdfast_pb2
from pydantic import ValidationError

from holdfast_operator import status
from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.model.pool import PoolSpec
from holdfast_operator.objects import Leaving, NotOurs, ensure
from holdfast_operator.plan.facts import Run
from holdfast_operator.plan.pool import Replica, replace_one
from holdfast_operator.pods import is_ready, run_of, trouble_of
from holdfast_operator.reconcile_cluster import LATER, RETRY, SOON
from holdfast_operator.resources import pool as resources
from holdfast_operator.resources.cluster import image_of
from holdfast_operator.resources.common import CLUSTER_LABEL, POOL_LABEL, TEMPLATE_LABEL


class PoolReconciler:
    """The pools of one cluster."""

    def __init__(self, kube: Kube, namespace: str, cluster: str, repository: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._cluster = cluster
        self._repository = repository

    async def run(
        self, pool: Object, cluster: ClusterSpec | None, reports: list[holdfast_pb2.ReplicaReport]
    ) -> float | None:
        """One pass. `cluster`: the spec of its cluster, if there is one that can be used. `reports`: what the cluster's
        members report about their replicas."""
        try:
            spec = PoolSpec.model_validate(pool["spec"])
        except ValidationError as error:
            return await self._stalled(pool, "InvalidSpec", f"this operator cannot use the spec: {error}")
        if cluster is None:
            message = f"there is no HoldfastCluster {self._cluster} in this namespace that can be used"
            return await self._stalled(pool, "NoCluster", message)
        try:
            return await self._pass(pool, spec, cluster, reports)
        except NotOurs as conflict:
            return await self._stalled(pool, "NameConflict", str(conflict))
        except Leaving:
            return SOON
        except ApiError as error:
            if error.reason == "Conflict" or error.status == 429 or error.status >= 500:
                raise
            return await self._stalled(pool, "Refused", str(error))

    async def _pass(
        self, pool: Object, spec: PoolSpec, cluster: ClusterSpec, reports: list[holdfast_pb2.ReplicaReport]
    ) -> float:
        name = pool["metadata"]["name"]
        image = image_of(cluster, self._repository)
        selector = ",".join(f"{k}={v}" for k, v in spec.placement.nodeSelector.items())
        nodes = {n["metadata"]["name"]: n for n in await self._kube.list("Node", labels=selector)}
        if not cluster.paused:
            await ensure(self._kube, pool, resources.service(pool, spec))
            await ensure(self._kube, pool, resources.replicas(pool, spec, cluster, image, len(nodes)))
        labels = f"{CLUSTER_LABEL}={self._cluster},{POOL_LABEL}={name}"
        pods = await self._kube.list("Pod", self._namespace, labels=labels)
        template = resources.replica_template(name, self._namespace, spec, cluster, image)
        found = [_replica(pod, nodes, template) for pod in pods]
        replaced = None if cluster.paused else replace_one(found)
        if replaced is not None:
            await self._kube.delete("Pod", self._namespace, replaced.name, uid=replaced.uid)
        await status.tell(self._kube, pool, _status(pool, found, len(nodes), reports))
        return SOON if any(replica.outdated for replica in found) and not cluster.paused else LATER

    async def _stalled(self, pool: Object, reason: str, message: str) -> float:
        conditions = [
            *status.ready(pool, False, reason, message, progressing=False, stalled=True),
            status.condition(pool, "Available", False, reason, message),
        ]
        await status.tell(self._kube, pool, status.with_conditions(pool, conditions))
        return RETRY


def _replica(pod: Object, nodes: dict[str, Object], template: str) -> Replica:
    node = nodes.get(pod["spec"].get("nodeName", ""))
    return Replica(
        name=pod["metadata"]["name"],
        uid=pod["metadata"]["uid"],
        outdated=pod["metadata"]["labels"].get(TEMPLATE_LABEL) != template,
        ready=is_ready(pod),
        runs=run_of(pod) in (Run.RUNNING, Run.UNKNOWN),
        terminating="deletionTimestamp" in pod["metadata"],
        reachable=node is not None and is_ready(node),
        trouble=trouble_of(pod),
    )


def _status(pool: Object, replicas: list[Replica], wanted: int, reports: list[holdfast_pb2.ReplicaReport]) -> Object:
    name = pool["metadata"]["name"]
    online = sum(report.pool == name for report in reports)
    ready = sum(replica.ready for replica in replicas)
    outdated = sum(replica.outdated for replica in replicas)
    good = 0 < wanted == ready and not outdated
    troubles = [f"{r.name}: {r.trouble}" for r in replicas if r.trouble]
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
