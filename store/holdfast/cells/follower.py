"""Reads the Follow stream of a cell: of any of its servers that answers.

A server that is silent is asked by probes, and left if it answers none. What is not taken yet is bounded: then no more
is read, and the server is held up by gRPC's flow control.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

import grpc.aio

from holdfast.cells.clock import now
from holdfast.client.closed import ChannelClosed
from holdfast.client.connection import Connection
from holdfast.client.errors import ClientError, Unavailable, refused
from holdfast.client.stream import Stream, abandon
from holdfast.proto import holdfast_pb2
from holdfast.status import for_people

_PATH = "/holdfast.v1.Edge/Follow"
PROBE_SECONDS = 2.0
SILENT_SECONDS = 10.0
MAX_BYTES = 4 << 20  # of frames that nobody has taken yet


class Follower:
    """An asynchronous context manager: the stream ends with it."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._stream: Stream | None = None
        self._reading: asyncio.Task[None] | None = None
        self._frames: deque[holdfast_pb2.FollowResponse] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._probe = 0

    async def __aenter__(self) -> Follower:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        if self._stream is not None:
            self._stream.cancel()

    async def begin(self, start: holdfast_pb2.FollowStart) -> None:
        """Follow from there. Raises Unavailable."""
        error: ClientError = Unavailable("it has no address")
        who = await self._connection.who()
        for address in await self._connection.order():
            try:
                self._stream = await self._connection.stream(
                    address, _PATH, holdfast_pb2.FollowRequest, holdfast_pb2.FollowResponse, who
                )
                break
            except ClientError as failed:
                error = failed
        if self._stream is None:
            raise error
        self._reading = asyncio.ensure_future(self._read(self._stream, start))
        self._reading.add_done_callback(lambda _: self._arrived.set())

    async def frames(self) -> list[holdfast_pb2.FollowResponse]:
        """All that have arrived, at least one. Raises ClientError if the stream is over."""
        await self._arrived.wait()
        found = list(self._frames)
        self._frames.clear()
        self._bytes = 0
        self._room.set()
        if self._reading is not None and self._reading.done():
            if not found:
                self._reading.result()
                raise Unavailable("the server has ended the stream")
        else:
            self._arrived.clear()
        return found

    async def _read(self, stream: Stream, start: holdfast_pb2.FollowStart) -> None:
        try:
            await stream.write(holdfast_pb2.FollowRequest(start=start))
            await self._read_all(stream)
        except grpc.aio.AioRpcError as error:
            raise _error(error) from None
        except (ChannelClosed, asyncio.InvalidStateError) as error:
            raise Unavailable(f"the stream has ended: {error}") from None

    async def _read_all(self, stream: Stream) -> None:
        heard = now()
        reading = asyncio.ensure_future(stream.read())
        try:
            while True:
                done, _ = await asyncio.wait((reading,), timeout=PROBE_SECONDS)
                if done:
                    frame = reading.result()
                    if frame is grpc.aio.EOF:
                        return
                    self._take(frame)
                    await self._room.wait()
                    heard = now()
                    reading = asyncio.ensure_future(stream.read())
                elif now() > heard + SILENT_SECONDS:
                    raise Unavailable(f"the server has said nothing for {SILENT_SECONDS:g} s")
                else:
                    self._probe += 1
                    await stream.write(holdfast_pb2.FollowRequest(probe=holdfast_pb2.Probe(id=self._probe)))
        finally:
            abandon(reading)

    def _take(self, frame: holdfast_pb2.FollowResponse) -> None:
        self._frames.append(frame)
        self._bytes += frame.ByteSize()
        if self._bytes > MAX_BYTES:
            self._room.clear()
        self._arrived.set()


def _error(error: grpc.aio.AioRpcError) -> ClientError:
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED):
        return Unavailable(for_people(error.details() or error.code().name))
    return refused(error)
