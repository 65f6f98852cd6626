"""Brings to an end what coordinators have left, and removes what is over. Any number of processes may do it.

A transaction leaves marks in its cells, and its decision in a register. They are needed until nobody can ask for them:

1. A mark that was open for OLD_SECONDS, by this clock, is resolved, as by anybody who meets its intents.
2. A transaction *is over* once no cell has an open part of it, and the sessions of its coordinator have ended in all
   cells that it has parts in, so that none can arrive. Both stay as they are.
3. What is over loses its decision in all cells first, and then its marks. So a decision without any mark is garbage:
   somebody who was late has made it anew.

The last needs an answer of every cell. While one is away nothing is forgotten.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from holdfast.cells import part_wire, wire
from holdfast.cells.clock import now
from holdfast.cells.errors import CellsUnavailable
from holdfast.cells.links import Links
from holdfast.cells.resolver import DECISION, Resolver
from holdfast.client.errors import ClientError, OutcomeUnknown
from holdfast.proto import rpc_pb2

log = logging.getLogger("holdfast.cells")

OLD_SECONDS = 5.0
PAUSE_SECONDS = 5.0
AT_ONCE = 50  # transactions in one request

Marks = dict[str, dict[str, bytes]]  # transaction -> cell -> mark


class _Forget(Protocol):
    def __call__(self, identity: bytes, names: Iterable[str]) -> rpc_pb2.TxnRequest: ...


class Swept(NamedTuple):
    """`resolved`: transactions that were brought to an end. `forgotten`: those of which nothing is left."""

    resolved: int
    forgotten: int


class Janitor:
    def __init__(self, links: Links, resolver: Resolver, timeout: float) -> None:
        self._links = links
        self._resolver = resolver
        self._timeout = timeout
        self._open_since: dict[tuple[str, str], float] = {}  # cell and transaction: when it was seen first

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
            except (ClientError, OutcomeUnknown) as error:
                log.warning("transactions between cells are not cleared away: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)

    async def sweep(self) -> Swept:
        """Raises CellsUnavailable if a cell does not answer: then what could be resolved was, and nothing forgotten."""
        cells = sorted(self._links.clients)
        # In this order: what has no mark in the second answer had ended when the first one was given.
        before = await asyncio.gather(*(self._sessions_and_decisions(cell) for cell in cells), return_exceptions=True)
        found = await asyncio.gather(*(self._marks(cell) for cell in cells), return_exceptions=True)
        marks: Marks = {}
        for cell, of in zip(cells, found, strict=True):
            if not isinstance(of, BaseException):
                for txn, mark in of.items():
                    marks.setdefault(txn, {})[cell] = mark
        resolved = await self._resolve_old(marks)
        for cell, answer in zip((*cells, *cells), (*before, *found), strict=True):
            if isinstance(answer, BaseException):
                if not isinstance(answer, ClientError):
                    raise answer
                raise CellsUnavailable(f"nothing can be forgotten without {cell}: {answer}")
        known = dict(zip(cells, (answer for answer in before if not isinstance(answer, BaseException)), strict=True))
        return Swept(resolved, await self._forget(known, marks))

    # ---- what is there -------------------------------------------------------------------------------------

    async def _sessions_and_decisions(self, cell: str) -> tuple[set[str], set[str]]:
        sessions = {key.removeprefix(part_wire.SESSIONS) async for key, _ in self._links.rows(cell, part_wire.SESSIONS)}
        registers = self._links.rows(cell, wire.REGISTERS + DECISION.encode())
        decisions = {wire.register_of(key) async for key, _ in registers}
        return {session.decode() for session in sessions}, {name.removeprefix(DECISION) for name in decisions}

    async def _marks(self, cell: str) -> dict[str, bytes]:
        rows = self._links.rows(cell, part_wire.TRANSACTIONS)
        return {key.removeprefix(part_wire.TRANSACTIONS).decode(): mark async for key, mark in rows}

    # ---- what is old ---------------------------------------------------------------------------------------

    async def _resolve_old(self, marks: Marks) -> int:
        time = now()
        open_now = [
            (cell, txn) for txn, of in marks.items() for cell, mark in of.items() if part_wire.is_outcome(mark) is None
        ]
        self._open_since = {at: self._open_since.get(at, time) for at in open_now}
        old = [(txn, cell) for (cell, txn), since in self._open_since.items() if time - since >= OLD_SECONDS]
        some = dict(random.sample(old, min(len(old), AT_ONCE)))  # not always those that cannot be resolved
        tasks = (self._resolver.resolve(cell, txn) for txn, cell in some.items())
        done = 0
        for answer in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(answer, BaseException) and not isinstance(answer, ClientError | OutcomeUnknown):
                raise answer
            done += answer is not None and not isinstance(answer, BaseException)
        return done

    # ---- what is over --------------------------------------------------------------------------------------

    async def _forget(self, known: Mapping[str, tuple[set[str], set[str]]], marks: Marks) -> int:
        sessions = {cell: alive for cell, (alive, _) in known.items()}
        decided = set().union(*(decisions for _, decisions in known.values()))
        over = [txn for txn, of in marks.items() if _is_over(of, sessions)]
        needless = sorted((decided & set(over)) | (decided - marks.keys()))
        await self._everywhere(known, [DECISION + txn for txn in needless], wire.forget)
        for cell in known:
            await self._everywhere([cell], [txn for txn in over if cell in marks[txn]], part_wire.forget)
        return len(over)

    async def _everywhere(self, cells: Iterable[str], names: list[str], request: _Forget) -> None:
        for first in range(0, len(names), AT_ONCE):
            some = functools.partial(request, names=names[first : first + AT_ONCE])
            await asyncio.gather(*(self._links.tell(cell, some, self._timeout) for cell in cells))


def _is_over(marks: Mapping[str, bytes], alive: Mapping[str, set[str]]) -> bool:
    """`alive`: the sessions in each cell, as they were before the marks were read."""
    if any(part_wire.is_outcome(mark) is None for mark in marks.values()):
        return False
    sessions = part_wire.sessions_in(next(iter(marks.values())))
    return all(cell in alive and session not in alive[cell] for cell, session in sessions.items())
