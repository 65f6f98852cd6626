"""Changes of the membership: lost members go, empty nodes join as learners and are promoted, surplus voters go."""

from __future__ import annotations

from holdfast_operator.plan.actions import Action, AddLearner, Promote, Remove, TransferLeader, Wait
from holdfast_operator.plan.facts import Desired, Member, Membership, Node, NodeState, Observed
from holdfast_operator.plan.safety import can_remove, successor

CATCHING_UP = "CatchingUp"  # the reason of the only wait that holds up all later steps


def lost(observed: Observed, membership: Membership) -> Action | None:
    """Remove a voter whose volume is empty now, or was on a node that is gone. Its ordinal joins again under a new
    id."""
    for member in sorted(membership.voters, key=lambda m: m.ordinal):
        node, volume = observed.nodes.get(member.ordinal), observed.volumes.get(member.ordinal)
        if node is not None and _is_lost(node, member):
            return _remove(observed, membership, member, "its volume was lost")
        if node is None and volume is not None and volume.lost and volume.member_id in (0, member.id):
            return _remove(observed, membership, member, "the node of its volume is gone")
    return None


def learners(desired: Desired, observed: Observed, membership: Membership) -> Action | None:
    """Promote or remove the learner. One that does not answer is no reason to wait: see `unreachable_learner`."""
    for learner in (m for m in membership.members if not m.voter):
        node = observed.nodes.get(learner.ordinal)
        volume = observed.volumes.get(learner.ordinal)
        gone = node is not None and (_is_lost(node, learner) or node.member_id not in (0, learner.id))
        gone = gone or (node is None and volume is not None and volume.lost)
        if gone or not 0 <= learner.ordinal < desired.replicas:
            why = "its volume was lost" if gone else "fewer voters are wanted"
            return Remove(learner.id, learner.shown, membership.config_index, why)
        if node is not None and node.member_id == learner.id:
            if learner.caught_up:
                return Promote(learner.id, learner.shown, membership.config_index)
            return Wait(CATCHING_UP, f"{learner.shown} catches up before it votes")
        if node is not None:
            return Wait(CATCHING_UP, f"{learner.shown} waits for the leader to connect to it")
    return None


def join(desired: Desired, observed: Observed, membership: Membership) -> Action | None:
    """Add an empty node as a learner. A learner that does not answer makes room: there is one learner at a time."""
    for ordinal in range(desired.replicas):
        node = observed.nodes.get(ordinal)
        if node is None or ordinal in membership.by_ordinal or node.state is not NodeState.EMPTY:
            continue
        waiting = next((m for m in membership.members if not m.voter), None)
        if waiting is not None:
            why = "it does not answer, and another node waits to join"
            return Remove(waiting.id, waiting.shown, membership.config_index, why)
        return AddLearner(ordinal, node.volume_id, membership.config_index)
    return None


def surplus(desired: Desired, observed: Observed, membership: Membership) -> Action | None:
    extra = [m for m in membership.voters if m.ordinal >= desired.replicas]
    if not extra:
        return None
    return _remove(observed, membership, max(extra, key=lambda m: m.ordinal), "fewer voters are wanted")


def _is_lost(node: Node, member: Member) -> bool:
    return node.state is NodeState.EMPTY and node.volume_id != member.id


def _remove(observed: Observed, membership: Membership, member: Member, why: str) -> Action:
    if not can_remove(observed, membership, member):
        return Wait(
            "QuorumAtRisk", f"{member.shown} has to go ({why}), but without it too few members are ready and caught up"
        )
    if member.id == membership.leader:
        heir = successor(observed, membership, member)
        if heir is not None and not observed.transfer_expired:
            return TransferLeader(member.ordinal, heir.id, why)
    return Remove(member.id, member.shown, membership.config_index, why)
