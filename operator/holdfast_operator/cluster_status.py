"""The status of a HoldfastCluster, from what this pass observed and planned."""

from __future__ import annotations

from holdfast_operator import status
from holdfast_operator.kube import Object
from holdfast_operator.members import hex_id
from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.observe import Observation
from holdfast_operator.plan.actions import Action, Wait
from holdfast_operator.plan.facts import Desired, Membership, Observed
from holdfast_operator.plan.safety import serves
from holdfast_operator.resources.common import voter_name
from holdfast_operator.words import sentence

_SETTLED = "AsWanted"


def cluster_status(
    cluster: Object,
    spec: ClusterSpec,
    seen: Observation,
    desired: Desired,
    action: Action,
    troubles: list[str],
    edge_replicas: int,
) -> Object:
    """`troubles`: what the API server or a member refused in this pass."""
    before, observed = cluster.get("status", {}), seen.plan
    membership = observed.membership
    name = cluster["metadata"]["name"]
    wait = action if isinstance(action, Wait) else None
    reason = "Refused" if troubles else wait.reason if wait else type(action).__name__
    as_wanted = wait is not None and wait.reason == _SETTLED
    # What is refused and what is waited for may both need the user.
    plan = [wait.message if wait else sentence(action, name)] if not (troubles and as_wanted) else []
    message = "; ".join([*troubles, *plan])
    updated = _updated(observed, desired)
    settled = as_wanted and not troubles
    conditions = [
        *status.ready(
            cluster,
            _ready(observed, settled),
            reason,
            message,
            progressing=wait is None or wait.progressing,
            stalled=bool(troubles) or (wait is not None and wait.stalled),
        ),
        _available(cluster, observed, message),
        status.condition(cluster, "Progressing", wait is None or wait.progressing, reason, message),
        _fault_tolerant(cluster, observed, membership),
        status.condition(
            cluster,
            "UpToDate",
            updated,
            "AllCurrent" if updated else "RollingOut",
            f"{_current(observed, desired)} of {desired.replicas} pods are of the wanted template",
        ),
        status.condition(cluster, "Paused", False, "NotPaused", "the operator works"),
    ]
    ready = [m for m in membership.voters if _pod_ready(observed, m.ordinal)] if membership else None
    leader = next((m.ordinal for m in membership.members if m.id == membership.leader), -1) if membership else -1
    return {
        **{key: before.get(key) for key in ("clusterID", "seed", "bootstrapped", "rollout")},
        "configIndex": membership.config_index if membership else None,
        "leader": voter_name(name, leader) if leader >= 0 else None,
        "currentVersion": _version(spec) if updated and settled else before.get("currentVersion"),
        "voters": len(membership.voters) if membership else None,
        "readyVoters": None if ready is None else len(ready),
        "votersSummary": f"{'?' if ready is None else len(ready)}/{desired.replicas}",
        "edgeSummary": f"{_online(seen) if seen.nodes else '?'}/{edge_replicas}",
        "members": _members(name, observed, membership) if membership else None,
        "conditions": conditions,
    }


def _online(seen: Observation) -> int:
    return sum(not report.offline_since for report in seen.replicas)


def _ready(observed: Observed, settled: bool) -> bool | None:
    """None: not one pod of a formed cluster answers, so nothing is known of it."""
    return settled if observed.nodes or not observed.bootstrapped else None


def _available(cluster: Object, observed: Observed, message: str) -> Object:
    if observed.membership is not None:
        return status.condition(cluster, "Available", True, "LinearizableReadOK", "a linearizable read is answered")
    if not observed.bootstrapped:
        return status.condition(cluster, "Available", False, "NotFormed", message)
    if not observed.nodes:
        return status.condition(cluster, "Available", None, "NoAnswer", "no pod answers the operator")
    return status.condition(cluster, "Available", False, "NoQuorum", message)


def _fault_tolerant(cluster: Object, observed: Observed, membership: Membership | None) -> Object:
    if membership is None:
        return status.condition(cluster, "FaultTolerant", None, "MembersUnknown", "the membership cannot be read")
    voters = membership.voters
    good = sum(serves(observed, m) for m in voters)
    tolerant = len(voters) > 1 and 2 * (good - 1) > len(voters)
    reason = "CanLoseOne" if tolerant else "CannotLoseOne"
    return status.condition(cluster, "FaultTolerant", tolerant, reason, f"{good} of {len(voters)} voters serve")


def _members(name: str, observed: Observed, membership: Membership) -> list[Object]:
    return [
        {
            "id": hex_id(m.id),
            "name": voter_name(name, m.ordinal) if m.ordinal >= 0 else "",
            "role": "voter" if m.voter else "learner",
            "ready": _pod_ready(observed, m.ordinal),
        }
        for m in sorted(membership.members, key=lambda m: m.ordinal)
    ]


def _pod_ready(observed: Observed, ordinal: int) -> bool:
    return ordinal in observed.pods and observed.pods[ordinal].ready


def _current(observed: Observed, desired: Desired) -> int:
    return sum(pod.template == desired.template for pod in observed.pods.values())


def _updated(observed: Observed, desired: Desired) -> bool:
    return _current(observed, desired) == len(observed.pods) == desired.replicas


def _version(spec: ClusterSpec) -> str:
    return spec.version or (spec.image or "").rpartition(":")[2]
