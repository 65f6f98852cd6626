"""The parsing of all sets of flags of a server, in turns of the loop.

One write can change many sets: selectors may name prefixes of each other. A bound for each set would allow a turn that
grows with the number of sets, and heartbeats, reads and writes would wait for it. So all sets share one queue and one
bound. The connections that asked for the sets take turns, so one that follows many sets delays only itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Protocol

from holdfast.turns import Turns

# See `FlagSet.take`. A definition or a document that exceeds it takes the turns that follow, too.
COST_PER_TURN = 32 << 10
COST_PER_SET = 4 << 10  # of a turn, before the next connection is served


class Work(Protocol):
    def advance(self, budget: int, /) -> int:
        """Go on until the cost reaches `budget` or nothing is left to do, and return the cost, at least 1. Add itself
        to the queue again if work is left. Does not raise."""
        ...


class ParsingTurns:
    """The queue. `id` is unique among all work."""

    def __init__(self) -> None:
        self._waiting: Turns[Work] = Turns()
        self._scheduled = False
        self._left = 0  # negative: so much more than its share was parsed

    def add(self, owner: Hashable, id: int, work: Work) -> None:
        self._waiting.add(owner, id, work)
        self._schedule()

    def remove(self, owner: Hashable, id: int) -> None:
        self._waiting.remove(owner, id)

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._left = min(self._left, 0) + COST_PER_TURN
        try:
            while self._waiting and self._left > 0:
                _, _, work = self._waiting.next()
                self._left -= work.advance(min(self._left, COST_PER_SET))
        finally:
            self._scheduled = False
            self._schedule()
