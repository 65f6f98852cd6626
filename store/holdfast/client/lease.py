"""Leases that are kept alive in the background until they are revoked or the client is closed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType

from holdfast.client import forks
from holdfast.client.connection import Connection
from holdfast.client.errors import ClientError
from holdfast.client.keepalive import now
from holdfast.proto import rpc_pb2


class Lease:
    """A lease. Pass `id` to puts. `alive` becomes false, permanently, once the lease may have expired."""

    def __init__(self, connection: Connection, id: int, ttl: int, asked: float) -> None:
        """`asked`: `now` before the request that granted it was sent. The server may have begun to count right then."""
        self._connection = connection
        self._generation = forks.generation
        self.id = id
        self.ttl = ttl
        self._good_until = asked + ttl
        self._lost = False
        self._tell: Callable[[Lease], None] | None = None
        connection.keep_alives.add(id, ttl, asked, self._renewed)

    def _renewed(self, asked: float, ttl: float) -> None:
        if ttl <= 0:
            self._end()
        else:
            self._good_until = max(self._good_until, asked + ttl)

    def check(self) -> None:
        """Raises Forked if the lease is that of the process that this one was forked from."""
        forks.check(self._generation)

    @property
    def alive(self) -> bool:
        return not self._lost and now() < self._good_until

    def ended(self, tell: Callable[[Lease], None]) -> None:
        """Call `tell` once nothing keeps this lease alive any more."""
        self._tell = tell

    def _end(self) -> None:
        self._lost = True
        self._released()

    def _released(self) -> None:
        if self._tell is not None:
            self._tell(self)

    async def revoke(self, timeout: float | None = None) -> None:
        """Revoke the lease now; the keys attached to it are deleted."""
        self.check()
        await self.release()
        self._lost = True
        await self._connection.call(
            "/etcdserverpb.Lease/LeaseRevoke",
            rpc_pb2.LeaseRevokeRequest(ID=self.id),
            rpc_pb2.LeaseRevokeResponse,
            idempotent=True,
            timeout=timeout,
        )

    async def release(self) -> None:
        """Stop keeping the lease alive; it expires after its TTL."""
        self._connection.keep_alives.remove(self.id)
        self._released()

    async def __aenter__(self) -> Lease:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ClientError):  # the lease expires by itself
            await self.revoke()
