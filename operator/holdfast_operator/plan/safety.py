"""Which members the cluster can do without for a while. Every action that stops a process asks here first."""

from __future__ import annotations

from holdfast_operator.plan.facts import Member, Membership, Observed


def serves(observed: Observed, member: Member) -> bool:
    """Whether this member is certain to vote and to have the newest entries."""
    pod = observed.pods.get(member.ordinal)
    return (
        pod is not None
        and not pod.terminating
        and pod.node is not None
        and pod.node.member_id == member.id
        and pod.node.ready
        and member.caught_up
    )


def can_spare(observed: Observed, membership: Membership, target: Member) -> bool:
    """Whether a majority of the voters serves without `target`, whose own state does not count: a process that seems to
    be broken may still vote. A single voter can always be spared, because nobody could stand in for it."""
    voters = membership.voters
    if not target.voter or len(voters) == 1:
        return True
    return 2 * sum(serves(observed, m) for m in voters if m.id != target.id) > len(voters)


def can_remove(observed: Observed, membership: Membership, target: Member) -> bool:
    """Whether those that decide after the removal of `target` include a majority that serves."""
    stay = [m for m in membership.voters if m.id != target.id]
    return 2 * sum(serves(observed, m) for m in stay) > len(stay)


def successor(observed: Observed, membership: Membership, leader: Member) -> Member | None:
    """The member that should lead next: it serves, and has the lowest ordinal (so that it is not replaced next)."""
    others = [m for m in membership.voters if m.id != leader.id and serves(observed, m)]
    return min(others, key=lambda m: m.ordinal, default=None)
