"""Sessions of a coordinator, one in each cell in which its transactions have parts.

A part is prepared only while the session is there, so once it has ended no part of the coordinator can arrive any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets

from holdfast.cells import part_wire
from holdfast.cells.links import Links
from holdfast.client.errors import ClientError
from holdfast.client.lease import Lease
from holdfast.client.txn import Ops

TTL = 30  # seconds


class Sessions:
    def __init__(self, links: Links) -> None:
        self._links = links
        self._leases: dict[str, tuple[Lease, str]] = {}
        self._opening = asyncio.Lock()

    async def of(self, cell: str) -> str:
        """The session in this cell, which is opened if there is none. Raises ClientError."""
        async with self._opening:
            known = self._leases.get(cell)
            if known is not None and known[0].alive:
                return known[1]
            client = self._links.clients[cell]
            lease, session = await client.lease(TTL), secrets.token_hex(8)
            await client.txn().then(Ops.put(part_wire.session_key(session), b"", lease=lease.id)).commit()
            self._leases[cell] = lease, session
            return session

    async def close(self) -> None:
        for lease, _ in self._leases.values():
            with contextlib.suppress(ClientError):  # it ends by itself, too
                await lease.revoke()
