"""Which members count: the configuration that every entry of the log is decided under.

A change of voters goes through a *joint* configuration (thesis section 4.3): until the entry that leaves it, decisions
need a majority of the old half (`outgoing`) and of the new one (`voters`), so no two decisions can be made by quorums
that do not meet, however many members change at once. Learners count nowhere, so they come and go in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from holdfast.raft.invariant import invariant
from holdfast.raft.log import Entry


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
        """Everyone entries are sent to, in a fixed order."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def is_voter(self, member: int) -> bool:
        return member in self.voters or member in self.outgoing

    def quorum(self, agrees: Callable[[int], bool]) -> bool:
        """Whether those for whom `agrees` holds are a majority of each half."""
        return _most(self.voters, agrees) and (not self.outgoing or _most(self.outgoing, agrees))

    def committed(self, match: Mapping[int, int]) -> int:
        """The highest index (or read round) that a quorum has reached, given what each member has."""
        reached = _majority(self.voters, match)
        return min(reached, _majority(self.outgoing, match)) if self.outgoing else reached

    def changed(self, voters: Iterable[int], learners: Iterable[int]) -> ConfState:
        """What leads from here to these members: themselves if no quorum changes, a joint configuration otherwise."""
        invariant(not self.joint, f"a change of a joint configuration: {self}")
        new, passive = tuple(sorted(voters)), set(learners)
        invariant(bool(new), "a configuration without voters")
        if new == self.voters:
            return ConfState(voters=new, learners=tuple(sorted(passive)))
        waiting = passive & set(self.voters)
        return ConfState(new, self.voters, tuple(sorted(passive - waiting)), tuple(sorted(waiting)))

    def left(self) -> ConfState:
        """What a joint configuration ends as."""
        invariant(self.joint, f"leaving what is not joint: {self}")
        return ConfState(voters=self.voters, learners=tuple(sorted({*self.learners, *self.learners_next})))


def _most(half: tuple[int, ...], agrees: Callable[[int], bool]) -> bool:
    return 2 * sum(1 for member in half if agrees(member)) > len(half)


def _majority(voters: tuple[int, ...], match: Mapping[int, int]) -> int:
    reached = sorted([match.get(m, 0) for m in voters], reverse=True)
    return reached[len(voters) // 2] if reached else 0


class Configurations:
    """Configurations by the index of the entry that made each. The last one is in force as soon as it is in the log
    (thesis section 4.1), committed or not; cutting the log's end brings the one before back."""

    def __init__(self, index: int, conf: ConfState, entries: Iterable[Entry] = ()) -> None:
        self._made: list[tuple[int, ConfState]] = [(index, conf)]
        self.append(entries)

    @property
    def current(self) -> ConfState:
        return self._made[-1][1]

    @property
    def index(self) -> int:
        return self._made[-1][0]

    def at(self, index: int) -> tuple[int, ConfState]:
        """The configuration in force at `index`, and where it was made."""
        for made, conf in reversed(self._made):
            if made <= index:
                return made, conf
        raise AssertionError(f"no configuration at {index}: the oldest known is of {self._made[0][0]}")

    def since(self, index: int) -> list[int]:
        """Where configurations after `index` were made."""
        return [made for made, _ in self._made if made > index]

    def append(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.conf is not None and entry.index > self._made[-1][0]:
                self._made.append((entry.index, entry.conf))

    def truncate(self, start: int) -> None:
        """The entries from `start` on are gone."""
        while self._made[-1][0] >= start:
            self._made.pop()

    def compact(self, index: int) -> None:
        """Nobody asks for what was in force before `index`."""
        while len(self._made) > 1 and self._made[1][0] <= index:
            del self._made[0]

    def reset(self, index: int, conf: ConfState) -> None:
        self._made = [(index, conf)]
