"""One pass over one HoldfastEdgePool: a replica on each of its nodes, brought up to date one at a time."""

from __future__ import annotations

from holdfast.proto import holdfast_pb2

from holdfast_operator import status
from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.model.pool import PoolSpec
from holdfast_operator.reconcile_cluster import LATER, SOON
from holdfast_operator.resources import pool as resources
from holdfast_operator.resources.cluster import image_of
from holdfast_operator.resources.common import CLUSTER_LABEL, POOL_LABEL, TEMPLATE_LABEL


class PoolReconciler:
    def __init__(self, kube: Kube, namespace: str, name: str, repository: str) -> None:
        self._kube = kube
        self.namespace = namespace
        self.name = name
        self._repository = repository
        self._applied: dict[str, Object] = {}

    async def close(self) -> None:
        """Nothing is kept open."""

    async def run(self, reports: list[holdfast_pb2.ReplicaReport], revision: int) -> float | None:
        """One pass. `reports`: what the cluster's members report about their replicas."""
        pool = await self._kube.get("HoldfastEdgePool", self.namespace, self.name)
        if pool is None or "deletionTimestamp" in pool["metadata"]:
            return None
        spec = PoolSpec.model_validate(pool["spec"])
        cluster = await self._kube.get("HoldfastCluster", self.namespace, spec.clusterRef.name)
        if cluster is None:
            message = f"there is no HoldfastCluster {spec.clusterRef.name} in this namespace"
            await self._write(pool, {"conditions": [status.condition(pool, "Available", False, "NoCluster", message)]})
            return LATER
        cluster_spec = ClusterSpec.model_validate(cluster["spec"])
        image = image_of(cluster_spec, self._repository)
        selector = ",".join(f"{k}={v}" for k, v in spec.placement.nodeSelector.items())
        nodes = await self._kube.list("Node", labels=selector)
        try:
            await self._ensure(pool, resources.service(pool, spec))
            await self._ensure(pool, resources.replicas(pool, spec, cluster_spec, image, len(nodes)))
        except ApiError as error:
            conflict = status.condition(pool, "Available", False, "NameConflict", str(error))
            await self._write(pool, {"conditions": [conflict]})
            return LATER
        labels = f"{CLUSTER_LABEL}={spec.clusterRef.name},{POOL_LABEL}={self.name}"
        pods = await self._kube.list("Pod", self.namespace, labels=labels)
        template = resources.replica_template(self.name, self.namespace, spec, cluster_spec, image)
        replaced = False
        if not cluster_spec.paused:
            replaced = await self._replace_one(pool, pods, nodes, template)
        await self._write_status(pool, pods, len(nodes), reports, revision)
        return SOON if replaced else LATER / 2

    async def _ensure(self, pool: Object, obj: Object) -> None:
        kind, name = obj["kind"], obj["metadata"]["name"]
        if self._applied.get(kind) == obj:
            return
        there = await self._kube.get(kind, self.namespace, name)
        if there is None:
            await self._kube.create(kind, self.namespace, obj)
        else:
            owners = there["metadata"].get("ownerReferences", [])
            if not any(o["uid"] == pool["metadata"]["uid"] for o in owners):
                raise ApiError(409, "NameConflict", f"the {kind} {name} exists and is not ours")
            await self._kube.apply(kind, self.namespace, obj)
        self._applied[kind] = obj

    async def _replace_one(self, pool: Object, pods: list[Object], nodes: list[Object], template: str) -> bool:
        """Delete one outdated pod if the others are ready. Pods on nodes that are cut off stay, and go on serving."""
        reachable = {n["metadata"]["name"] for n in nodes if _ready(n)}
        here = [p for p in pods if p["spec"].get("nodeName") in reachable]
        if any("deletionTimestamp" in p["metadata"] for p in here):
            return True
        outdated = [p for p in here if p["metadata"]["labels"].get(TEMPLATE_LABEL) != template]
        if not outdated:
            return False
        broken = [p for p in outdated if not _ready(p)]
        if not broken and any(not _ready(p) for p in here):
            return True
        pod = (broken or outdated)[0]
        await self._kube.delete("Pod", self.namespace, pod["metadata"]["name"], uid=pod["metadata"]["uid"])
        await self._kube.event(pool, "Normal", "PodReplaced", f"{pod['metadata']['name']} is outdated")
        return True

    async def _write_status(
        self,
        pool: Object,
        pods: list[Object],
        wanted: int,
        reports: list[holdfast_pb2.ReplicaReport],
        revision: int,
    ) -> None:
        mine = [r for r in reports if r.pool == self.name]
        ready = sum(1 for p in pods if _ready(p))
        available = wanted > 0 and ready == wanted
        message = f"{ready} of {wanted} replicas are ready, {len(mine)} follow the cluster"
        if wanted == 0:
            message = "no node has the labels of placement.nodeSelector"
        await self._write(
            pool,
            {
                "replicas": wanted,
                "online": len(mine),
                "synced": sum(1 for r in mine if r.watermark and r.watermark >= revision),
                "summary": f"{ready}/{wanted}",
                "conditions": [
                    status.condition(pool, "Available", available, "AllReady" if available else "NotReady", message)
                ],
            },
        )

    async def _write(self, pool: Object, wanted: Object) -> None:
        try:
            await status.write(self._kube, pool, {"observedGeneration": pool["metadata"]["generation"], **wanted})
        except ApiError as error:
            if error.reason not in ("Conflict", "NotFound"):
                raise


def _ready(obj: Object) -> bool:
    conditions = obj.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
