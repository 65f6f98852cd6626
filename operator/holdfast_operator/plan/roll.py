"""Replaces pods that were made from another template than the wanted one, followers first, one at a time."""

from __future__ import annotations

from collections.abc import Collection

from holdfast_operator.plan.actions import Action, DeletePod, EvictPod, TransferLeader, Wait
from holdfast_operator.plan.facts import Desired, Membership, Observed, Pod
from holdfast_operator.plan.safety import can_spare, successor


def replace_what_cannot_run(desired: Desired, observed: Observed) -> Action | None:
    """An outdated pod without a process holds nothing up and votes for nothing. It is replaced at once, formed or not,
    with a quorum or without: the wanted template may be the one that runs."""
    if not observed.remade(desired):
        return None
    for ordinal, pod in sorted(observed.pods.items()):
        if pod.template != desired.template and pod.cannot_run and not pod.terminating:
            return DeletePod(ordinal, pod.uid, f"it is outdated and cannot run ({pod.trouble})", True)
    return None


def roll(desired: Desired, observed: Observed, membership: Membership, blocked: Collection[int]) -> Action | None:
    """`blocked`: ordinals that wait for the user, and that nothing else waits for."""
    pods = {n: pod for n, pod in sorted(observed.pods.items()) if n not in blocked}
    outdated = {n: pod for n, pod in pods.items() if pod.template != desired.template}
    if not outdated:
        return None
    if not observed.remade(desired):
        return Wait("RollingOut", "waiting for the StatefulSet to have the wanted template")
    busy = [n for n, pod in pods.items() if pod.terminating]
    if busy:
        return Wait("RollingOut", f"waiting for the pod with ordinal {busy[0]} to be replaced")
    members = membership.by_ordinal
    # A pod that is not ready and is to be replaced anyway comes first: it may be what the others wait for.
    broken = [n for n in outdated if not outdated[n].ready]
    voters = [m.ordinal for m in membership.voters if m.ordinal >= 0]
    waiting = [n for n in sorted(voters) if n not in outdated and n not in blocked and not _ready(pods.get(n))]
    if waiting and not broken:
        return Wait("RollingOut", f"waiting for the pod with ordinal {_shown(waiting[0], pods)} to be ready")
    followers = [n for n in outdated if n not in members or members[n].id != membership.leader]
    # Then one that does not answer: while it is silent, none of the others may be spared.
    silent = [n for n in followers if outdated[n].node is None]
    ordinal = next(iter([n for n in broken if n in followers] or broken or silent or followers or outdated))
    pod, member = outdated[ordinal], members.get(ordinal)
    if member is not None and not can_spare(observed, membership, member):
        return Wait("QuorumAtRisk", f"the pod with ordinal {ordinal} is outdated, but too few others are caught up")
    if member is not None and member.id == membership.leader:
        heir = successor(observed, membership, member)
        if heir is not None and not observed.transfer_expired:
            return TransferLeader(ordinal, heir.id, "its pod is outdated and the last one")
    # Kubernetes' own word decides how it goes: a pod that the operator does not reach may serve others.
    if pod.ready:
        return EvictPod(ordinal, pod.uid, "it is outdated")
    return DeletePod(ordinal, pod.uid, "it is outdated and not ready")


def _ready(pod: Pod | None) -> bool:
    return pod is not None and pod.ready


def _shown(ordinal: int, pods: dict[int, Pod]) -> str:
    pod = pods.get(ordinal)
    return f"{ordinal} ({pod.trouble})" if pod is not None and pod.trouble else str(ordinal)
