"""One step towards the wanted cluster, decided purely from what was observed.

Rules that hold whatever the spec says (see docs/kubernetes.md):

- a cluster is formed once: never while any volume belongs to a cluster, and never again once this is recorded;
- a process that may vote is stopped only if the others include a majority that is ready and caught up;
- at most one change of membership or pod at a time;
- the removal of an id is committed before its volume or pod is deleted; after a lost volume the member gets a new id;
- a volume is deleted only if its member is known to have been removed, if it was on a node that is gone and holds no
  member, or if the user gave its cluster up;
- what waits for the user holds up nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from holdfast_operator.plan import membership as change
from holdfast_operator.plan import volumes
from holdfast_operator.plan.actions import Action, Open, Wait, stalled
from holdfast_operator.plan.bootstrap import bootstrap
from holdfast_operator.plan.facts import ADOPT, WIPE, Desired, Membership, NodeState, Observed, Run
from holdfast_operator.plan.membership import CATCHING_UP
from holdfast_operator.plan.roll import replace_what_cannot_run, roll


def wanted_pods(desired: Desired, observed: Observed) -> int:
    """How many pods there have to be: those of the spec, and those whose member is not removed yet."""
    if not observed.bootstrapped:
        found = volumes.clusters_of(observed)
        adopted = found.get(desired.adopt, []) if desired.adopt else []
        # The pods of a cluster that is not taken over yet may be its majority: remove none of them.
        return max([desired.replicas, observed.scheduled if found else 0, *(o + 1 for o in adopted)])
    if observed.membership is not None:
        return max([desired.replicas, *(m.ordinal + 1 for m in observed.membership.members)])
    # The members are unknown: remove no pod that may hold one, and start all that may.
    empty = [o for o in observed.volumes if volumes.is_empty(observed, o)]
    scheduled = observed.scheduled
    while scheduled - 1 in empty:
        scheduled -= 1  # it may have the place of one that is needed
    ours = [o for o, volume in observed.volumes.items() if volume.cluster_id in (0, observed.cluster_id)]
    return max([desired.replicas, scheduled, *(o + 1 for o in ours if o not in empty)])


def plan(desired: Desired, observed: Observed) -> Action:
    """The next action."""
    urgent = (
        volumes.marks(desired, observed)
        or volumes.wipe(desired, observed)
        or replace_what_cannot_run(desired, observed)
    )
    if urgent is not None:
        return urgent
    if not observed.bootstrapped:
        return bootstrap(desired, observed)
    for ordinal, node in observed.nodes.items():
        if node.state is NodeState.FORMED and node.cluster_id == observed.cluster_id:
            return Open(ordinal, observed.cluster_id)
    membership = observed.membership
    if membership is None:
        return _no_quorum(desired, observed)
    blocked = volumes.foreign(observed)
    steps: list[Callable[[], Action | None]] = [
        lambda: change.lost(observed, membership),
        lambda: volumes.reused(desired, observed, membership),
        lambda: volumes.unusable(observed, membership),
        lambda: change.learners(desired, observed, membership),
        lambda: change.join(desired, observed, membership),
        lambda: change.surplus(desired, observed, membership),
        lambda: volumes.leftovers(desired, observed, membership),
        lambda: roll(desired, observed, membership, blocked),
    ]
    waiting: Wait | None = None
    for step in steps:
        action = step()
        if isinstance(action, Wait) and action.reason != CATCHING_UP:
            waiting = waiting or action  # what this step waits for may need a later one
        elif action is not None:
            return action
    if waiting is not None:
        return _with_question(waiting, blocked)
    return volumes.wipe_refused(desired, observed) or _settled(desired, observed, membership, blocked)


def _no_quorum(desired: Desired, observed: Observed) -> Action:
    nodes = observed.nodes
    others = volumes.foreign(observed)
    if nodes and len(others) == len(nodes):
        theirs = ", ".join(f"{cluster:016x}" for cluster in sorted(set(others.values())))
        return stalled(
            "ClusterIDMismatch",
            f"this is cluster {observed.cluster_id:016x}, and all pods that answer belong to "
            f"{theirs}; nothing is changed. Put its volumes back, or set the annotation {WIPE} to the id of the one "
            "whose volumes may be deleted",
        )
    expected = range(max(desired.replicas, observed.scheduled))
    if all(n in nodes and nodes[n].state is NodeState.EMPTY for n in expected):
        return stalled(
            "DataLost",
            f"all volumes of cluster {observed.cluster_id:016x} are empty; nothing is changed. Put volumes back that "
            f"hold it, or set {WIPE} to {observed.cluster_id:016x} to begin anew, for example from a snapshot",
        )
    troubles = [f"{n}: {p.trouble}" for n, p in sorted(observed.pods.items()) if p.trouble]
    empty = [str(n) for n, node in nodes.items() if node.state is NodeState.EMPTY]
    if empty:
        troubles.append(f"the volumes at the ordinals {', '.join(empty)} are empty")
    message = "no member answers a linearizable read; nothing is changed until one does"
    message += f" ({'; '.join(troubles)})" if troubles else ""
    # All processes answer, and those that hold something are too few to be the majority of as many as are wanted.
    few = bool(empty) and all(n in nodes for n in expected) and 2 * (len(nodes) - len(empty)) <= desired.replicas
    if few:
        message += (
            f". Too few volumes hold the cluster {observed.cluster_id:016x}: put back those that hold it, or set "
            f"{WIPE} to {observed.cluster_id:016x} to begin anew, for example from a snapshot"
        )
    return _with_question(Wait("NoQuorum", message, stalled=few), others)


def _with_question(waiting: Wait, blocked: dict[int, int]) -> Wait:
    """What waits for the user is told, too: it may be what the others wait for. With a voter missing the rest may be
    too few for one to be replaced, and only the user can change that."""
    if not blocked:
        return waiting
    stuck = waiting.reason == "QuorumAtRisk"
    return replace(waiting, message=f"{waiting.message}; {_question(blocked)}", stalled=waiting.stalled or stuck)


def _question(blocked: dict[int, int]) -> str:
    ordinal, cluster = next(iter(sorted(blocked.items())))
    return (
        f"the volume at ordinal {ordinal} belongs to the cluster {cluster:016x}; empty it, or set the annotation "
        f"{WIPE} to {cluster:016x} to have its volumes deleted"
    )


def _settled(desired: Desired, observed: Observed, membership: Membership, blocked: dict[int, int]) -> Action:
    if blocked:
        return stalled("ForeignVolume", _question(blocked))
    for ordinal in range(desired.replicas):
        pod = observed.pods.get(ordinal)
        if pod is None or not pod.ready:
            trouble = pod.trouble if pod is not None else ""
            shown = f"{ordinal}: {trouble}" if trouble else str(ordinal)
            fails = pod is not None and pod.run in (Run.NEVER, Run.FAILING) and not pod.terminating and bool(trouble)
            return Wait("PodNotReady", f"waiting for the pod with ordinal {shown} to be ready", stalled=fails)
    silent = [m.ordinal for m in membership.voters if m.ordinal >= 0 and m.ordinal not in observed.nodes]
    if silent:
        return Wait(
            "MemberSilent", f"waiting for the member in the pod with ordinal {silent[0]} to answer the operator"
        )
    strangers = [m for m in membership.members if m.ordinal < 0]
    if strangers:
        return stalled(
            "UnknownMember",
            f"{strangers[0].shown} is no pod of this cluster; remove it with `holdfast member remove`, or give it back",
        )
    if len(membership.voters) != desired.replicas:
        return Wait("MembersMissing", f"{len(membership.voters)} of {desired.replicas} voters")
    message = f"{len(membership.voters)} voters, all ready and up to date"
    unknown = [
        volume.name
        for ordinal, volume in sorted(observed.volumes.items())
        if ordinal >= desired.replicas
        and not volume.terminating
        and not volumes.was_removed(volume, observed, membership)
    ]
    if unknown:
        message += (
            f". The claims {', '.join(unknown)} stay: nothing is known of what they hold. Delete those that are "
            "not needed"
        )
    return Wait("AsWanted", message, progressing=False)


__all__ = ["ADOPT", "WIPE", "plan", "wanted_pods"]
