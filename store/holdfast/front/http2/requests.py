"""The state of what is open on an HTTP/2 stream: a gRPC call, or a request that is not gRPC."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Protocol

from holdfast.front.calls import Action, Call, Kind
from holdfast.front.http import Receiver
from holdfast.front.http2.connection import Connection
from holdfast.front.http2.frames import ErrorCode, literal
from holdfast.front.http2.grpc import Messages
from holdfast.front.http2.sending import Stream

HIGH_WATER_BYTES = 1 << 20
FIRST_CREDIT = 16


class Carrier(Protocol):
    """The client's connection of a request; implemented by `session.Session`."""

    connection: Connection

    def touched(self) -> None:
        """There is something to write."""
        ...

    def act(self, entry: OpenCall, action: Action) -> bool:
        """Carry out an action on the call. Returns whether it is now over its high-water mark."""
        ...

    def break_down(self, entry: OpenCall) -> None:
        """End the call, and no other, because a response of it cannot be sent."""
        ...


class OpenCall:
    """A gRPC call on a stream."""

    __slots__ = (
        "answering",
        "asked",
        "awaited_since_ns",
        "backlog",
        "backlog_bytes",
        "call",
        "credit",
        "half_closed",
        "held",
        "kind",
        "messages",
        "over",
        "session",
        "stream",
    )

    def __init__(self, session: Carrier, stream: Stream, call: Call, kind: Kind, messages: Messages) -> None:
        self.session = session
        self.stream = stream
        self.call = call
        self.kind = kind
        self.messages = messages
        self.answering = False  # the response headers have been sent
        self.over = False  # over the high-water mark, until drained
        self.credit = FIRST_CREDIT
        self.backlog: deque[tuple[bytes, int]] = deque()  # messages that wait for credit, and their size in the window
        self.backlog_bytes = 0
        self.half_closed = False
        self.asked = False  # the single request message of a server stream has arrived
        self.held = 0  # bytes of messages buffered here: incomplete, or waiting for credit
        self.awaited_since_ns = session.connection.now_ns  # since when the server waits for (the rest of) a message

    @property
    def awaited(self) -> bool:
        """Whether the client owes (the rest of) a message. A bidi stream may be idle between messages for ever."""
        if self.kind is Kind.BIDI:
            return self.messages.partial
        return not (self.half_closed or self.asked)


class Page:
    """A request that is not gRPC."""

    __slots__ = ("asked", "awaited_since_ns", "begun", "receiver", "session", "stream", "waiting")

    def __init__(self, session: Carrier, stream: Stream) -> None:
        self.session = session
        self.stream = stream
        self.receiver: Receiver | None = None
        self.waiting = False
        self.asked = False  # the whole request has arrived
        self.begun = False  # the response has begun
        self.awaited_since_ns = session.connection.now_ns

    @property
    def awaited(self) -> bool:
        return not (self.asked or self.begun)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        block = literal(b":status", str(status).encode())
        block += b"".join(literal(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items())
        self.begun = True
        if self.alive:
            self.session.connection.send_headers(self.stream, block)
            self.session.touched()

    @property
    def alive(self) -> bool:
        return self.stream.id in self.session.connection.streams

    def write(self, data: bytes) -> bool:
        if self.alive and data:
            self.session.connection.send_data(self.stream, data)
            self.session.touched()
        self.waiting = self.stream.queued > HIGH_WATER_BYTES
        return self.waiting

    def end(self) -> None:
        if self.alive:
            self.session.connection.end(self.stream, b"")
            self.session.touched()

    def abort(self) -> None:
        if self.alive:
            self.session.connection.reset(self.stream, ErrorCode.INTERNAL_ERROR)
            self.session.touched()
