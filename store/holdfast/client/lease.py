"""Leases that are kept alive in the background until they are revoked or the client is closed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType

import grpc
import grpc.aio

from holdfast.client.connection import CONNECT_SECONDS, PAUSE_SECONDS, Connection
from holdfast.client.errors import ClientError, known_of
from holdfast.proto import rpc_pb2


class Lease:
    """A lease. Pass `id` to puts. `alive` becomes false, permanently, once the lease may have expired."""

    def __init__(self, connection: Connection, id: int, ttl: int) -> None:
        self._connection = connection
        self.id = id
        self.ttl = ttl
        self._good_until = time.monotonic() + ttl
        self._lost = False
        self._task = asyncio.ensure_future(self._keep_alive())

    @property
    def alive(self) -> bool:
        return not self._lost and time.monotonic() < self._good_until

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
            for endpoint in self._connection.rotation():
                try:
                    channel = await self._connection.ready(endpoint, CONNECT_SECONDS)
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
            asked = time.monotonic()
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
