"""The sending half of an HTTP/2 connection: flow control of responses (RFC 9113, sections 5.2 and 6.9).

Data that fits the windows is sent at once. The rest is queued at its stream, and the waiting streams are served round
robin, one frame each. A turn of the connection sends a bounded amount and visits only streams that may be able to send,
so no frame of a peer can cause a scan of all streams.
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
TURN_STREAMS = 256  # most streams that one turn visits, and DATA frames that it sends
TURN_BYTES = 1 << 19  # queued data that one turn sends, about
MAX_CUT = 1000  # streams remembered in `_cut`


class Handler(Protocol):
    """Receives the events of a connection. `on_drained` and `on_queued` are also called from within `take_output`, the
    others only from within `receive`."""

    def on_headers(self, stream: Stream, headers: Block, ended: bool) -> None: ...

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        """Call `Connection.consumed` once the data is processed, to reopen the window."""
        ...

    def on_reset(self, stream: Stream) -> None: ...

    def on_drained(self, stream: Stream) -> None:
        """All queued data of this stream has been moved to the connection's output."""
        ...

    def on_queued(self, change: int) -> None:
        """The bytes queued at streams of this connection, because they may not be sent yet, changed by `change`."""
        ...

    def on_closed(self, stream: Stream) -> None:
        """The connection has dropped this stream. Called once for each stream that `on_headers` was called for."""
        ...


class Stream:
    """The connection's state of one stream. `context` belongs to the handler."""

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
        # The send window is `credit` plus the connection's initial window, so the latter can change without a scan.
        self.credit = 0
        self.receive_window = STREAM_WINDOW
        self.unreturned = 0  # bytes consumed but not yet announced to the peer by WINDOW_UPDATE
        self.remote_ended = False
        self.received = -1  # bytes of the body still to come by its content-length; -1: no content-length
        self.queue: deque[memoryview] | None = None  # views, so that the rest of a large response is not copied
        self.queued = 0  # bytes in `queue`
        self.trailers: bytes | None = None  # sent after the queue, to end the stream
        self.context: object = None


class Sending:
    """Pass responses in, and write what `take_output` returns."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.streams: dict[int, Stream] = {}
        self._output: list[bytes] = []
        self._send_window = DEFAULT_WINDOW
        self._initial_window = DEFAULT_WINDOW
        self._frame_bytes = DEFAULT_FRAME_BYTES
        self._ready: OrderedDict[int, Stream] = OrderedDict()  # have queued data and may send; the next one first
        self._blocked: OrderedDict[int, Stream] = OrderedDict()  # have queued data and wait for their windows
        self._reopened = 0  # how many blocked streams have to be checked again, from the first on
        self._cut: set[int] = set()  # streams that the server ended before their requests were complete
        self._updates_due = 0  # WINDOW_UPDATEs that the data sent may cause: one of the stream, one of the connection
        self.looked_at = 0  # streams visited by turns in total: the cost of sending besides the bytes
        self.paused = False  # the socket's write buffer is full

    # ---- answers -------------------------------------------------------------------------------------------

    def send_headers(self, stream: Stream, block: bytes) -> None:
        """Begin a response. `block` is an encoded header block."""
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
        """End the response after all data, with `trailers` (an encoded header block) unless that is empty."""
        stream.trailers = trailers
        if not stream.queued:
            self._finish(stream, trailers)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Send RST_STREAM and drop the stream."""
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
            # The response is complete before the request; the rest of the request is not needed (RFC 9113, 8.1).
            self._output.append(reset(stream.id, ErrorCode.NO_ERROR))
            self._cut_off(stream.id)
        self._forget(stream)

    def _cut_off(self, id: int) -> None:
        """Remember the stream, so that data which the peer had already sent is not treated as an error."""
        if len(self._cut) >= MAX_CUT:
            self._cut.clear()  # late data of these streams is answered with RST_STREAM once more
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
        """Whether there is something to write. It may still be true after `take_output`, whose turn is bounded."""
        return bool(self._output) or self._can_turn

    @property
    def _can_turn(self) -> bool:
        return self._send_window > 0 and not self.paused and bool(self._ready or (self._reopened and self._blocked))

    def take_output(self) -> bytes:
        """The bytes to write now, with at most one turn's share of the queued data."""
        if self._ready or self._reopened:
            self._turn()
        output, self._output = self._output, []
        return output[0] if len(output) == 1 else b"".join(output)

    def _turn(self) -> None:
        """Send queued data, one frame of each stream in turn, within the windows and the bounds of a turn."""
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
        """Send a frame with at most `room` bytes of the stream's queue."""
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
        """The socket's write buffer has room again."""
        self.paused = False
