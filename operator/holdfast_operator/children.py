"""The objects that a cluster consists of, each kept as it is wanted. One that is refused holds up no other."""

from __future__ import annotations

import base64
from collections.abc import Awaitable

from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.objects import Leaving, NotOurs, check_owner, ensure, ensure_absent
from holdfast_operator.plan.facts import Observed
from holdfast_operator.resources import cluster as resources
from holdfast_operator.resources import tls
from holdfast_operator.resources.common import voter_name


async def ensure_secrets(kube: Kube, cluster: Object, spec: ClusterSpec) -> None:
    """Make the Secrets that are missing. The CA comes first, because it issues all other certificates. Raises NotOurs,
    Leaving and ApiError."""
    if spec.tls.mode != "SelfManaged":
        return
    name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
    ca = await kube.get("Secret", namespace, tls.ca_secret(name))
    if ca is None:
        certificate, key = tls.make_ca(name)
        ca = await kube.create(
            "Secret", namespace, tls.secret(cluster, tls.ca_secret(name), certificate, key, certificate)
        )
    check_owner(cluster, {**ca, "kind": "Secret"})
    certificate, key = (base64.b64decode(ca["data"][k]) for k in ("tls.crt", "tls.key"))
    for secret_name in tls.secret_names(name):
        there = await kube.get("Secret", namespace, secret_name)
        if there is None:
            await kube.create("Secret", namespace, tls.issued(cluster, secret_name, certificate, key))
        else:
            check_owner(cluster, {**there, "kind": "Secret"})


async def ensure_children(
    kube: Kube, cluster: Object, spec: ClusterSpec, image: str, pods: int, seen: Observed
) -> list[str]:
    """Keep Services, disruption budget and StatefulSet as they are wanted. Returns what went wrong, in the API server's
    words."""
    name = cluster["metadata"]["name"]
    voters = len(seen.membership.voters) if seen.membership else 0
    budget = resources.disruption_budget(cluster, voters, spec.voters.replicas)
    wanted = [*resources.services(cluster), resources.voters(cluster, spec, image, pods), *([budget] if budget else [])]
    steps: list[Awaitable[object]] = [ensure(kube, cluster, obj) for obj in wanted]
    if budget is None and seen.membership is not None:
        steps.append(ensure_absent(kube, cluster, "PodDisruptionBudget", voter_name(name)))
    troubles = []
    for step in steps:
        try:
            await step
        except (NotOurs, Leaving, ApiError) as error:
            troubles.append(str(error))
    return troubles
