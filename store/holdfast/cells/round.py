"""One round of a proposer: it learns the newest value from a quorum of cells, and has a quorum accept the next one.

A round is a value; each answer makes another one of it. It does not know how requests are sent, nor what time it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from holdfast.cells.acceptor import NOTHING, Accepted, Promise, Refused, Taken
from holdfast.cells.ballot import NONE, Ballot
from holdfast.cells.cell_set import CellSet

Change = Callable[[bytes | None], bytes]  # the next value, from the one before; None: there is none yet


class Phase(Enum):
    PREPARE = "prepare"
    ACCEPT = "accept"
    DECIDED = "decided"
    LOST = "lost"  # a proposer with a higher ballot is at work; begin another round, above `higher`


@dataclass(frozen=True, slots=True)
class Round:
    ballot: Ballot
    cells: CellSet
    phase: Phase = Phase.PREPARE
    answered: frozenset[str] = frozenset()  # in this phase
    refused: frozenset[str] = frozenset()
    newest: Accepted = NOTHING  # of the promises
    value: bytes | None = None  # what the cells are asked to accept
    higher: Ballot = NONE

    def promise(self, cell: str, answer: Promise | Refused, change: Change) -> Round:
        """The answer of a cell to `prepare`. With a quorum of promises the value is chosen; the next phase begins."""
        if self.phase is not Phase.PREPARE:
            return self  # late
        if isinstance(answer, Refused):
            return self._refuse(cell, answer)
        newest = max(self.newest, answer.accepted, key=lambda accepted: accepted.ballot)
        answered = self.answered | {cell}
        if not self.cells.is_quorum(answered):
            return replace(self, answered=answered, newest=newest)
        return replace(
            self,
            phase=Phase.ACCEPT,
            answered=frozenset(),
            refused=frozenset(),
            newest=newest,
            value=change(newest.value),
        )

    def taken(self, cell: str, answer: Taken | Refused) -> Round:
        """The answer of a cell to `accept`."""
        if self.phase is not Phase.ACCEPT:
            return self
        if isinstance(answer, Refused):
            return self._refuse(cell, answer)
        answered = self.answered | {cell}
        return replace(self, answered=answered, phase=Phase.DECIDED if self.cells.is_quorum(answered) else Phase.ACCEPT)

    def _refuse(self, cell: str, answer: Refused) -> Round:
        refused = self.refused | {cell}
        return replace(
            self,
            refused=refused,
            higher=max(self.higher, answer.promised),
            phase=self.phase if self.cells.can_be_quorum(refused) else Phase.LOST,
        )
