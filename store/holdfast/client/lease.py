"""Leases that are kept alive in the background until they are revoked or the client is closed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import TracebackType

import grpc
import grpc.aio

from holdfast.client.calls import CONNECT_SECONDS, PAUSE_SECONDS
from holdfast.client.connection import Connection
from holdfast.client.errors import ClientError, known_of
from holdfast.proto import rpc_pb2


def now() -> float:
    """Seconds on a clock that goes on while the machine is suspended, as the server's does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Lease:
    """A lease. Pass `id` to puts. `alive` becomes false, permanently, once the lease may have expired."""

    def __init__(self, connection: Connection, id: int, ttl: int, asked: float) -> None:
        """`asked`: `now` before the request that granted it was sent. The server may have begun to count right then."""
        self._connection = connection
        self.id = id
        self.ttl = ttl
        self._good_until = asked + ttl
        self._lost = False
        self._task = asyncio.ensure_future(self._keep_alive())

    @property
    def alive(self) -> bool:
        return not self._lost and now() < self._good_until

    def ended(self, tell: Callable[[Lease], None]) -> None:
        """Call `tell` once nothing keeps this lease alive any more."""
        self._task.add_done_callback(lambda _: tell(self))

    async def revoke(self, timeout: float | None = None) -> None:
        """Revoke the lease now; the keys attached to it are deleted."""
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
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def __aenter__(self) -> Lease:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ClientError):  # the lease expires by itself
            await self.revoke()

    async def _keep_alive(self) -> None:
        """Renew the lease three times per TTL, at any endpoint that answers."""
        while True:
            for address in await self._connection.order(stream=True):
                try:
                    channel = await self._connection.ready(address, CONNECT_SECONDS)
                    who = await self._connection.who()
                except ClientError:
                    continue
                call = channel.stream_stream(
                    "/etcdserverpb.Lease/LeaseKeepAlive",
                    request_serializer=rpc_pb2.LeaseKeepAliveRequest.SerializeToString,
                    response_deserializer=rpc_pb2.LeaseKeepAliveResponse.FromString,
                )(metadata=who)
                try:
                    if await self._renew(call):
                        return
                except grpc.aio.AioRpcError as error:
                    self._connection.void(who, known_of(error))
                except (asyncio.InvalidStateError, TimeoutError):
                    pass  # the stream has ended: the next endpoint
                finally:
                    call.cancel()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _renew(self, call: grpc.aio.StreamStreamCall) -> bool:
        """Renew until the stream ends (False) or the lease is gone (True)."""
        while True:
            asked = now()
            async with asyncio.timeout(max(1.0, self.ttl / 3)):
                await call.write(rpc_pb2.LeaseKeepAliveRequest(ID=self.id))
                answer = await call.read()
            if answer is grpc.aio.EOF:
                return False
            if answer.TTL <= 0:
                self._lost = True
                return True
            self._good_until = asked + answer.TTL
            await asyncio.sleep(answer.TTL / 3)
