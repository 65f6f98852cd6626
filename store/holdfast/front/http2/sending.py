"""The sending half of an HTTP/2 connection: windows, and answers that wait for them (RFC 9113, sections 5.2 and 6.9).

What fits the windows goes out at once. The rest waits at its stream, and the waiting streams take turns, a frame each.
A turn of the connection sends a bounded amount, and only looks at streams that may be able to send: no frame of a peer
makes this side look at all streams.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Protocol

from holdfast.front.http2.frames import (
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_STREAM,
    ErrorCode,
    frame,
    header_frames,
    reset,
)

if TYPE_CHECKING:
    from holdfast.front.http2.headers import Block

STREAM_WINDOW = 1 << 18
TURN_STREAMS = 256  # streams that one turn looks at, and frames of data that it sends at most
TURN_BYTES = 1 << 19  # that one turn sends of what has waited
MAX_CUT = 1000


class Handler(Protocol):
    """The user of a connection. `on_drained` and `on_queued` are also called from within `take_output`, the others only
    from within `receive`."""

    def on_headers(self, stream: Stream, headers: Block, ended: bool) -> None: ...

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        """Give the room back by `Connection.consumed` once the data is dealt with."""
        ...

    def on_reset(self, stream: Stream) -> None: ...

    def on_drained(self, stream: Stream) -> None:
        """The last of what waited to be sent on this stream has been handed to the connection's output."""
        ...

    def on_queued(self, change: int) -> None:
        """So many bytes more (or fewer) wait at streams of this connection because they may not be sent yet."""
        ...

    def on_closed(self, stream: Stream) -> None:
        """The connection has forgotten this stream: called once for each one that `on_headers` was called for."""
        ...


class Stream:
    """One stream as the connection sees it; `context` is the handler's."""

    __slots__ = (
        "context",
        "credit",
        "id",
        "queue",
        "queued",
        "receive_window",
        "received",
        "remote_ended",
        "trailers",
        "unreturned",
    )

    def __init__(self, id: int) -> None:
        self.id = id
        # What may be sent is this and the connection's initial window, which so can change without a look at streams.
        self.credit = 0
        self.receive_window = STREAM_WINDOW
        self.unreturned = 0  # consumed, and not said so to the peer yet
        self.remote_ended = False
        self.received = -1  # of the body, if the headers said how long it is: what is still to come
        self.queue: deque[memoryview] | None = None  # views, so that what is left of a large answer is not copied
        self.queued = 0
        self.trailers: bytes | None = None  # what ends it, once the queue is sent
        self.context: object = None


class Sending:
    """Give it answers, and write what `take_output` returns."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.streams: dict[int, Stream] = {}
        self._output: list[bytes] = []
        self._send_window = DEFAULT_WINDOW
        self._initial_window = DEFAULT_WINDOW
        self._frame_bytes = DEFAULT_FRAME_BYTES
        self._ready: OrderedDict[int, Stream] = OrderedDict()  # they wait, and may send; the next one first
        self._blocked: OrderedDict[int, Stream] = OrderedDict()  # they wait, for their windows to open
        self._reopened = 0  # of those that are blocked, how many have to be looked at again, from the first on
        self._cut: set[int] = set()  # streams that this side ended before their requests were complete
        self._updates_due = 0  # WINDOW_UPDATEs that the data sent may have caused: one of its stream, one of all
        self.looked_at = 0  # streams that turns have looked at, ever: what sending costs besides the bytes
        self.paused = False  # the socket takes nothing now

    # ---- answers -------------------------------------------------------------------------------------------

    def send_headers(self, stream: Stream, block: bytes) -> None:
        """Begin an answer. `block` is encoded."""
        self._output.append(header_frames(0, stream.id, block, self._frame_bytes))

    def send_data(self, stream: Stream, data: bytes) -> None:
        size = len(data)
        if (
            stream.queued
            or self.paused
            or size > stream.credit + self._initial_window
            or size > self._send_window
            or size > self._frame_bytes
        ):
            self._wait(stream, data)
            return
        stream.credit -= size
        self._send_window -= size
        self._updates_due += 2 + (size >> 12)
        self._output.append(frame(DATA, 0, stream.id, data))

    def _wait(self, stream: Stream, data: bytes) -> None:
        if not data:
            return
        if stream.queue is None:
            stream.queue = deque()
        if not stream.queued:
            self._ready[stream.id] = stream
        stream.queue.append(memoryview(data))
        stream.queued += len(data)
        self._handler.on_queued(len(data))

    def end(self, stream: Stream, trailers: bytes) -> None:
        """End the answer with `trailers`, an encoded block, after all data; empty: with nothing more."""
        stream.trailers = trailers
        if not stream.queued:
            self._finish(stream, trailers)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Break the stream off."""
        self._output.append(reset(stream.id, code))
        if not stream.remote_ended:
            self._cut_off(stream.id)
        self._forget(stream)

    def _finish(self, stream: Stream, trailers: bytes) -> None:
        if trailers:
            self._output.append(header_frames(END_STREAM, stream.id, trailers, self._frame_bytes))
        else:
            self._output.append(frame(DATA, END_STREAM, stream.id))
        if not stream.remote_ended:
            # The answer is complete before the request: nothing more of that is wanted (RFC 9113, section 8.1).
            self._output.append(reset(stream.id, ErrorCode.NO_ERROR))
            self._cut_off(stream.id)
        self._forget(stream)

    def _cut_off(self, id: int) -> None:
        """What the peer had sent before it heard of the end is no fault of its own."""
        if len(self._cut) >= MAX_CUT:
            self._cut.clear()  # whose data still comes is told once more that its stream is closed
        self._cut.add(id)

    def _forget(self, stream: Stream) -> None:
        if self.streams.pop(stream.id, None) is None:
            return
        if stream.queued:
            self._ready.pop(stream.id, None)
            self._blocked.pop(stream.id, None)
            self._handler.on_queued(-stream.queued)
            stream.queue = None
            stream.queued = 0
        self._handler.on_closed(stream)

    # ---- windows -------------------------------------------------------------------------------------------

    def send_window(self, stream: Stream) -> int:
        return stream.credit + self._initial_window

    def _allow_stream(self, stream: Stream, increment: int) -> None:
        stream.credit += increment
        if stream.queued and self._blocked.pop(stream.id, None) is not None:
            self._ready[stream.id] = stream

    def _set_initial_window(self, size: int) -> None:
        if size > self._initial_window:
            self._reopened = len(self._blocked)
        self._initial_window = size

    # ---- out -----------------------------------------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """Whether there is something to write. After a turn of much there still may be."""
        return bool(self._output) or self._can_turn

    @property
    def _can_turn(self) -> bool:
        return self._send_window > 0 and not self.paused and bool(self._ready or (self._reopened and self._blocked))

    def take_output(self) -> bytes:
        """What to write now: at most a turn's share of what has waited."""
        if self._ready or self._reopened:
            self._turn()
        output, self._output = self._output, []
        return output[0] if len(output) == 1 else b"".join(output)

    def _turn(self) -> None:
        """Send of what waits, a frame of each stream in turn, as far as the windows and the turn's share go."""
        looks, end = TURN_STREAMS, self._send_window - TURN_BYTES
        while looks and self._can_turn and self._send_window > end:
            looks -= 1
            self.looked_at += 1
            if self._reopened:
                self._reopened -= 1
                if self._blocked:
                    id, stream = self._blocked.popitem(last=False)
                    self._ready[id] = stream
                else:
                    self._reopened = 0
                continue
            id, stream = self._ready.popitem(last=False)
            room = min(stream.credit + self._initial_window, self._send_window, self._frame_bytes)
            if room <= 0:
                self._blocked[id] = stream
                continue
            self._send_some(stream, room)
            if stream.queued:
                self._ready[id] = stream  # behind the others

    def _send_some(self, stream: Stream, room: int) -> None:
        """Send a frame of at most `room` bytes of what waits on `stream`."""
        queue = stream.queue
        assert queue is not None
        data = queue.popleft()
        if len(data) > room:
            queue.appendleft(data[room:])
            data = data[:room]
        size = len(data)
        stream.credit -= size
        self._send_window -= size
        stream.queued -= size
        self._updates_due += 2 + (size >> 12)
        self._handler.on_queued(-size)
        self._output.append(frame(DATA, 0, stream.id, bytes(data)))
        if not stream.queued:
            if stream.trailers is not None:
                self._finish(stream, stream.trailers)
            else:
                self._handler.on_drained(stream)

    def resume(self) -> None:
        """The socket takes more again."""
        self.paused = False
