"""One stream of what changes below a prefix of a cell, which a replication reads.

It follows as an edge replica does (`Edge/Follow`), but under no name, so the cell lists it nowhere.

No more than BUFFERED_BYTES are read ahead, and one frame: who is slow holds up the stream, and the cell keeps the rest.
A server that is cut off from its cluster goes on sending that nothing has changed. It is found by probes, which a
server answers only when it has heard from a majority.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

import grpc
import grpc.aio

from holdfast.cells.clock import now
from holdfast.cells.followed import BrokenStream, Frames, Item
from holdfast.client.closed import ChannelClosed
from holdfast.client.connection import Connection
from holdfast.client.errors import ClientError, Unavailable, known_of, refused
from holdfast.client.login import Metadata
from holdfast.client.stream import Stream
from holdfast.keyrange import prefix_end
from holdfast.proto import holdfast_pb2
from holdfast.status import said_by_server

_PATH = "/holdfast.v1.Edge/Follow"
BUFFERED_BYTES = 2 << 20
HELLO_SECONDS = 10.0
PROBE_SECONDS = 2.0
SILENT_SECONDS = 10.0  # without an answer to a probe, after which the server is left


class Follower:
    """`prefixes`: none overlaps another one. Use it as a context."""

    def __init__(self, connection: Connection, address: str, prefixes: Sequence[bytes]) -> None:
        self._connection = connection
        self._address = address
        self._frames = Frames(connection.shown(address), prefixes)
        self._stream: Stream | None = None
        self._who: Metadata = ()
        self._reading: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._news = asyncio.Event()  # there is an item, or the stream has ended
        self._room = asyncio.Event()
        self._heard = 0.0  # when a probe was answered, or when there was room again

    async def begin(self, start: holdfast_pb2.FollowStart) -> holdfast_pb2.FollowHello:
        """Raises ClientError."""
        for prefix in self._frames.prefixes:
            start.filter.add(key=prefix, range_end=prefix_end(prefix))
        self._who = await self._connection.who()
        request, response = holdfast_pb2.FollowRequest, holdfast_pb2.FollowResponse
        self._stream = await self._connection.stream(self._address, _PATH, request, response, self._who)
        self._connection.picker.stream_began(self._address)
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                await self._stream.write(holdfast_pb2.FollowRequest(start=start))
                hello = await self._hello()
        except TimeoutError:
            raise Unavailable(f"{self._shown} did not begin to send within {HELLO_SECONDS:g} s") from None
        except (grpc.aio.AioRpcError, ChannelClosed, asyncio.InvalidStateError) as error:
            raise await self._why(error) from None
        self._frames.begin(hello, start.watermark)
        self._heard = now()
        self._reading = asyncio.ensure_future(self._read())
        self._reading.add_done_callback(lambda _: self._news.set())
        self._probing = asyncio.ensure_future(self._probe())
        return hello

    async def close(self) -> None:
        tasks = [task for task in (self._reading, self._probing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._stream is not None:
            self._stream.cancel()
            self._connection.picker.stream_ended(self._address)

    async def __aenter__(self) -> Follower:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def _shown(self) -> str:
        return self._frames.sender

    # ---- what has come -------------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Wait until there is a `head`. Raises ClientError once the stream has ended and all of it was taken."""
        while not self._items:
            if self._reading is not None and self._reading.done():
                await self._reading  # raises why it has ended
            self._news.clear()
            await self._news.wait()

    @property
    def head(self) -> Item | None:
        """The next item, if it is here."""
        return self._items[0][0] if self._items else None

    def pop(self) -> None:
        """The head was taken."""
        _, size = self._items.popleft()
        self._bytes -= size
        self._room.set()

    # ---- the stream ----------------------------------------------------------------------------------------

    async def _hello(self) -> holdfast_pb2.FollowHello:
        while True:
            frame = await self._frame()
            kind = frame.WhichOneof("response")
            if kind == "hello":
                return frame.hello
            if kind != "path":
                raise BrokenStream(f"{self._shown} sent {kind} before it said what follows")

    async def _frame(self) -> holdfast_pb2.FollowResponse:
        frame = await self._stream.read() if self._stream is not None else None
        if not isinstance(frame, holdfast_pb2.FollowResponse):
            raise Unavailable(f"{self._shown} ended the stream")
        return frame

    async def _read(self) -> None:
        try:
            while True:
                async with asyncio.timeout(SILENT_SECONDS):
                    frame = await self._frame()
                if frame.WhichOneof("response") == "probe":
                    self._heard = now()
                elif (item := self._frames.item(frame)) is not None:
                    await self._put(item, frame.ByteSize())
                if now() - self._heard > SILENT_SECONDS:
                    raise Unavailable(f"{self._shown} cannot say how old its data is")
        except TimeoutError:
            await self._connection.drop(self._address)
            raise Unavailable(f"{self._shown} was silent for {SILENT_SECONDS:g} s") from None
        except (grpc.aio.AioRpcError, ChannelClosed, asyncio.InvalidStateError) as error:
            raise await self._why(error) from None

    async def _put(self, item: Item, size: int) -> None:
        """Wait until there is room, or nothing else."""
        while self._items and self._bytes + size > BUFFERED_BYTES:
            self._room.clear()
            await self._room.wait()
            self._heard = now()  # the answer to a probe may wait behind what was not read
        self._items.append((item, size))
        self._bytes += size
        self._news.set()

    async def _probe(self) -> None:
        number = 0
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, ChannelClosed):  # `_read` sees it
            while self._stream is not None:
                number += 1
                await self._stream.write(holdfast_pb2.FollowRequest(probe=holdfast_pb2.Probe(id=number)))
                await asyncio.sleep(PROBE_SECONDS)

    async def _why(self, error: Exception) -> ClientError:
        """Credentials that are not valid any more are renewed for the next stream."""
        if not isinstance(error, grpc.aio.AioRpcError):
            return error if isinstance(error, ClientError) else Unavailable(f"{self._shown}: the stream has ended")
        self._connection.void(self._who, known_of(error))
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
            return refused(error)
        if not said_by_server(error.details() or ""):
            await self._connection.drop(self._address)
        return Unavailable(f"{self._shown}: {error.details() or error.code().name}")
