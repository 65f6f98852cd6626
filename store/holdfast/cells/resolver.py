"""Brings transactions to their end that somebody has begun: decides, tells the cells, and forgets what is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from holdfast.cells import part_wire
from holdfast.cells.decision import decide, decided
from holdfast.cells.links import Links
from holdfast.cells.participant import Outcome
from holdfast.cells.register import Register
from holdfast.client.errors import ClientError

DECISION = "decision."  # and the transaction: the name of the register


class Resolver:
    """`register` gives the register of a name."""

    def __init__(self, links: Links, register: Callable[[str], Register], timeout: float) -> None:
        self._links = links
        self._register = register
        self._timeout = timeout

    async def decide(self, txn: str, wanted: Outcome) -> Outcome:
        """The outcome of the transaction, which is `wanted` if nobody has decided before. Raises CellsUnavailable or
        OutcomeUnknown."""
        value = await self._register(DECISION + txn).change(decide(wanted))
        return decided(value or b"")

    async def tell(
        self, txn: str, outcome: Outcome, sessions: Mapping[str, str], parts: Mapping[str, bytes]
    ) -> Outcome | None:
        """Tell all cells that have a part. `sessions`: of the coordinator, in each of them. `parts`: what they have if
        they are prepared, of those that need not be asked. Returns what they say has become of the transaction; None
        if none of them knows."""
        told = await asyncio.gather(*(self._tell(cell, txn, outcome, sessions, parts.get(cell)) for cell in sessions))
        return next((found for found in told if found is not None), None)

    async def _tell(
        self, cell: str, txn: str, outcome: Outcome, sessions: Mapping[str, str], part: bytes | None
    ) -> Outcome | None:
        """A cell that is not reached is told by whoever meets the intents there."""
        try:
            return await self._links.resolve(cell, txn, outcome, sessions, self._timeout, part)
        except ClientError:
            return None

    async def resolve(self, cell: str, txn: str) -> Outcome | None:
        """Bring a transaction to its end that this cell has a part of: it is aborted, unless it was decided to commit.
        Returns None if it is over."""
        mark = await self._links.mark(cell, txn, self._timeout)
        if not mark or part_wire.is_outcome(mark) is not None:
            return None
        outcome = await self.decide(txn, Outcome.ABORTED)
        await self.tell(txn, outcome, part_wire.sessions_in(mark), {cell: mark})
        return outcome
