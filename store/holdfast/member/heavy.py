"""Proposals that make every member look at many rows: a few at a time are in the log, and connections take turns.

A log entry is applied in one go, and in the order of the log. If a client could put two hundred such commands into the
log at once, everybody's next write would wait until all of them are applied.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from holdfast.member.interface import Propose
from holdfast.turns import Turns

LIGHT = 200  # rows: a proposal up to this cost never waits
AT_A_TIME = 5000  # rows: the cost of those that are under way together; one may exceed it


class HeavyProposals:
    """`give` hands a proposal to the core. It returns False if it did not, because the deadline has passed."""

    def __init__(self, give: Callable[[Propose], bool]) -> None:
        self._give = give
        self._waiting: Turns[tuple[Propose, int]] = Turns()
        self._under_way: dict[int, int] = {}  # proposals given to the core and not answered yet: id -> cost
        self._cost = 0  # of those

    def propose(self, proposal: Propose, cost: int, owner: Hashable) -> None:
        """`cost`: rows that each member looks at and writes when it applies this, at most."""
        self._waiting.add(owner, proposal.id, (proposal, cost))
        self._go_on()

    def answered(self, id: int) -> None:
        """A proposal was answered; it need not be a heavy one."""
        cost = self._under_way.pop(id, None)
        if cost is not None:
            self._cost -= cost
            self._go_on()

    def withdraw(self, owner: Hashable, id: int) -> bool:
        """Drop a proposal that still waits here. Returns whether it did."""
        return self._waiting.remove(owner, id)

    def _go_on(self) -> None:
        while self._waiting and self._cost < AT_A_TIME:
            _, id, (proposal, cost) = self._waiting.next()
            if self._give(proposal):
                self._under_way[id] = cost
                self._cost += cost
