"""Brings transactions to their end that somebody has begun: decides, tells the cells, and forgets what is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from holdfast.cells import part_wire
from holdfast.cells.clock import now
from holdfast.cells.decision import decide, decided
from holdfast.cells.links import Links
from holdfast.cells.participant import Outcome
from holdfast.cells.register import Register
from holdfast.client.errors import ClientError

TELL_SECONDS = 0.5  # that a coordinator waits for the other cells once one has its outcome
DECISION = "decision."  # and the transaction: the name of the register


class Resolver:
    """`register` gives the register of a name."""

    def __init__(self, links: Links, register: Callable[[str], Register], timeout: float) -> None:
        self._links = links
        self._register = register
        self._timeout = timeout
        self._told: set[asyncio.Task[Outcome | None]] = set()

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
        if none of them knows. Once one of them has said it, cells that are slow are told in the background."""
        waiting = {self._telling(cell, txn, outcome, sessions, parts.get(cell)) for cell in sorted(sessions)}
        end = now() + TELL_SECONDS
        known: Outcome | None = None
        while waiting:
            left = None if known is None else max(0.0, end - now())
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            known = next((found for task in done if (found := task.result()) is not None), known)
        return known

    def _telling(
        self, cell: str, txn: str, outcome: Outcome, sessions: Mapping[str, str], part: bytes | None
    ) -> asyncio.Task[Outcome | None]:
        task = asyncio.ensure_future(self._tell(cell, txn, outcome, sessions, part))
        self._told.add(task)
        task.add_done_callback(self._told.discard)
        return task

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
        sessions = part_wire.sessions_in(mark)
        here = self._telling(cell, txn, outcome, sessions, mark)
        for other in sorted(sessions.keys() - {cell}):  # which may be away, and nobody waits for them
            self._telling(other, txn, outcome, sessions, None)
        await here
        return outcome

    async def close(self) -> None:
        """Whoever was not told yet is told by others."""
        for task in list(self._told):
            task.cancel()
