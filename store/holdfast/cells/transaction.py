"""Transactions between cells: all of their parts take effect, or none does.

    done = await cells.txn().at("eu").if_(client.Client.key("/stock").value == "1").then(Ops.delete("/stock")) \\
                            .at("us").then(Ops.put("/stock", "1")).commit()

The parts are prepared, the outcome is decided by a register, and the cells are told. That takes four round trips to the
cells. If the coordinator stops in between, whoever meets what it left decides, see `cells.resolver`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field

from holdfast.cells import part_wire
from holdfast.cells.clock import now
from holdfast.cells.errors import CellsUnavailable, TransactionAborted
from holdfast.cells.links import Links
from holdfast.cells.part_wire import Held, Prepared
from holdfast.cells.participant import Answer, Outcome
from holdfast.cells.resolver import Resolver
from holdfast.cells.sessions import Sessions
from holdfast.client.errors import ClientError, OutcomeUnknown
from holdfast.client.txn import Compare, Op
from holdfast.proto import cells_pb2

MAX_PARTS = 16
MAX_OPS = (
    60  # compares and writes of a part: with an intent for each, a request has less than the 128 that a cell allows
)
HELD_SECONDS = 1.0  # a transaction that holds a key for longer is resolved by whoever waits for it


@dataclass(frozen=True, slots=True)
class Result:
    """`succeeded`: whether all compares held, and all writes were made. `differs`: the cell in which one did not."""

    succeeded: bool
    differs: str = ""


@dataclass(slots=True)
class _Part:
    compares: list[Compare] = field(default_factory=list)
    writes: list[Op] = field(default_factory=list)


class CellsTxn:
    """A transaction, built step by step; nothing is sent before `commit`."""

    def __init__(self, links: Links, sessions: Sessions, resolver: Resolver, timeout: float) -> None:
        self._links = links
        self._sessions = sessions
        self._resolver = resolver
        self._timeout = timeout
        self._parts: dict[str, _Part] = {}
        self._at = ""

    def at(self, cell: str) -> CellsTxn:
        """What follows is about keys of this cell."""
        if cell not in self._links.clients:
            raise ValueError(f"{cell} is no cell; there are {', '.join(sorted(self._links.clients))}")
        self._at = cell
        self._parts.setdefault(cell, _Part())
        return self

    def if_(self, *compares: Compare) -> CellsTxn:
        for compare in compares:
            if compare.range_end:
                raise ValueError("between cells a transaction compares single keys")
        self._part.compares.extend(compares)
        return self

    def then(self, *ops: Op) -> CellsTxn:
        writes = [*self._part.writes, *part_wire.writes(list(ops))]
        twice = part_wire.written_twice(writes)
        if twice is not None:
            raise ValueError(f"{twice!r} is written twice at {self._at}")
        self._part.writes = writes
        return self

    @property
    def _part(self) -> _Part:
        if not self._at:
            raise ValueError("say at which cell first: .at(CELL)")
        return self._parts[self._at]

    async def commit(self) -> Result:
        """Raises TransactionAborted if another transaction was in the way (try again), CellsUnavailable if a cell did
        not answer and nothing was changed, and OutcomeUnknown if it cannot be said which."""
        for cell, part in self._parts.items():
            if len(part.compares) + len(part.writes) > MAX_OPS:
                raise ValueError(f"the part at {cell} has more than {MAX_OPS} compares and writes")
        if not self._parts or len(self._parts) > MAX_PARTS:
            raise ValueError(f"a transaction has parts at one cell at least, and at {MAX_PARTS} at most")
        async with self._sessions.of(sorted(self._parts)) as sessions:
            return await self._commit(sessions)

    async def _commit(self, sessions: dict[str, str]) -> Result:
        end = now() + self._timeout
        txn = secrets.token_hex(8)
        parts = self._made(txn, sessions)
        refused = await self._prepare(parts, end)
        wanted = Outcome.COMMITTED if refused is None else Outcome.ABORTED
        # Only the coordinator decides to commit, so if it does not, nothing has to be written down.
        outcome = await self._resolver.decide(txn, wanted) if refused is None else wanted
        prepared = {cell: part.SerializeToString() for cell, part in parts.items()}
        told = await self._resolver.tell(txn, outcome, sessions, prepared)
        if told is Outcome.COMMITTED:
            return Result(succeeded=True)
        if told is None and outcome is Outcome.COMMITTED:
            raise OutcomeUnknown(f"the transaction {txn} was decided, and no cell can be asked what became of it")
        return self._aborted(txn, refused)

    def _aborted(self, txn: str, refused: tuple[str, Prepared | ClientError] | None) -> Result:
        if refused is None:
            raise TransactionAborted(f"somebody took the transaction {txn} for old and aborted it; try again")
        cell, why = refused
        if isinstance(why, ClientError):
            raise CellsUnavailable(f"nothing was changed: {cell}: {why}")
        if why.answer is Answer.DIFFERS:
            return Result(succeeded=False, differs=cell)
        if why.held is not None:
            key = why.held.key.decode(errors="replace")
            raise TransactionAborted(f"nothing was changed: at {cell} the key {key} is held by another; try again")
        raise TransactionAborted(f"nothing was changed: {cell}: {why.answer.value}; try again")

    def _made(self, txn: str, sessions: dict[str, str]) -> dict[str, cells_pb2.TransactionPart]:
        begun = time.time_ns() // 1_000_000
        return {
            cell: cells_pb2.TransactionPart(
                txn=txn,
                session=session,
                cells=sessions,
                sessions=sessions.values(),
                compares=self._parts[cell].compares,
                writes=self._parts[cell].writes,
                begun=begun,
            )
            for cell, session in sessions.items()
        }

    async def _prepare(
        self, parts: dict[str, cells_pb2.TransactionPart], end: float
    ) -> tuple[str, Prepared | ClientError] | None:
        """Prepare all parts. Returns the first refusal, without waiting for other cells; None if all are prepared."""
        asked = {asyncio.ensure_future(self._prepare_at(cell, part, end)): cell for cell, part in parts.items()}
        waiting = set(asked)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    answer = task.result()
                    if isinstance(answer, ClientError) or answer.answer is not Answer.PREPARED:
                        return asked[task], answer
            return None
        finally:
            for task in waiting:
                task.cancel()

    async def _prepare_at(self, cell: str, part: cells_pb2.TransactionPart, end: float) -> Prepared | ClientError:
        patience = now() + HELD_SECONDS
        while True:
            answer = await self._links.prepare(cell, part, max(0.0, end - now()))
            if not isinstance(answer, Prepared) or answer.held is None:
                return answer
            if now() > min(patience, end):
                return await self._resolve_and_try_again(cell, part, answer.held, end)
            await asyncio.sleep(0.02)

    async def _resolve_and_try_again(
        self, cell: str, part: cells_pb2.TransactionPart, held: Held, end: float
    ) -> Prepared | ClientError:
        try:
            await self._resolver.resolve(cell, held.txn)
        except ClientError as error:
            return error
        return await self._links.prepare(cell, part, max(0.0, end - now()))
