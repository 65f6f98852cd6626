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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from holdfast.cells import part_wire
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
MAX_OPS = 64  # compares and writes of a part
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
        self._part.writes.extend(part_wire.writes(list(ops)))
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
        end = time.monotonic() + self._timeout
        txn = secrets.token_hex(8)
        parts = await self._made(txn)
        refused = await self._prepare(parts, end)
        wanted = Outcome.COMMITTED if refused is None else Outcome.ABORTED
        # Only the coordinator decides to commit, so if it does not, nothing has to be written down.
        outcome = await self._resolver.decide(txn, wanted) if refused is None else wanted
        told = await self._resolver.tell(txn, outcome, {cell: part.SerializeToString() for cell, part in parts.items()})
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

    async def _made(self, txn: str) -> dict[str, cells_pb2.TransactionPart]:
        cells = sorted(self._parts)
        sessions = await asyncio.gather(*(self._sessions.of(cell) for cell in cells))
        return {
            cell: cells_pb2.TransactionPart(
                txn=txn,
                session=session,
                cells=cells,
                compares=self._parts[cell].compares,
                writes=self._parts[cell].writes,
            )
            for cell, session in zip(cells, sessions, strict=True)
        }

    async def _prepare(
        self, parts: dict[str, cells_pb2.TransactionPart], end: float
    ) -> tuple[str, Prepared | ClientError] | None:
        """Prepare all parts. Returns the first refusal; None if all are prepared."""
        answers = await asyncio.gather(*(self._prepare_at(cell, part, end) for cell, part in parts.items()))
        return next(_refusals(parts, answers), None)

    async def _prepare_at(self, cell: str, part: cells_pb2.TransactionPart, end: float) -> Prepared | ClientError:
        patience = time.monotonic() + HELD_SECONDS
        while True:
            answer = await self._links.prepare(cell, part, max(0.0, end - time.monotonic()))
            if not isinstance(answer, Prepared) or answer.held is None:
                return answer
            if time.monotonic() > min(patience, end):
                return await self._resolve_and_try_again(cell, part, answer.held, end)
            await asyncio.sleep(0.02)

    async def _resolve_and_try_again(
        self, cell: str, part: cells_pb2.TransactionPart, held: Held, end: float
    ) -> Prepared | ClientError:
        try:
            await self._resolver.resolve(cell, held.txn)
        except ClientError as error:
            return error
        return await self._links.prepare(cell, part, max(0.0, end - time.monotonic()))


def _refusals(
    parts: Iterable[str], answers: Iterable[Prepared | ClientError]
) -> Iterator[tuple[str, Prepared | ClientError]]:
    for cell, answer in zip(parts, answers, strict=True):
        if isinstance(answer, ClientError) or answer.answer is not Answer.PREPARED:
            yield cell, answer
