"""One pass over one HoldfastEdgePool: a replica on each of its nodes, brought up to date one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import datetime

from holdfast.proto import holdfast_pb2

from holdfast_operator import status
from holdfast_operator.children import ensure_certificate
from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.model.parse import InvalidSpec, parse
from holdfast_operator.model.pool import PoolSpec, SiteKeys
from holdfast_operator.objects import Leaving, NotOurs, ensure, ensure_absent, ensure_from, is_owned
from holdfast_operator.plan.facts import Run
from holdfast_operator.plan.freshness import Peak, corrected, last_seen, peaks
from holdfast_operator.plan.pool import Replica, replace_one
from holdfast_operator.plan.relays import relays as chosen
from holdfast_operator.pods import is_ready, run_of, trouble_of
from holdfast_operator.pool_status import Seen, pool_status, reports_of
from holdfast_operator.reconcile_cluster import LATER, RETRY, SOON, ForPools
from holdfast_operator.resources import certificates
from holdfast_operator.resources import pool as resources
from holdfast_operator.resources.common import CLUSTER_LABEL, POOL_LABEL, TEMPLATE_LABEL, template_of
from holdfast_operator.resources.rendering import OLDEST

OLDEST_KUBERNETES = (1, 30)
CERTIFICATES_PER_PASS = 4  # looked at again, of replicas that exist
Reports = list[holdfast_pb2.ReplicaReport] | None  # None: no member answers


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
        self._peaks: dict[str, dict[str, Peak]] = {}  # by uid of the pool, and by pod
        self._followed: dict[str, dict[str, float]] = {}  # the same: when it was last seen to follow

    def forget_others(self, pools: Iterable[Object]) -> None:
        """Keep what is remembered of these pools alone."""
        uids = {pool["metadata"]["uid"] for pool in pools}
        self._peaks = {uid: peaks for uid, peaks in self._peaks.items() if uid in uids}
        self._followed = {uid: seen for uid, seen in self._followed.items() if uid in uids}

    async def run(self, pool: Object, cluster: ForPools | None, reports: Reports) -> float | None:
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

    async def _pass(self, pool: Object, spec: PoolSpec, cluster: ForPools, reports: Reports) -> float:
        paused = cluster.spec.paused
        name = pool["metadata"]["name"]
        selector = ",".join(f"{k}={v}" for k, v in spec.placement.nodeSelector.items())
        nodes = {n["metadata"]["name"]: n for n in await self._kube.list("Node", labels=selector)}
        labels = f"{CLUSTER_LABEL}={self._cluster},{POOL_LABEL}={name}"
        live = {s["metadata"]["name"]: s for s in await self._kube.list("StatefulSet", self._namespace, labels=labels)}
        shared = _is_shared(pool, cluster, live)
        relays = frozenset() if shared else chosen(name, nodes, spec.relaysPerSite)
        wanted = _wanted(pool, spec, cluster, sorted(nodes), relays, shared=shared)
        if not paused:
            await self._ensure_services(pool, spec, cluster, relays=spec.relaysPerSite > 0 and not shared)
            if not shared:
                new = [name for name in wanted if name not in live]
                await self._ensure_certificates(pool, cluster, new, list(wanted), relays, spec.site)
            for stateful_name, stateful in wanted.items():
                await ensure_from(self._kube, pool, stateful, live.get(stateful_name))
            await self._prune(pool, live, wanted)
        pods = await self._kube.list("Pod", self._namespace, labels=labels)
        templates = {name: template_of(stateful) for name, stateful in wanted.items()}
        first = frozenset(_pod(resources.replica_on(name, node)) for node in relays)
        found = [_replica(pod, nodes, templates, first, self._kube.now()) for pod in pods]
        missing = not shared and _is_missing(name, nodes, found)
        replaced = None if paused else replace_one(found, missing=missing)
        refused = await self._replace(replaced) if replaced is not None else ""
        seen = self._seen(pool, wanted, found, first, reports, shared=shared)
        await status.tell(self._kube, pool, pool_status(pool, spec, seen, refused))
        if refused:
            return RETRY
        if any(replica.outdated for replica in found) and not paused:
            return SOON
        return RETRY if seen.settling else LATER

    def _seen(
        self,
        pool: Object,
        wanted: dict[str, Object],
        found: list[Replica],
        relays: frozenset[str],
        listed: Reports,
        *,
        shared: bool,
    ) -> Seen:
        uid, now = pool["metadata"]["uid"], self._kube.now().timestamp()
        pods = [_pod(name, n) for name, stateful in wanted.items() for n in range(stateful["spec"]["replicas"])]
        reports = reports_of(pool["metadata"]["name"], pods, listed)
        followed = self._followed[uid] = last_seen(self._followed.get(uid, {}), pods, reports or {}, now)
        reports = None if reports is None else corrected(reports, followed)
        self._peaks[uid] = peaks(self._peaks.get(uid, {}), reports or {}, now)
        return Seen(pods, shared, relays, found, reports, self._peaks[uid], now)

    async def _ensure_services(self, pool: Object, spec: PoolSpec, cluster: ForPools, *, relays: bool) -> None:
        rendering = cluster.rollout.rendering
        await ensure(self._kube, pool, resources.service(pool, spec, rendering, kubernetes=self._kubernetes))
        if relays:
            await ensure(self._kube, pool, resources.relay_service(pool, spec, rendering))
        else:
            await ensure_absent(self._kube, pool, "Service", resources.relay_name(pool["metadata"]["name"]))
        if spec.site is not None:
            await ensure(self._kube, pool, resources.writer_service(pool, spec, spec.site, rendering))
        else:
            await ensure_absent(self._kube, pool, "Service", resources.writer_name(pool["metadata"]["name"]))

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

    async def _ensure_certificates(
        self,
        pool: Object,
        cluster: ForPools,
        new: list[str],
        replicas: list[str],
        relays: frozenset[str],
        site: SiteKeys | None,
    ) -> None:
        """Certificates of new replicas, of those that others follow (by node), and of a few in turn: a thousand of them
        cost no thousand requests. Any replica may become a relay, or the writer of the site, so all replicas have the
        names of these Services; those that need them now have them at once."""
        ca = cluster.authority
        if ca is None or not replicas:
            return
        start = next(self._turn) * CERTIFICATES_PER_PASS
        turn = [replicas[(start + n) % len(replicas)] for n in range(min(CERTIFICATES_PER_PASS, len(replicas)))]
        name = pool["metadata"]["name"]
        services = [
            resources.replica_name(name),
            *([resources.relay_name(name)] if relays else []),
            *([resources.writer_name(name)] if site is not None else []),
        ]
        followed = {*relays, *([site.writer] if site is not None else [])}
        first = [made for node in sorted(followed) if (made := resources.replica_on(name, node)) in replicas]
        due = dict.fromkeys([*new, *first, *turn], services)
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
        # What is known of an earlier pass is not told as if it were so now.
        kept = {key: value for key, value in pool.get("status", {}).items() if key in ("replicas", "summary")}
        await status.tell(self._kube, pool, {**kept, "conditions": conditions})
        return LATER


def _is_shared(pool: Object, cluster: ForPools, live: dict[str, Object]) -> bool:
    """Whether the pool has one StatefulSet for all nodes, as earlier operators made it. Such a pool keeps it, because a
    StatefulSet for each node in its place would end all replicas at once."""
    return cluster.rollout.rendering == OLDEST or resources.replica_name(pool["metadata"]["name"]) in live


def _pod(stateful: str, ordinal: int = 0) -> str:
    return f"{stateful}-{ordinal}"


def _is_missing(pool: str, nodes: dict[str, Object], found: Iterable[Replica]) -> bool:
    """Whether a node that is ready has no pod of its replica: it has just joined, or its pod was deleted."""
    there = {replica.name for replica in found}
    return any(is_ready(node) and _pod(resources.replica_on(pool, name)) not in there for name, node in nodes.items())


def _wanted(
    pool: Object, spec: PoolSpec, cluster: ForPools, nodes: list[str], relays: frozenset[str], *, shared: bool
) -> dict[str, Object]:
    """The StatefulSets of the pool by name. `relays`: the nodes whose replicas are relays."""
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
                relay=node in relays,
            )
            for node in nodes
        ]
    return {stateful["metadata"]["name"]: stateful for stateful in made}


def _replica(
    pod: Object, nodes: dict[str, Object], templates: dict[str, str], relays: frozenset[str], now: datetime
) -> Replica:
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
        relay=pod["metadata"]["name"] in relays,
    )
