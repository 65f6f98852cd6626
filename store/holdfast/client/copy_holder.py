"""Holds a cache lease of a range at the leader, and looks for the next leader when that one is gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import grpc
import grpc.aio

from holdfast.client.calls import PAUSE_SECONDS
from holdfast.client.closed import ChannelClosed
from holdfast.client.connection import Connection
from holdfast.client.copy_lease import CopyLease
from holdfast.client.errors import ClientError, known_of
from holdfast.client.keepalive import now
from holdfast.client.position import Position
from holdfast.client.stream import Stream, abandon
from holdfast.proto import holdfast_pb2
from holdfast.status import NOT_LEADER, for_people

log = logging.getLogger("holdfast.client")

_PATH = "/holdfast.v1.Caches/Hold"
RENEWALS = 3  # for each lease
FIRST_SECONDS = 0.5  # between requests until the length of a lease is known
SILENT_SECONDS = 2.5  # without a word, after which the server is asked whether it answers at all
REFUSED_SECONDS = 5.0  # until a lease that was refused is asked for again
RELEASE_SECONDS = 0.5


class CopyHolder:
    """`given` is called with each lease's revision: the copy has to be of that revision, or a later one."""

    def __init__(self, connection: Connection, key: bytes, range_end: bytes, given: Callable[[int], None]) -> None:
        self._connection = connection
        self._range = (key, range_end)
        self._given = given
        self._lease = CopyLease(key, range_end)
        self._stream: Stream | None = None  # while there is one
        self._idle = asyncio.Event()
        self._idle.set()
        self._refused = ""  # why there is no lease; what was logged

    @property
    def position(self) -> Position | None:
        """A copy of this position or a later one is current; None if there is no lease."""
        lease = self._lease
        return Position(lease.cluster_id, lease.revision) if lease.valid(now()) else None

    def current(self, copy: Position) -> bool:
        """Whether the copy has everything that was acknowledged so far."""
        return self._lease.current(copy.revision, now(), copy.cluster_id)

    async def let_go(self) -> None:
        """Tell the leader that the copy is not used any more, so that no write waits for it."""
        self._lease.release()
        if self._stream is None:
            return
        with contextlib.suppress(TimeoutError, ChannelClosed, asyncio.InvalidStateError, grpc.aio.AioRpcError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._stream.write(holdfast_pb2.CacheHoldRequest(release=True))
                await self._idle.wait()  # the leader ends the stream

    async def run(self) -> None:
        """Keep a lease. Ends only when it is cancelled; let it go before that."""
        while True:
            pause = PAUSE_SECONDS
            try:
                for address in await self._connection.order(write=True):
                    if not await self._hold(address):
                        pause = REFUSED_SECONDS
                        break
            except ClientError:
                pass  # no address, or it does not connect: again
            await asyncio.sleep(pause)

    async def _hold(self, address: str) -> bool:
        """Hold a lease at this address for as long as possible. False: it is refused, and by other members, too."""
        who = await self._connection.who()
        request, response = holdfast_pb2.CacheHoldRequest, holdfast_pb2.CacheHoldResponse
        stream = await self._connection.stream(address, _PATH, request, response, who)
        lease = self._lease = CopyLease(*self._range)
        self._stream = stream
        self._idle.clear()
        try:
            await self._keep(stream, lease, address)
        except (ChannelClosed, asyncio.InvalidStateError):
            pass
        except grpc.aio.AioRpcError as error:
            return self._goes_on(error) or self._connection.void(who, known_of(error))
        finally:
            lease.end()
            self._stream = None
            self._idle.set()
            stream.cancel()
        return True

    def _goes_on(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether to ask the next member at once."""
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED):
            return True
        if known_of(error) == NOT_LEADER:
            return True
        reason = for_people(error.details() or error.code().name)
        if reason != self._refused:
            log.warning("no cache lease of %r: %s. Consistent reads ask the cluster meanwhile", self._range[0], reason)
            self._refused = reason
        return False

    async def _keep(self, stream: Stream, lease: CopyLease, address: str) -> None:
        heard, due = now(), 0.0
        reading = asyncio.ensure_future(stream.read())  # cancelling it would end the call
        try:
            while True:
                if now() >= due:
                    due = now() + (lease.lease / RENEWALS or FIRST_SECONDS)
                    await stream.write(lease.ask(now()))
                done, _ = await asyncio.wait((reading,), timeout=max(0.0, due - now()))
                if done:
                    response = reading.result()
                    if response is grpc.aio.EOF:
                        return
                    reading = asyncio.ensure_future(stream.read())
                    heard = now()
                    if lease.take(response):
                        due = 0.0
                    elif lease.valid(now()):
                        self._refused = ""
                        self._given(lease.revision)
                elif now() > heard + SILENT_SECONDS:
                    if not await self._connection.alive(address):
                        return
                    heard = now()
        finally:
            abandon(reading)
