"""One step towards the desired cluster, decided purely from what was observed.

Rules that hold whatever the spec says (see docs/kubernetes.md):

- a cluster is formed once: never while any node belongs to a cluster, and never again once this is recorded;
- at most one change of membership or pod at a time, and only if a majority without the affected member is ready and
  caught up;
- the removal of an id is committed before its volume or pod is deleted; after a lost volume the member gets a new id;
- broken pods are replaced first, then followers, then the leader, after it has transferred leadership.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from holdfast_operator.plan.actions import (
    Action,
    AddLearner,
    DeletePod,
    DeleteVolume,
    Form,
    Open,
    Promote,
    Record,
    RecordBootstrapped,
    Remove,
    TransferLeader,
    Wait,
)


class NodeState(Enum):
    EMPTY = 0
    FORMED = 1
    MEMBER = 2
    REMOVED = 3


@dataclass(frozen=True, slots=True)
class Node:
    """What a pod's process reports about itself."""

    volume_id: int
    cluster_id: int
    member_id: int
    state: NodeState
    ready: bool
    applied_index: int = 0


@dataclass(frozen=True, slots=True)
class Pod:
    uid: str
    ready: bool
    terminating: bool
    template: str  # hash of the template that it was made from
    node: Node | None  # None: it does not answer


@dataclass(frozen=True, slots=True)
class Member:
    id: int
    ordinal: int  # -1: it belongs to none of our pods
    voter: bool
    caught_up: bool


@dataclass(frozen=True, slots=True)
class Membership:
    config_index: int
    leader: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Volume:
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Desired:
    replicas: int
    template: str


@dataclass(frozen=True, slots=True)
class Observed:
    pods: Mapping[int, Pod]
    volumes: Mapping[int, Volume]
    membership: Membership | None  # None: no member answers a linearizable read
    cluster_id: int = 0  # as recorded in the status
    seed: int = 0
    bootstrapped: bool = False
    fresh_id: int = 0  # for a new cluster, if one is to be formed
    transfer_expired: bool = False  # the leader was asked to transfer leadership, and has not done so in time
    scheduled: int = 0  # replicas of the StatefulSet


def wanted_pods(desired: Desired, observed: Observed) -> int:
    """How many pods there have to be: those of the spec, and those whose member is not removed yet."""
    highest = desired.replicas
    if observed.membership is not None:
        highest = max([highest, *(m.ordinal + 1 for m in observed.membership.members)])
    elif observed.bootstrapped:
        highest = max(highest, observed.scheduled)  # the members are unknown: remove no pod
    return highest


def plan(desired: Desired, observed: Observed) -> Action:
    """The next action."""
    if not observed.bootstrapped:
        return _bootstrap(desired, observed)
    for ordinal, pod in sorted(observed.pods.items()):
        if pod.node is not None and pod.node.state is NodeState.FORMED and pod.node.cluster_id == observed.cluster_id:
            return Open(ordinal, observed.cluster_id)
    membership = observed.membership
    if membership is None:
        return Wait("NoQuorum", "no member answers a linearizable read; nothing is changed until one does")
    return (
        _membership(desired, observed, membership)
        or _leftovers(desired, observed, membership)
        or _roll(desired, observed, membership)
        or _settled(desired, observed, membership)
    )


# ---- bootstrap -------------------------------------------------------------------------------------------------


def _bootstrap(desired: Desired, observed: Observed) -> Action:
    nodes = {ordinal: pod.node for ordinal, pod in observed.pods.items() if pod.node is not None}
    belonging = {ordinal: node for ordinal, node in nodes.items() if node.cluster_id}
    if belonging:
        ids = {node.cluster_id for node in belonging.values()}
        if len(ids) > 1:
            found = ", ".join(f"{i:x}" for i in sorted(ids))
            return Wait(
                "ClusterIDMismatch", f"the pods belong to different clusters ({found}); nothing is changed", False
            )
        (cluster_id,) = ids
        if cluster_id != observed.cluster_id:
            # A node belongs to a cluster already: adopt that cluster, whatever was lost, and form no other one.
            node = min(belonging.values(), key=lambda n: n.member_id)
            return Record(cluster_id, node.volume_id)
        return RecordBootstrapped()
    missing = [n for n in range(desired.replicas) if n not in nodes]
    if missing:
        names = ", ".join(str(n) for n in missing)
        return Wait("WaitingForPods", f"waiting for the pods with ordinal {names} to answer before forming the cluster")
    for ordinal, node in nodes.items():
        if observed.cluster_id and node.volume_id == observed.seed:
            return Form(ordinal, observed.cluster_id, node.volume_id)
    # No node belongs to a cluster, and the recorded seed, if there is one, is gone. The seed has served no client, so
    # another node may become the seed.
    return Record(observed.fresh_id, nodes[0].volume_id)


# ---- membership ------------------------------------------------------------------------------------------------


def _membership(desired: Desired, observed: Observed, membership: Membership) -> Action | None:
    by_ordinal = {m.ordinal: m for m in membership.members if m.ordinal >= 0}
    learner = next((m for m in membership.members if not m.voter), None)
    if learner is not None:
        return _learner(desired, observed, membership, learner)
    for member in sorted(membership.members, key=lambda m: m.ordinal):
        pod = observed.pods.get(member.ordinal)
        node = pod.node if pod is not None else None
        if node is not None and node.state is NodeState.EMPTY and node.volume_id != member.id:
            return _remove(observed, membership, member, "its volume was lost")
    for ordinal in range(desired.replicas):
        pod = observed.pods.get(ordinal)
        if ordinal in by_ordinal or pod is None or pod.node is None or pod.terminating:
            continue
        if pod.node.state is NodeState.EMPTY:
            return AddLearner(ordinal, pod.node.volume_id, membership.config_index)
        if pod.node.cluster_id == observed.cluster_id:
            # Its member was removed, but the volume is used again, for example after scaling down and up. A removed id
            # is never used again, so the volume has to be replaced: Kubernetes removes it once its pod is deleted.
            volume = observed.volumes.get(ordinal)
            if volume is not None:
                return DeleteVolume(volume.name, volume.uid)
            return DeletePod(ordinal, pod.uid, "its volume is of a member that was removed")
        if pod.node.cluster_id:
            return Wait(
                "ForeignVolume",
                f"the pod with ordinal {ordinal} has a volume of cluster {pod.node.cluster_id:x}; empty it",
                False,
            )
    extra = [m for m in membership.members if m.ordinal >= desired.replicas]
    if extra:
        return _remove(observed, membership, max(extra, key=lambda m: m.ordinal), "fewer voters are wanted")
    return None


def _learner(desired: Desired, observed: Observed, membership: Membership, learner: Member) -> Action:
    pod = observed.pods.get(learner.ordinal)
    node = pod.node if pod is not None else None
    lost = node is not None and node.state is NodeState.EMPTY and node.volume_id != learner.id
    if lost or learner.ordinal >= desired.replicas or learner.ordinal < 0:
        why = "its volume was lost" if lost else "fewer voters are wanted"
        return Remove(learner.id, _name(learner), membership.config_index, why)
    if learner.caught_up and node is not None and node.member_id == learner.id:
        return Promote(learner.id, _name(learner), membership.config_index)
    return Wait("CatchingUp", f"{_name(learner)} catches up before it votes")


def _remove(observed: Observed, membership: Membership, member: Member, why: str) -> Action:
    stay = [m for m in membership.members if m.voter and m.id != member.id]
    if 2 * sum(1 for m in stay if _good(observed, m)) <= len(stay):  # after the removal, these members decide
        return Wait(
            "QuorumAtRisk", f"{_name(member)} has to go ({why}), but without it too few members are ready and caught up"
        )
    if member.id == membership.leader:
        successor = _successor(observed, membership, member)
        if successor is not None and not observed.transfer_expired:
            return TransferLeader(member.ordinal, successor.id, why)
    return Remove(member.id, _name(member), membership.config_index, why)


def _leftovers(desired: Desired, observed: Observed, membership: Membership) -> Action | None:
    """Delete volumes of ordinals above the wanted number that have no member and no pod."""
    members = {m.ordinal for m in membership.members}
    for ordinal, volume in sorted(observed.volumes.items()):
        if ordinal >= desired.replicas and ordinal not in members and ordinal not in observed.pods:
            return DeleteVolume(volume.name, volume.uid)
    # The process of a removed member does not start again on its volume, so the volume has to be deleted, too.
    for ordinal, pod in sorted(observed.pods.items()):
        if ordinal >= desired.replicas and ordinal not in members and not pod.terminating:
            return Wait("ScalingDown", f"the pod with ordinal {ordinal} is being removed")
    return None


# ---- rolling ---------------------------------------------------------------------------------------------------


def _roll(desired: Desired, observed: Observed, membership: Membership) -> Action | None:
    outdated = {n: pod for n, pod in observed.pods.items() if pod.template != desired.template}
    if not outdated:
        return None
    busy = sorted(n for n, pod in observed.pods.items() if pod.terminating)
    if busy:
        return Wait("RollingOut", f"waiting for the pod with ordinal {busy[0]} to be replaced")
    members = {m.ordinal: m for m in membership.members}
    broken = [n for n, pod in sorted(outdated.items()) if not pod.ready]
    if broken:
        # It serves no client now, so replacing it costs nothing; waiting for it could last for ever.
        return DeletePod(broken[0], outdated[broken[0]].uid, "it is outdated and not ready")
    unready = sorted(n for n in range(desired.replicas) if n not in observed.pods or not observed.pods[n].ready)
    if unready:
        return Wait("RollingOut", f"waiting for the pod with ordinal {unready[0]} to be ready")
    followers = [n for n in sorted(outdated) if n not in members or members[n].id != membership.leader]
    if followers:
        return _replace(observed, membership, members, followers[0], outdated[followers[0]])
    (leader,) = outdated
    successor = _successor(observed, membership, members[leader])
    if successor is not None and not observed.transfer_expired:
        return TransferLeader(leader, successor.id, "its pod is outdated and the last one")
    return _replace(observed, membership, members, leader, outdated[leader])


def _replace(
    observed: Observed, membership: Membership, members: Mapping[int, Member], ordinal: int, pod: Pod
) -> Action:
    member = members.get(ordinal)
    voters = [m for m in membership.members if m.voter]
    if member is not None and len(voters) > 1 and not _safe_without(observed, membership, member):
        return Wait("QuorumAtRisk", f"the pod with ordinal {ordinal} is outdated, but too few others are caught up")
    return DeletePod(ordinal, pod.uid, "it is outdated")


def _safe_without(observed: Observed, membership: Membership, target: Member) -> bool:
    """Whether a majority of the voters is ready and caught up without `target`."""
    voters = [m for m in membership.members if m.voter]
    good = [m for m in voters if m.id != target.id and _good(observed, m)]
    return 2 * len(good) > len(voters)


def _good(observed: Observed, member: Member) -> bool:
    pod = observed.pods.get(member.ordinal)
    return (
        pod is not None
        and not pod.terminating
        and pod.node is not None
        and pod.node.member_id == member.id
        and pod.node.ready
        and member.caught_up
    )


def _successor(observed: Observed, membership: Membership, leader: Member) -> Member | None:
    """The member that should lead next: ready, caught up, of the lowest ordinal (so that it is not replaced next)."""
    others = [m for m in membership.members if m.voter and m.id != leader.id and _good(observed, m)]
    return min(others, key=lambda m: m.ordinal, default=None)


def _settled(desired: Desired, observed: Observed, membership: Membership) -> Action:
    voters = [m for m in membership.members if m.voter]
    unready = sorted(n for n in range(desired.replicas) if n not in observed.pods or not observed.pods[n].ready)
    if unready:
        return Wait("PodNotReady", f"waiting for the pod with ordinal {unready[0]} to be ready")
    if len(voters) != desired.replicas:
        return Wait("MembersMissing", f"{len(voters)} of {desired.replicas} voters")
    return Wait("AsWanted", f"{len(voters)} voters, all ready and up to date", progressing=False)


def _name(member: Member) -> str:
    return f"voter {member.ordinal} ({member.id:x})" if member.ordinal >= 0 else f"member {member.id:x}"
