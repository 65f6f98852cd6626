"""Which members count: the configuration that every entry of the log is decided under.

The joint form (thesis section 4.3) is on disk and on the wire from the start: `outgoing` is the old half of a
joint configuration, `learners_next` those voters of the old half that become learners when it is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from holdfast.raft.invariant import invariant


@dataclass(frozen=True, slots=True)
class ConfState:
    """A configuration. Ids are sorted, so that equal configurations are equal values."""

    voters: tuple[int, ...] = ()
    outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for group in (self.voters, self.outgoing, self.learners, self.learners_next):
            invariant(list(group) == sorted(set(group)), f"configuration not sorted: {self}")
        invariant(not set(self.voters) & set(self.learners), f"voter and learner at once: {self}")

    @property
    def joint(self) -> bool:
        return bool(self.outgoing)

    def members(self) -> tuple[int, ...]:
        """Everyone entries are sent to, in a fixed order."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def is_voter(self, member: int) -> bool:
        return member in self.voters or member in self.outgoing

    def quorum(self, agrees: Callable[[int], bool]) -> bool:
        """Whether those for whom `agrees` holds are a majority of each half."""
        return all(
            2 * sum(1 for m in half if agrees(m)) > len(half) for half in (self.voters, self.outgoing) if half
        ) and bool(self.voters)

    def committed(self, match: Mapping[int, int]) -> int:
        """The highest index (or read round) that a quorum has reached, given what each member has."""
        return min(_majority(half, match) for half in (self.voters, self.outgoing) if half)

    def with_learner(self, member: int) -> ConfState:
        invariant(member not in self.members(), f"{member:x} is already a member")
        return self._with(self.voters, (*self.learners, member))

    def with_voter(self, member: int) -> ConfState:
        invariant(not self.is_voter(member), f"{member:x} votes already")
        return self._with((*self.voters, member), tuple(m for m in self.learners if m != member))

    def without(self, member: int) -> ConfState:
        return self._with(tuple(m for m in self.voters if m != member), tuple(m for m in self.learners if m != member))

    def _with(self, voters: tuple[int, ...], learners: tuple[int, ...]) -> ConfState:
        invariant(not self.joint, "a simple change in a joint configuration")
        return ConfState(voters=tuple(sorted(voters)), learners=tuple(sorted(learners)))


def _majority(voters: tuple[int, ...], match: Mapping[int, int]) -> int:
    reached = sorted((match.get(m, 0) for m in voters), reverse=True)
    return reached[len(voters) // 2]
