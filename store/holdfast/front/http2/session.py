"""One client's HTTP/2 connection: turns gRPC calls into events and actions into frames; passes plain HTTP to pages."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from holdfast.durations import grpc_timeout_ns
from holdfast.front.calls import (
    Action,
    Call,
    Cancelled,
    Credit,
    DescribedReply,
    Event,
    Fail,
    Finish,
    HalfClose,
    Kind,
    Message,
    Open,
    Peer,
    Reply,
    Send,
    Unary,
    Writable,
)
from holdfast.front.http import HttpHandler, Request
from holdfast.front.http2.connection import Connection
from holdfast.front.http2.frames import ErrorCode, literal
from holdfast.front.http2.grpc import (
    ANSWER_HEADERS,
    NOT_GRPC,
    OK_TRAILERS,
    BadMessage,
    Messages,
    failure,
    framed,
    is_grpc,
    prefix,
)
from holdfast.front.http2.headers import Block
from holdfast.front.http2.requests import HIGH_WATER_BYTES, OpenCall, Page
from holdfast.front.http2.sending import Stream
from holdfast.status import INTERNAL_ERROR, TOO_MANY_REQUESTS, Code

# For all connections together: limit for undelivered request messages, and the same limit for unread responses.
MAX_BUFFERED_BYTES = 256 << 20
BUFFERED_FLOOR_BYTES = 4 << 20  # undelivered request messages that each connection may always have
MESSAGE_BYTES = 128  # memory overhead of a message besides its body
OWN_UNREAD_BYTES = 64 << 20  # unread responses of one connection above which no large ones are made for it
LARGE_BYTES = 1 << 16  # a response that is not copied to put its prefix before it
REQUEST_NS = 30_000_000_000  # time limit for receiving a whole request


class Shared(Protocol):
    """State that all connections of a front share; implemented by `front.Http2Front`."""

    methods: Mapping[str, Kind]
    http: HttpHandler
    max_message_bytes: int
    open_calls: dict[int, OpenCall]
    streams: int
    buffered: int
    queued: int

    def has_events(self, session: Session) -> None:
        """Called when this connection gets its first pending event."""
        ...

    def next_id(self) -> int:
        """An id for a new call."""
        ...

    def admits(self, open: int) -> bool:
        """Whether a connection may have `open` requests open."""
        ...

    def closed(self, id: int) -> bool:
        """Note that a call is over. Returns whether it was open."""
        ...


class Session:
    """Implements `connection.Handler`. `touched` is called when there is something to write."""

    def __init__(self, front: Shared, peer: Peer, max_streams: int) -> None:
        self._front = front
        self._peer = peer
        self.connection = Connection(self, max_streams=max_streams, now_ns=time.monotonic_ns())
        self.unanswered = 0  # unary calls received in full and not answered yet
        self.events: deque[Event] = deque()  # not polled yet
        self._buffered = 0  # bytes of request messages not passed to a service yet
        self._queued = 0  # bytes of responses that wait for the client to read
        self.touched: Callable[[], None] = lambda: None

    # ---- from the connection -------------------------------------------------------------------------------

    def on_headers(self, stream: Stream, headers: Block, ended: bool) -> None:
        self._front.streams += 1
        fields = headers.by_name
        # Clients that read their responses are served even when others have filled the buffer.
        full = self._front.queued > MAX_BUFFERED_BYTES and self._queued > HIGH_WATER_BYTES
        full = full or not self._front.admits(len(self.connection.streams))
        content_type = fields.get(b"content-type", b"")
        if not content_type.startswith(b"application/grpc"):
            self.connection.end_turn()  # the cost of a page is not known in advance
            if full:
                self.connection.reset(stream, ErrorCode.REFUSED_STREAM)
                return
            self._on_page(stream, fields, ended)
            return
        if not is_grpc(content_type):
            self.connection.end(stream, NOT_GRPC)
            return
        if fields[b":method"] != b"POST":
            self.connection.reset(stream, ErrorCode.PROTOCOL_ERROR)
            return
        path = headers.path
        kind = self._front.methods.get(path)
        if kind is None:
            self._refuse(stream, Code.UNIMPLEMENTED, _unknown(path, self._front.methods))
            self.connection.idle()
            return
        if full:
            self._refuse(stream, TOO_MANY_REQUESTS.code, TOO_MANY_REQUESTS.message)
            return
        timeout = fields.get(b"grpc-timeout")
        deadline = None
        if timeout is not None:
            left = grpc_timeout_ns(timeout)
            if left is None:
                self._refuse(stream, Code.INTERNAL, f"malformed grpc-timeout: {timeout.decode('latin-1')}")
                return
            deadline = time.monotonic_ns() + left
        call = Call(self._front.next_id(), path, self._peer, headers.metadata, deadline)
        messages = Messages(fields.get(b"grpc-encoding", b""), self._front.max_message_bytes)
        entry = stream.context = OpenCall(self, stream, call, kind, messages)
        self._front.open_calls[call.id] = entry
        if kind is not Kind.UNARY:
            self.push(Open(call))
        if ended:
            self._on_half_close(entry)

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        entry = stream.context
        if isinstance(entry, Page):
            assert entry.receiver is not None
            if data:
                entry.receiver.on_body(data)
                self.connection.consumed(stream, len(data))
            if ended:
                self.connection.end_turn()
                entry.asked = True
                entry.receiver.on_end()
            return
        if not isinstance(entry, OpenCall):
            return  # refused; ignore the rest of the request
        try:
            found = entry.messages.feed(data)
        except BadMessage as bad:
            self._break_off(entry, bad.code, str(bad))
            return
        if entry.messages.waiting or entry.held:
            if entry.kind is Kind.BIDI and (found or not entry.held):
                entry.awaited_since_ns = self.connection.now_ns  # the start of a message
            self._account(entry)
            if self._over_share(entry):
                return
        if entry.kind is Kind.UNARY:
            if found and (len(found) > 1 or entry.half_closed):
                self._break_off(entry, Code.INTERNAL, _MORE_THAN_ONE)
                return
            if found:
                entry.half_closed = True
                self.unanswered += 1
                self.push(Unary(entry.call, found[0]))
            self.connection.consumed(stream, len(data))
            if ended and (not entry.half_closed or entry.messages.partial):
                self._break_off(entry, Code.INTERNAL, "grpc: the call ended before its message")
            return
        if entry.kind is Kind.SERVER_STREAM and found:
            if len(found) > 1 or entry.asked:
                self._break_off(entry, Code.INTERNAL, _MORE_THAN_ONE)
                return
            entry.asked = True
        # Reopen the window for messages passed to the services, but not for those that wait for credit.
        beyond = 0
        for body in found:
            if entry.credit > 0 and not entry.backlog:
                entry.credit -= 1
                self.push(Message(entry.call.id, body))
            else:
                entry.backlog.append((body, len(body) + 5))
                entry.backlog_bytes += len(body) + MESSAGE_BYTES
                beyond += len(body) + 5
        if beyond:
            self._account(entry)
            if self._over_share(entry):
                return
        self.connection.consumed(stream, max(0, len(data) - beyond))
        if ended:
            self._on_half_close(entry)

    def _account(self, entry: OpenCall) -> None:
        """Update the counts of buffered message bytes of this call."""
        held = entry.messages.waiting + entry.backlog_bytes
        self._buffered += held - entry.held
        self._front.buffered += held - entry.held
        entry.held = held

    def _over_share(self, entry: OpenCall) -> bool:
        """Whether this connection buffers more than is left for all others. If so, the call is ended."""
        if self._buffered <= max(BUFFERED_FLOOR_BYTES, MAX_BUFFERED_BYTES - self._front.buffered):
            return False
        self._break_off(entry, TOO_MANY_REQUESTS.code, TOO_MANY_REQUESTS.message)
        return True

    def _on_half_close(self, entry: OpenCall) -> None:
        if entry.kind is Kind.UNARY or entry.messages.partial:
            self._break_off(entry, Code.INTERNAL, "grpc: the call ended before its message")
            return
        entry.half_closed = True
        if not entry.backlog:
            self.push(HalfClose(entry.call.id))

    def on_reset(self, stream: Stream) -> None:
        entry = stream.context
        if isinstance(entry, OpenCall):
            self._close(entry)
            self.push(Cancelled(entry.call.id, "the client ended the call"))
        elif isinstance(entry, Page) and entry.receiver is not None:
            entry.receiver.on_gone()

    def on_drained(self, stream: Stream) -> None:
        entry = stream.context
        if isinstance(entry, OpenCall) and entry.over:
            entry.over = False
            self.push(Writable(entry.call.id))
        elif isinstance(entry, Page) and entry.waiting and entry.receiver is not None:
            entry.waiting = False
            entry.receiver.on_drained()

    def on_queued(self, change: int) -> None:
        self._queued += change
        self._front.queued += change
        own, outbox = self._queued, self._peer.outbox
        # Once full, until half of it is read: it is not to change with every frame.
        most = OWN_UNREAD_BYTES // 2 if outbox.full else OWN_UNREAD_BYTES
        full = own > most or (own > HIGH_WATER_BYTES and self._front.queued > MAX_BUFFERED_BYTES)
        if full is not outbox.full:
            outbox.set(full)

    def on_closed(self, stream: Stream) -> None:
        self._front.streams -= 1

    def push(self, event: Event) -> None:
        if not self.events:
            self._front.has_events(self)
        self.events.append(event)

    def end_overdue(self, now_ns: int) -> None:
        """End the calls and requests that have not been received in full in time."""
        for stream in list(self.connection.streams.values()):
            entry = stream.context
            if not isinstance(entry, OpenCall | Page) or not entry.awaited:
                continue
            if isinstance(entry, Page):
                if now_ns > entry.awaited_since_ns + REQUEST_NS:
                    self.connection.reset(stream, ErrorCode.CANCEL)
                    self.on_reset(stream)
                continue
            deadline = entry.call.deadline_ns
            if now_ns > entry.awaited_since_ns + REQUEST_NS or (deadline is not None and now_ns > deadline):
                self._break_off(entry, Code.DEADLINE_EXCEEDED, "grpc: the message of this call did not come in time")

    # ---- requests that are not gRPC ------------------------------------------------------------------------

    def _on_page(self, stream: Stream, fields: Mapping[bytes, bytes], ended: bool) -> None:
        page = stream.context = Page(self, stream)
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in fields.items() if n[:1] != b":"}
        headers.setdefault("host", fields.get(b":authority", b"").decode("latin-1"))
        method, target = fields[b":method"].decode("latin-1"), fields[b":path"].decode("latin-1")
        page.receiver = self._front.http(Request(method, target, headers, self._peer), page)
        if ended:
            page.asked = True
            page.receiver.on_end()

    # ---- actions -------------------------------------------------------------------------------------------

    def act(self, entry: OpenCall, action: Action) -> bool:
        """Carry out an action on a call of this connection. Returns whether it is now over its high-water mark."""
        stream, connection = entry.stream, self.connection
        if isinstance(action, Send):
            if not entry.answering:
                entry.answering = True
                connection.send_headers(stream, ANSWER_HEADERS)
            self._send_message(stream, action.body)
            entry.over = stream.queued > (0 if self._peer.outbox.full else HIGH_WATER_BYTES)
            return entry.over
        if isinstance(action, Reply):
            entry.answering = True
            headers = ANSWER_HEADERS
            if isinstance(action, DescribedReply):
                headers = b"".join((headers, *(literal(name, value) for name, value in action.headers)))
            connection.send_headers(stream, headers)
            self._send_message(stream, action.body)
            self._close(entry)
            connection.end(stream, OK_TRAILERS)
        elif isinstance(action, Credit):
            self._credit(entry, action.count)
        elif isinstance(action, Finish):
            if not entry.answering:
                connection.send_headers(stream, ANSWER_HEADERS)
            self._close(entry)
            connection.end(stream, OK_TRAILERS)
        else:
            assert isinstance(action, Fail)
            self._fail(entry, action.code, action.text)
        return False

    def _send_message(self, stream: Stream, body: bytes) -> None:
        if len(body) < LARGE_BYTES:
            self.connection.send_data(stream, framed(body))
        else:
            self.connection.send_data(stream, prefix(body))
            self.connection.send_data(stream, body)

    def _credit(self, entry: OpenCall, count: int) -> None:
        entry.credit += count
        had = bool(entry.backlog)
        while entry.backlog and entry.credit > 0:
            body, size = entry.backlog.popleft()
            entry.credit -= 1
            entry.backlog_bytes -= len(body) + MESSAGE_BYTES
            self.push(Message(entry.call.id, body))
            self.connection.consumed(entry.stream, size)
        if had:
            self._account(entry)
        if had and not entry.backlog and entry.half_closed:
            self.push(HalfClose(entry.call.id))

    def break_down(self, entry: OpenCall) -> None:
        """End this call, and no other, because a response of it cannot be sent."""
        self._close(entry)
        if entry.answering:
            self.connection.reset(entry.stream, ErrorCode.INTERNAL_ERROR)
        else:
            self._refuse(entry.stream, INTERNAL_ERROR.code, INTERNAL_ERROR.message)
        self.push(Cancelled(entry.call.id, INTERNAL_ERROR.message))

    def _fail(self, entry: OpenCall, code: Code, text: str) -> None:
        trailers = failure(code.value, text)
        self._close(entry)
        self.connection.end(entry.stream, trailers if entry.answering else ANSWER_HEADERS + trailers)

    def _break_off(self, entry: OpenCall, code: Code, text: str) -> None:
        """End the call because the client violated its protocol or its limits."""
        self._fail(entry, code, text)
        self.push(Cancelled(entry.call.id, text))

    def _refuse(self, stream: Stream, code: Code, text: str) -> None:
        self.connection.end(stream, ANSWER_HEADERS + failure(code.value, text))

    def _close(self, entry: OpenCall) -> None:
        if self._front.closed(entry.call.id):
            self._buffered -= entry.held
            self._front.buffered -= entry.held
            if entry.kind is Kind.UNARY and entry.half_closed:
                self.unanswered -= 1
            entry.stream.context = None


_MORE_THAN_ONE = "grpc: more than one message for a call that takes one"


def _unknown(path: str, methods: Mapping[str, Kind]) -> str:
    """The error text for an unknown method, worded as in grpc-go because clients match it."""
    service, _, method = path.removeprefix("/").rpartition("/")
    prefix = f"/{service}/"
    if any(known.startswith(prefix) for known in methods):
        return f"unknown method {method} for service {service}"
    return f"unknown service {service}"
