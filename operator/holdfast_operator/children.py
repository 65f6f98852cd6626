"""The objects that a cluster consists of, each kept as it is wanted. One that is refused holds up no other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial

from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.model.cluster import ClusterSpec, RolloutStatus
from holdfast_operator.objects import Leaving, NotOurs, check_owner, ensure, ensure_absent
from holdfast_operator.plan.facts import Observed
from holdfast_operator.resources import authority, certificates
from holdfast_operator.resources import cluster as resources
from holdfast_operator.resources.authority import Authority
from holdfast_operator.resources.certificates import Wanted
from holdfast_operator.resources.common import ca_secret, voter_name
from holdfast_operator.resources.pool import replica_name
from holdfast_operator.resources.rendering import OLDEST


async def ensure_certificates(
    kube: Kube, cluster: Object, spec: ClusterSpec, rollout: RolloutStatus, pools: Iterable[Object]
) -> Authority | None:
    """Issue the certificates that are due; returns the CA, None without TLS. The CA comes first. Raises NotOurs,
    Leaving, ApiError and authority.CertificateTrouble."""
    if spec.tls.mode != "SelfManaged":
        return None
    services = [replica_name(pool["metadata"]["name"]) for pool in pools]
    wanted = certificates.wanted(cluster, spec, {}, services)
    if rollout.rendering == OLDEST:
        wanted.append(certificates.shared(cluster, services))
    namespace, now = cluster["metadata"]["namespace"], kube.now()
    there = {w.secret: await kube.get("Secret", namespace, w.secret) for w in wanted}
    stored = await kube.get("Secret", namespace, ca_secret(cluster["metadata"]["name"]))
    if stored is not None:
        check_owner(cluster, {**stored, "kind": "Secret"})
    ca = authority.load(cluster, stored, [secret for secret in there.values() if secret is not None], now)
    if ca is None:
        ca = authority.make(cluster["metadata"]["name"], now)
        await kube.create("Secret", namespace, authority.own_secret(cluster, ca))
    for w in wanted:
        await ensure_certificate(kube, cluster, w, ca, there[w.secret], now)
    return ca


async def ensure_certificate(
    kube: Kube, owner: Object, wanted: Wanted, ca: Authority, there: Object | None, now: datetime
) -> None:
    """Issue one certificate anew if it is due. Whoever mounts the Secret reads it again by itself."""
    if there is not None:
        check_owner(owner, {**there, "kind": "Secret"})
    if not certificates.due(there, wanted, ca.certificate, now):
        return
    secret = authority.secret(owner, wanted, ca, now)
    namespace = owner["metadata"]["namespace"]
    if there is None:
        await kube.create("Secret", namespace, secret)
    else:
        bound = {**secret["metadata"], "uid": there["metadata"]["uid"]}
        await kube.apply("Secret", namespace, {**secret, "metadata": bound})


async def ensure_children(
    kube: Kube, cluster: Object, spec: ClusterSpec, rollout: RolloutStatus, pods: int, seen: Observed
) -> list[str]:
    """Keep Services, disruption budget and StatefulSet as they are wanted. Returns what went wrong, in the API server's
    words."""
    name = cluster["metadata"]["name"]
    voters = len(seen.membership.voters) if seen.membership else 0
    budget = resources.disruption_budget(cluster, voters, spec.voters.replicas)
    wanted = [
        *resources.services(cluster, rollout.rendering),
        resources.voters(cluster, spec, rollout.image, pods, rollout.rendering),
        *([budget] if budget else []),
    ]
    steps: list[Callable[[], Awaitable[object]]] = [partial(ensure, kube, cluster, obj) for obj in wanted]
    if budget is None and seen.membership is not None:
        steps.append(partial(ensure_absent, kube, cluster, "PodDisruptionBudget", voter_name(name)))
    troubles = []
    for step in steps:
        try:
            await step()
        except (NotOurs, Leaving, ApiError) as error:
            troubles.append(str(error))
    return troubles
