"""Writes that are done once, however often they are sent: each has a name that any member knows it by again.

A session is a lease at the cluster, opened with the first write and kept alive; the cluster keeps the answers to its
newest commands. A server that knows no sessions (etcd) says so, and writes are then sent once only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdfast.client.connection import Connection
from holdfast.client.errors import ClientError, NotImplementedThere
from holdfast.client.lease import Lease
from holdfast.client.login import Metadata
from holdfast.proto import holdfast_pb2

MAX_OUTSTANDING = 64  # as many answers as the cluster keeps
END_SECONDS = 1.0


class Session:
    """The session of one client. `ttl` in seconds, 0 = none: writes are not named."""

    def __init__(self, connection: Connection, ttl: int) -> None:
        self._connection = connection
        self._ttl = ttl
        self._lease: Lease | None = None
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(MAX_OUTSTANDING)
        self._seq = 0
        self._waiting: set[int] = set()

    @asynccontextmanager
    async def name(self) -> AsyncIterator[Metadata | None]:
        """The name of one write while it is under way; None if there are no sessions here."""
        lease = await self._opened()
        if lease is None:
            yield None
            return
        async with self._slots:
            self._seq += 1
            seq = self._seq
            self._waiting.add(seq)
            low = min(self._waiting)
            try:
                yield (
                    ("holdfast-session", str(lease.id)),
                    ("holdfast-seq", str(seq)),
                    ("holdfast-low", str(low)),
                )
            finally:
                self._waiting.discard(seq)

    async def _opened(self) -> Lease | None:
        if self._lease is not None and self._lease.alive:
            return self._lease
        async with self._opening:
            if self._lease is not None and self._lease.alive:
                return self._lease
            if not self._ttl:
                return None
            await self.forget()
            try:
                opened = await self._connection.call(
                    "/holdfast.v1.Session/Open",
                    holdfast_pb2.SessionOpenRequest(ttl_seconds=self._ttl),
                    holdfast_pb2.SessionOpenResponse,
                    idempotent=True,  # one opened in vain ends by itself
                )
            except NotImplementedThere:
                self._ttl = 0
                return None
            self._lease = Lease(self._connection, opened.id, opened.ttl_seconds)
            return self._lease

    async def forget(self) -> None:
        """The session has ended at the cluster: the next write opens another."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.release()

    async def end(self) -> None:
        """End it at the cluster, too, if that can be reached at once; else it ends when its time is over."""
        lease, self._lease = self._lease, None
        if lease is not None:
            with contextlib.suppress(ClientError):
                await lease.revoke(END_SECONDS)
