"""Client sessions make writes take effect once, however often they are sent: each has a name that all members know.

A session is a lease at the cluster, opened with the first write and kept alive; the cluster keeps the answers to its
newest commands. If the server has no sessions (etcd), each write is sent only once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdfast.client.connection import Connection
from holdfast.client.errors import ClientError, NotImplementedThere, Refused
from holdfast.client.keepalive import now
from holdfast.client.lease import Lease
from holdfast.client.login import Metadata
from holdfast.proto import holdfast_pb2
from holdfast.status import NO_SPACE

MAX_OUTSTANDING = 64  # concurrent writes: the number of answers that the cluster keeps
END_SECONDS = 1.0


class Session:
    """The session of one client. `ttl` in seconds; 0: no session, writes are not named."""

    def __init__(self, connection: Connection, ttl: int) -> None:
        self._connection = connection
        self._ttl = ttl
        self._lease: Lease | None = None
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(MAX_OUTSTANDING)
        self._seq = 0
        self._waiting: set[int] = set()
        self._barriers: dict[int, asyncio.Event] = {}  # set when no smaller number is waited for

    @property
    def numbered(self) -> bool:
        """Whether writes are named. Known once the first was made."""
        return self._ttl > 0

    @property
    def open(self) -> bool:
        return self._lease is not None and self._lease.alive

    @asynccontextmanager
    async def name(self, *, barrier: bool = False) -> AsyncIterator[Metadata | None]:
        """The name of one write, as metadata, until the write is done; None if there is no session. `barrier`: wait
        until no write that was begun before is waited for any more. What was given up of these cannot take effect
        after this write."""
        lease = await self._opened()
        if lease is None:
            yield None
            return
        async with self._slots:
            self._seq += 1
            seq = self._seq
            self._waiting.add(seq)
            try:
                if barrier:
                    await self._alone(seq)
                low = min(self._waiting)
                yield (
                    ("holdfast-session", str(lease.id)),
                    ("holdfast-seq", str(seq)),
                    ("holdfast-low", str(low)),
                )
            finally:
                self._waiting.discard(seq)
                if self._barriers:
                    self._open_barrier()

    async def _alone(self, seq: int) -> None:
        """Wait until no smaller number is waited for."""
        opens = self._barriers[seq] = asyncio.Event()
        try:
            self._open_barrier()
            await opens.wait()
        finally:
            del self._barriers[seq]

    def _open_barrier(self) -> None:
        if self._waiting and (opens := self._barriers.get(min(self._waiting))) is not None:
            opens.set()

    async def _opened(self) -> Lease | None:
        if self._lease is not None and self._lease.alive:
            return self._lease
        async with self._opening:
            if self._lease is not None and self._lease.alive:
                return self._lease
            if not self._ttl:
                return None
            await self.forget()
            asked = now()
            try:
                opened = await self._connection.call(
                    "/holdfast.v1.Session/Open",
                    holdfast_pb2.SessionOpenRequest(ttl_seconds=self._ttl),
                    holdfast_pb2.SessionOpenResponse,
                    idempotent=True,  # an unused session expires
                )
            except NotImplementedThere:
                self._ttl = 0
                return None
            except Refused as error:
                if error.known != NO_SPACE:
                    raise
                return None  # deletes free space, so they must be possible without a session
            self._lease = Lease(self._connection, opened.id, opened.ttl_seconds, asked)
            return self._lease

    async def forget(self) -> None:
        """Drop a session that has ended at the cluster; the next write opens a new one."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.release()

    async def end(self) -> None:
        """End the session, and revoke it at the cluster if that answers within END_SECONDS; otherwise it expires."""
        lease, self._lease = self._lease, None
        if lease is not None:
            with contextlib.suppress(ClientError):
                await lease.revoke(END_SECONDS)
