"""Sessions of a coordinator, one in each cell in which its transactions have parts.

A part is prepared only while the session is there, so once it has ended no part of the coordinator can arrive any more,
and what is left of its transactions can be forgotten (`cells.janitor`). So that this does not take as long as the
coordinator lives, a session is replaced by a new one after some time.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from holdfast.cells import part_wire
from holdfast.cells.clock import now
from holdfast.cells.links import Links
from holdfast.client.errors import ClientError
from holdfast.client.lease import Lease
from holdfast.client.txn import Ops
from holdfast.tasks import Tasks

TTL = 30  # seconds
MAX_SECONDS = 60.0  # after which a session is replaced
MAX_TRANSACTIONS = 1000


@dataclass(slots=True)
class _Session:
    name: str
    lease: Lease
    opened: float
    transactions: int = 0
    in_use: int = 0

    @property
    def good(self) -> bool:
        young = now() - self.opened < MAX_SECONDS
        return self.lease.alive and young and self.transactions < MAX_TRANSACTIONS


class Sessions:
    def __init__(self, links: Links) -> None:
        self._links = links
        self._current: dict[str, _Session] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._tasks = Tasks()

    @asynccontextmanager
    async def of(self, cells: Iterable[str]) -> AsyncIterator[dict[str, str]]:
        """The sessions in these cells, for one transaction. Raises ClientError."""
        found = await asyncio.gather(*(self._taken(cell) for cell in cells), return_exceptions=True)
        taken = [session for session in found if isinstance(session, _Session)]
        try:
            for error in found:
                if isinstance(error, BaseException):
                    raise error
            yield dict(zip(cells, (session.name for session in taken), strict=True))
        finally:
            for session in taken:
                session.in_use -= 1
                self._end_if_over(session)

    async def _taken(self, cell: str) -> _Session:
        async with self._opening.setdefault(cell, asyncio.Lock()):
            session = self._current.get(cell)
            if session is None or not session.good:
                before, session = session, await self._open(cell)
                self._current[cell] = session
                if before is not None:
                    self._end_if_over(before)
            session.transactions += 1
            session.in_use += 1
            return session

    async def _open(self, cell: str) -> _Session:
        client = self._links.clients[cell]
        lease, name = await client.lease(TTL), secrets.token_hex(8)
        await client.txn().then(Ops.put(part_wire.session_key(name), b"", lease=lease.id)).commit()
        return _Session(name, lease, now())

    def _end_if_over(self, session: _Session) -> None:
        if not session.in_use and session not in self._current.values():
            self._tasks.spawn(_end(session.lease))

    async def close(self) -> None:
        for session in self._current.values():
            await _end(session.lease)
        self._tasks.cancel()


async def _end(lease: Lease) -> None:
    with contextlib.suppress(ClientError):  # it ends by itself, too
        await lease.revoke()
