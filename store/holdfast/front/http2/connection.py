"""The server side of one HTTP/2 connection, without I/O: bytes in; handler calls and bytes to send out (RFC 9113).

Everything that a peer can make the server store is bounded: header blocks, windows and streams. So is the number of
frames without content per second (rapid resets, SETTINGS and PING floods). Violating a bound or a rule ends the
connection (ConnectionBroken), or only the stream where that is enough.

The work of one call of `receive` is bounded too: the rest waits for the next call, so that others are served.
"""

from __future__ import annotations

import struct

from holdfast.front.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD_BYTES,
    HEADERS,
    MAX_WINDOW,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionBroken,
    ErrorCode,
    Setting,
    frame,
    goaway,
    reset,
    settings,
    window_update,
)
from holdfast.front.http2.headers import MAX_HEADER_BYTES, HeaderDecoder
from holdfast.front.http2.sending import STREAM_WINDOW, Handler, Sending, Stream

CONNECTION_WINDOW = 1 << 22
MAX_IDLE_FRAMES = 5000  # frames without content per IDLE_NS: PING, SETTINGS, RST_STREAM, empty DATA, PRIORITY
IDLE_NS = 1_000_000_000
MANY_SETTINGS_BYTES = 192  # each such piece of a SETTINGS payload counts as one more idle frame
TURN_WORK = 500  # work units per `receive`: one per frame, per 64 bytes of payload, per 4 bytes of a header block

_SETTING = struct.Struct(">HI")


class Connection(Sending):
    """Pass received bytes to `receive`, write what `take_output` returns, close the socket when `receive` raises."""

    def __init__(self, handler: Handler, *, max_streams: int, now_ns: int) -> None:
        super().__init__(handler)
        self._max_streams = max_streams
        self._headers = HeaderDecoder()
        self._input = b""
        self._preface_seen = False
        self._settings_seen = False
        self._block: tuple[int, int, list[bytes]] | None = None  # an unfinished header block: stream, flags, parts
        self._block_bytes = 0
        self._last_stream = 0
        self._receive_window = CONNECTION_WINDOW
        self._unreturned = 0
        self._output = [
            settings(
                {
                    Setting.MAX_CONCURRENT_STREAMS: max_streams,
                    Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                    Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
                }
            ),
            window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW),
        ]
        self._idle_frames = 0
        self._idle_since = now_ns
        self._work = 0  # units done in this call of `receive`
        self.behind = False  # received frames are left over: call `receive` again, with no data
        self.now_ns = now_ns  # time of the last call of `receive`
        self.going_away = False
        self.pinged = False  # a PING was sent and not acknowledged yet

    # ---- in ------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now_ns: int) -> None:
        """Process `data`, up to TURN_WORK. Raises ConnectionBroken; do not call it again after that."""
        self.now_ns = now_ns
        if now_ns > self._idle_since + IDLE_NS:
            self._idle_since, self._idle_frames = now_ns, 0
        data = self._input + data if self._input else data
        at, end = 0, len(data)
        if not self._preface_seen:
            if end < len(PREFACE):
                if not PREFACE.startswith(data):
                    raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "not HTTP/2")
                self._input = data
                return
            if not data.startswith(PREFACE):
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "not HTTP/2")
            self._preface_seen = True
            at = len(PREFACE)
        self._work = 0
        while end - at >= HEAD_BYTES and self._work < TURN_WORK:
            size = int.from_bytes(data[at : at + 3], "big")
            if size > DEFAULT_FRAME_BYTES:
                raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            if end - at < HEAD_BYTES + size:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9], "big") & MAX_WINDOW
            at += HEAD_BYTES
            self._work += 1 + (size >> 6)
            self._frame(kind, flags, stream, data[at : at + size])
            at += size
        self._input = data[at:]
        self.behind = self._work >= TURN_WORK and at < end

    def end_turn(self) -> None:
        """Leave the next frame to the next call of `receive`, because the current one caused much work."""
        self._work = TURN_WORK

    def _frame(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if self._block is not None and (kind != CONTINUATION or id != self._block[0]):
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        if not self._settings_seen and kind != SETTINGS:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if kind == DATA:
            self._on_data(flags, id, payload)
        elif kind == HEADERS:
            self._on_headers(flags, id, payload)
        elif kind == WINDOW_UPDATE:
            self._on_window_update(id, payload)
        elif kind == CONTINUATION:
            self._on_continuation(flags, payload)
        elif kind == RST_STREAM:
            self._on_reset(id, payload)
        elif kind == SETTINGS:
            self._on_settings(flags, id, payload)
        elif kind == PING:
            self._on_ping(flags, id, payload)
        elif kind == GOAWAY:
            if id or len(payload) < 8:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR if id else ErrorCode.FRAME_SIZE_ERROR, "GOAWAY")
            self.idle()
        elif kind == PRIORITY:
            self._on_priority(id, payload)
        elif kind == PUSH_PROMISE:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "a client pushes")
        else:
            self.idle()  # frames of unknown kinds are ignored

    def idle(self) -> None:
        """Count a frame that had no content or could not be acted on. Raises ConnectionBroken if there are too many."""
        self._idle_frames += 1
        if self._idle_frames > MAX_IDLE_FRAMES:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that carry nothing")

    def _on_headers(self, flags: int, id: int, payload: bytes) -> None:
        if not id & 1:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"a request on stream {id}")
        payload = _unpadded(flags, payload)
        if flags & PRIORITY_FLAG:
            if len(payload) < 5:
                raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "HEADERS with half a priority")
            if int.from_bytes(payload[:4], "big") & MAX_WINDOW == id:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")
            payload = payload[5:]
        if flags & END_HEADERS:
            self._on_block(flags, id, payload)
        else:
            self._block, self._block_bytes = (id, flags, [payload]), len(payload)

    def _on_continuation(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        id, first_flags, parts = self._block
        parts.append(payload)
        self._block_bytes += len(payload)
        if self._block_bytes > MAX_HEADER_BYTES or len(parts) > 16:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & END_HEADERS:
            self._block = None
            self._on_block(first_flags, id, b"".join(parts))

    def _on_block(self, flags: int, id: int, block: bytes) -> None:
        self._work += len(block) >> 2
        headers = self._headers.decode(block)
        ended = bool(flags & END_STREAM)
        stream = self.streams.get(id)
        if stream is not None:
            if stream.remote_ended:
                raise ConnectionBroken(ErrorCode.STREAM_CLOSED, f"HEADERS after the end of stream {id}")
            if not ended or not headers.trailing:
                self._stream_broken(stream, ErrorCode.PROTOCOL_ERROR)
                return
            self._on_end(stream, b"")
            return
        if id <= self._last_stream:
            raise ConnectionBroken(ErrorCode.STREAM_CLOSED, f"HEADERS on closed stream {id}")
        self._last_stream = id
        length = headers.body_length
        if self.going_away:
            self._refuse(id, ErrorCode.REFUSED_STREAM, ended)
        elif length is None or (length > 0 and ended):
            self._refuse(id, ErrorCode.PROTOCOL_ERROR, ended)
        elif len(self.streams) >= self._max_streams:
            self._refuse(id, ErrorCode.REFUSED_STREAM, ended)
        else:
            stream = self.streams[id] = Stream(id)
            stream.received = length
            stream.remote_ended = ended
            self._handler.on_headers(stream, headers, ended)

    def _refuse(self, id: int, code: ErrorCode, ended: bool) -> None:
        self.idle()
        self._output.append(reset(id, code))
        if not ended:
            self._cut_off(id)

    def _on_data(self, flags: int, id: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
        # The stream windows bound the buffered data, so the connection window is reopened at once.
        self._unreturned += size
        if self._unreturned > CONNECTION_WINDOW // 2:
            self._output.append(window_update(0, self._unreturned))
            self._receive_window += self._unreturned
            self._unreturned = 0
        stream = self.streams.get(id)
        if stream is None:
            if id == 0 or id > self._last_stream:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"DATA on stream {id}, which is not open")
            self.idle()
            if id not in self._cut:  # otherwise it was in flight when the server ended the stream
                self._output.append(reset(id, ErrorCode.STREAM_CLOSED))
            return
        if stream.remote_ended:
            self._stream_broken(stream, ErrorCode.STREAM_CLOSED)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            self._stream_broken(stream, ErrorCode.FLOW_CONTROL_ERROR)
            return
        data = _unpadded(flags, payload) if flags & PADDED else payload
        if size > len(data):
            self.consumed(stream, size - len(data))
        if stream.received >= 0:
            stream.received -= len(data)
            if stream.received < 0:
                self._stream_broken(stream, ErrorCode.PROTOCOL_ERROR)
                return
        if flags & END_STREAM:
            self._on_end(stream, data)
            return
        if not data:
            self.idle()
        self._handler.on_data(stream, data, False)

    def _on_end(self, stream: Stream, data: bytes) -> None:
        if stream.received > 0:
            self._stream_broken(stream, ErrorCode.PROTOCOL_ERROR)  # shorter than its content-length
            return
        stream.remote_ended = True
        self._handler.on_data(stream, data, True)

    def consumed(self, stream: Stream, size: int) -> None:
        """Reopen the stream's receive window by `size` bytes, which have been processed."""
        if stream.remote_ended:
            return
        stream.unreturned += size
        if stream.unreturned > STREAM_WINDOW // 2:
            self._output.append(window_update(stream.id, stream.unreturned))
            stream.receive_window += stream.unreturned
            stream.unreturned = 0

    def _on_reset(self, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM")
        if id == 0 or id > self._last_stream:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM of stream {id}")
        self.idle()
        stream = self.streams.get(id)
        if stream is not None:
            self._forget(stream)
            self._handler.on_reset(stream)

    def _stream_broken(self, stream: Stream, code: ErrorCode) -> None:
        self.idle()
        self.reset(stream, code)
        self._handler.on_reset(stream)

    def _on_settings(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "SETTINGS of a stream")
        if flags & ACK:
            if payload:
                raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS: an acknowledgement with content")
            self.idle()
            return
        if len(payload) % 6:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS")
        self._settings_seen = True
        self.idle()
        for _ in range(len(payload) // MANY_SETTINGS_BYTES):
            self.idle()
        for key, value in dict(_SETTING.iter_unpack(payload)).items():  # the last value of a setting counts
            self._set(key, value)
        self._output.append(frame(SETTINGS, ACK, 0))

    def _set(self, key: int, value: int) -> None:
        if key == Setting.INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "a window over 2^31-1")
            self._set_initial_window(value)
        elif key == Setting.MAX_FRAME_SIZE:
            if not DEFAULT_FRAME_BYTES <= value < 1 << 24:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE")
            self._frame_bytes = min(value, 1 << 20)
        elif key == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH")

    def _on_ping(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "PING")
        self.idle()
        if flags & ACK:
            self.pinged = False
            return
        self._output.append(frame(PING, ACK, 0, payload))

    def _on_priority(self, id: int, payload: bytes) -> None:
        if id == 0:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "PRIORITY of no stream")
        self.idle()
        stream = self.streams.get(id)
        wrong_size = len(payload) != 5
        if wrong_size or int.from_bytes(payload[:4], "big") & MAX_WINDOW == id:
            code = ErrorCode.FRAME_SIZE_ERROR if wrong_size else ErrorCode.PROTOCOL_ERROR
            if stream is None:
                self._output.append(reset(id, code))
            else:
                self._stream_broken(stream, code)

    def _on_window_update(self, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE")
        if self._updates_due:
            self._updates_due -= 1
        else:
            self.idle()  # the data sent cannot have caused this update
        increment = int.from_bytes(payload, "big") & MAX_WINDOW
        if id == 0:
            if increment == 0:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            self._send_window += increment
            if self._send_window > MAX_WINDOW:
                raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "a window over 2^31-1")
            return
        if id > self._last_stream:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE of stream {id}, which is not open")
        stream = self.streams.get(id)
        if stream is None:
            return
        if increment == 0:
            self._stream_broken(stream, ErrorCode.PROTOCOL_ERROR)
            return
        self._allow_stream(stream, increment)
        if self.send_window(stream) > MAX_WINDOW:
            self._stream_broken(stream, ErrorCode.FLOW_CONTROL_ERROR)

    # ---- the end ------------------------------------------------------------------------------------------------

    def lost(self, most: int) -> bool:
        """End up to `most` streams after the connection was lost. Returns whether all have ended."""
        for _ in range(min(most, len(self.streams))):
            stream = next(reversed(self.streams.values()))  # the last: finding the first would scan deleted entries
            self._forget(stream)
            self._handler.on_reset(stream)
        return not self.streams

    def ping(self) -> None:
        self.pinged = True
        self._output.append(frame(PING, 0, 0, b"holdfast"))

    def go_away(self, code: ErrorCode = ErrorCode.NO_ERROR, why: str = "") -> None:
        """Send GOAWAY: accept no new streams; open ones may finish."""
        self.going_away = True
        self._output.append(goaway(self._last_stream, code, why))


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
