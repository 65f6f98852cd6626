"""Configurations and their quorums: which members vote, and what a majority of them has reached.

A change of voters goes through a *joint* configuration (thesis section 4.3): until the entry that leaves it, decisions
need a majority of the old half (`outgoing`) and of the new one (`voters`), so any two quorums overlap, however many
members change at once. Learners never count, so they are added and removed in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from holdfast.raft.invariant import invariant


@dataclass(frozen=True, slots=True)
class ConfState:
    """A configuration. Ids are sorted, so that equal configurations are equal values.

    `learners_next` are voters of the old half that become learners when the joint configuration is left: a member is
    never voter and learner at once.
    """

    voters: tuple[int, ...] = ()
    outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for group in (self.voters, self.outgoing, self.learners, self.learners_next):
            invariant(list(group) == sorted(set(group)), f"configuration not sorted: {self}")
        voting = {*self.voters, *self.outgoing}
        invariant(not voting & set(self.learners), f"voter and learner at once: {self}")
        invariant(not set(self.voters) & set(self.learners_next), f"kept and demoted at once: {self}")
        invariant(set(self.learners_next) <= set(self.outgoing), f"demoted without having voted: {self}")

    @property
    def joint(self) -> bool:
        return bool(self.outgoing)

    def members(self) -> tuple[int, ...]:
        """All members that entries are replicated to, in a fixed order."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def is_voter(self, member: int) -> bool:
        return member in self.voters or member in self.outgoing

    def quorum(self, agrees: Callable[[int], bool]) -> bool:
        """Whether the voters for which `agrees` is true are a majority of each half."""
        return _most(self.voters, agrees) and (not self.outgoing or _most(self.outgoing, agrees))

    def committed(self, match: Mapping[int, int]) -> int:
        """The highest index (or round, or time) that a quorum has reached, given each member's in `match`."""
        reached = _majority(self.voters, match)
        return min(reached, _majority(self.outgoing, match)) if self.outgoing else reached

    def changed(self, voters: Iterable[int], learners: Iterable[int]) -> ConfState:
        """The next configuration on the way to these members: theirs if the voters stay the same, else a joint one."""
        invariant(not self.joint, f"a change of a joint configuration: {self}")
        new, passive = tuple(sorted(voters)), set(learners)
        invariant(bool(new), "a configuration without voters")
        if new == self.voters:
            return ConfState(voters=new, learners=tuple(sorted(passive)))
        waiting = passive & set(self.voters)
        return ConfState(new, self.voters, tuple(sorted(passive - waiting)), tuple(sorted(waiting)))

    def left(self) -> ConfState:
        """The configuration that follows this joint one."""
        invariant(self.joint, f"leaving what is not joint: {self}")
        return ConfState(voters=self.voters, learners=tuple(sorted({*self.learners, *self.learners_next})))


def _most(half: tuple[int, ...], agrees: Callable[[int], bool]) -> bool:
    return 2 * sum(1 for member in half if agrees(member)) > len(half)


def _majority(voters: tuple[int, ...], match: Mapping[int, int]) -> int:
    reached = sorted([match.get(m, 0) for m in voters], reverse=True)
    return reached[len(voters) // 2] if reached else 0
