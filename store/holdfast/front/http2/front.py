"""The front that serves gRPC and plain HTTP on one port, as etcd does, in plain Python on the event loop.

The first bytes of a connection tell which protocol it speaks. Events are handed over in batches, and all responses of
a batch to one connection are sent in one write. A connection with too many open calls is not read from until some are
answered, so a client that floods the server delays only itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from holdfast.cert_names import common_names, uris
from holdfast.front.calls import Action, AddressInUse, Event, Kind, Peer, Unary
from holdfast.front.http import HttpHandler
from holdfast.front.http1 import Http1
from holdfast.front.http2.frames import PREFACE, ConnectionBroken, ErrorCode
from holdfast.front.http2.handshakes import BACKLOG, TlsPorts
from holdfast.front.http2.requests import OpenCall
from holdfast.front.http2.session import Session
from holdfast.ports import bind

log = logging.getLogger("holdfast.front")

MAX_CALLS = 20_000  # open requests of any kind, over all connections
FEW_CALLS = 16  # open requests that a connection may always have
TURN_CALLS = 16  # events polled from one connection before the next one
TURN_BYTES = 16 << 10  # of the requests polled at once, which the last one may exceed: they can cost much to check
LOST_STREAMS = 1000  # streams of a lost connection that are ended in one turn of the loop
MAX_MESSAGE_BYTES = 2 << 20  # as in etcd: the largest request (1.5 MiB) plus 512 KiB
MAX_STREAMS = MAX_CALLS // 2  # open streams of one connection
MAX_CONNECTIONS = 1 << 20
PAUSE_CALLS = 2_000  # unanswered unary calls of one connection above which it is not read from
FIRST_BYTES_SECONDS = 10.0  # time limit for the first bytes of a connection
SWEEP_SECONDS = 5.0  # between two checks of all connections
STALLED_SECONDS = 60.0  # close a connection whose peer acknowledges no data for this long
WRITE_BUFFER_BYTES = 1 << 18
TELL_SECONDS = 60.0  # least time between two equal log lines


class Http2Front:
    """Serves the gRPC `methods` (full path -> kind), and passes everything else to `http`.

    A connection beyond `max_connections` is refused, or, with `newest_first`, replaces the connection that has been
    idle longest.
    """

    def __init__(
        self,
        methods: Mapping[str, Kind],
        http: HttpHandler,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_streams: int = MAX_STREAMS,
        max_connections: int = MAX_CONNECTIONS,
        newest_first: bool = False,
        keepalive_seconds: float = 7200.0,
        keepalive_timeout_seconds: float = 20.0,
    ) -> None:
        self.methods = methods
        self.http = http
        self.max_message_bytes = max_message_bytes
        self._max_streams = min(max_streams, MAX_STREAMS)
        self._max_connections = max_connections
        self._newest_first = newest_first
        self._keepalive = keepalive_seconds
        self._keepalive_timeout = keepalive_timeout_seconds
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._turns: deque[Session] = deque()  # connections with events to poll; the next one first
        self._ids = itertools.count(1)
        self.open_calls: dict[int, OpenCall] = {}
        self.streams = 0  # open requests of any kind
        self.received_bytes = self.sent_bytes = 0
        self.buffered = 0  # bytes of request messages that are incomplete or wait for credit
        self.queued = 0  # bytes of responses that wait for clients to read
        self.connections: set[_Wire] = set()
        self._servers: list[asyncio.Server] = []
        self._tls_ports = TlsPorts(self.has_room, lambda: _Wire(self, admitted=True))
        self._told_full_at = float("-inf")
        self._touched: dict[_Wire, None] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None

    # ---- starting and stopping -----------------------------------------------------------------------------

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Serve on this address. Returns the port. Raises AddressInUse."""
        try:
            sockets = await self._bind(host, port, tls)
        except OSError as error:
            raise AddressInUse(
                f"cannot listen for clients on {host}:{port}: {error.strerror or error}; is another process using the "
                "port?"
            ) from error
        for listening in sockets:  # accepted sockets inherit these options
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_SECONDS * 1000))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(STALLED_SECONDS))
        if self._sweeper is None:
            self._sweep()
        return int(sockets[0].getsockname()[1])

    async def _bind(self, host: str, port: int, tls: ssl.SSLContext | None) -> Sequence[socket.socket]:
        if tls is not None:
            return await self._tls_ports.listen(host, port, tls)
        sockets = await bind(host, port, BACKLOG)
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._servers.append(await loop.create_server(lambda: _Wire(self), sock=sock, backlog=BACKLOG))
        return sockets

    def _sweep(self) -> None:
        """Close connections that send no first bytes or do not answer a ping; ping those that have been idle long."""
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        now = time.monotonic()
        for wire in list(self.connections):
            try:
                wire.check(now, self._keepalive, self._keepalive_timeout)
            except Exception:
                wire.failed()

    async def drain(self, grace_seconds: float) -> None:
        """Accept no new connections and calls, and wait up to `grace_seconds` for open calls."""
        for server in self._servers:
            server.close()
        self._tls_ports.stop_accepting()
        for wire in list(self.connections):
            wire.go_away()
        if self.open_calls:
            self._drained = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self._drained.wait()

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for server in self._servers:
            server.close()
        await self._tls_ports.close()
        for wire in list(self.connections):
            wire.close()
        await asyncio.sleep(0)
        os.close(self._event)

    # ---- the interface -------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._event

    @property
    def waiting(self) -> bool:
        return bool(self._turns)

    def poll(self, max_events: int) -> list[Event]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        events: list[Event] = []
        size = 0
        while self._turns and len(events) < max_events and size < TURN_BYTES:
            session = self._turns.popleft()
            waiting = session.events
            for _ in range(min(TURN_CALLS, len(waiting), max_events - len(events))):
                event = waiting.popleft()
                if not isinstance(event, Unary):
                    events.append(event)
                elif event.call.id in self.open_calls:  # skip cancelled calls
                    events.append(event)
                    size += len(event.body)
                    if size >= TURN_BYTES:
                        break
            if waiting:
                self._turns.append(session)
        if self._turns:
            os.eventfd_write(self._event, 1)
        return events

    def send(self, actions: Iterable[Action]) -> set[int]:
        over: set[int] = set()
        for action in actions:
            entry = self.open_calls.get(action.id)
            if entry is None:
                continue
            try:
                if entry.session.act(entry, action):
                    over.add(action.id)
            except Exception:  # must not affect the other calls of the batch
                log.exception("an answer to %s cannot be sent", entry.call.method)
                entry.session.break_down(entry)
            entry.session.touched()
        self._write_touched()
        return over

    # ---- called by sessions --------------------------------------------------------------------------------

    def has_events(self, session: Session) -> None:
        """Queue a connection that got its first pending event."""
        if not self._turns:
            os.eventfd_write(self._event, 1)
        self._turns.append(session)

    def next_id(self) -> int:
        return next(self._ids)

    def admits(self, open: int) -> bool:
        """Whether a connection may have `open` requests open: at most as many as are still free for the others, so that
        no single connection can use up MAX_CALLS."""
        return open <= FEW_CALLS or open <= MAX_CALLS - self.streams

    def has_room(self) -> bool:
        """Whether there is room for another connection. If not, logs it at most once per TELL_SECONDS."""
        if len(self.connections) + self._tls_ports.handshakes < self._max_connections:
            return True
        if self._tls_ports.end_oldest():
            return True
        if self._newest_first:
            quietest = min(self.connections, key=lambda wire: wire.heard_at)
            self.connections.discard(quietest)
            quietest.abort()
            return True
        now = time.monotonic()
        if now > self._told_full_at + TELL_SECONDS:
            self._told_full_at = now
            log.warning(
                "%d clients are connected, as many as the file descriptors allow (ulimit -n); more are refused",
                len(self.connections),
            )
        return False

    def closed(self, id: int) -> bool:
        """Note that a call is over. Returns whether it was open."""
        known = self.open_calls.pop(id, None) is not None
        if self._drained is not None and not self.open_calls:
            self._drained.set()
        return known

    def touch(self, wire: _Wire) -> None:
        """Schedule a write to this connection: at the end of the batch, or in the loop's next turn."""
        if not self._touched:
            asyncio.get_running_loop().call_soon(self._write_touched)
        self._touched[wire] = None

    def _write_touched(self) -> None:
        touched, self._touched = self._touched, {}
        for wire in touched:
            try:
                wire.write_output()
            except Exception:
                wire.failed()


class _Wire(asyncio.Protocol):
    """A client's socket: HTTP/2, HTTP/1.1, or not known yet."""

    def __init__(self, front: Http2Front, *, admitted: bool = False) -> None:
        """`admitted`: `has_room` was already checked for this connection."""
        self._front = front
        self._admitted = admitted
        self._transport: Any = None
        self._session: Session | None = None
        self._http1: Http1 | None = None
        self._first = b""
        self.heard_at = time.monotonic()
        self._reading = True
        self._full = False  # too many unanswered calls
        self._going_on = False  # the rest of the received bytes is processed in the loop's next turn

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if not self._admitted and not self._front.has_room():
            transport.abort()
            return
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self._front.connections.add(self)

    def _peer(self) -> Peer:
        transport = self._transport
        address = transport.get_extra_info("peername")
        shown = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)
        certificate = transport.get_extra_info("peercert")
        tls = transport.get_extra_info("ssl_object") is not None
        return Peer(shown, tls, common_names(certificate), uris(certificate))

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        self._front.received_bytes += len(data)
        if self._session is None and self._http1 is None:
            data = self._first = self._first + data
            if not self._choose(data):
                return
            self._first = b""
        if self._http1 is not None:
            self._http1.receive(data)
            return
        if self._session is not None:
            self._receive(self._session, data)

    def _receive(self, session: Session, data: bytes) -> None:
        try:
            session.connection.receive(data, time.monotonic_ns())
        except ConnectionBroken as broken:
            self._break(broken.code, str(broken))
            return
        if session.connection.has_output:
            self._front.touch(self)
        self._regulate(session)

    def _regulate(self, session: Session) -> None:
        """Stop reading from a client that has too many open calls, does not read its responses, or has sent more than
        one turn can process. Resume when that is over."""
        if self._transport.is_closing():
            return
        self._full = session.unanswered > (PAUSE_CALLS // 2 if self._full else PAUSE_CALLS)
        reading = not self._full and not session.connection.paused
        if session.connection.behind:
            if reading and not self._going_on:
                self._going_on = True
                asyncio.get_running_loop().call_soon(self._go_on)
            reading = False
        if reading is self._reading:
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _go_on(self) -> None:
        self._going_on = False
        session = self._session
        if session is not None and session.connection.behind and not self._transport.is_closing():
            self._receive(session, b"")

    def failed(self) -> None:
        """Abort this connection, and no other, after an unexpected exception."""
        log.exception("%s: a connection failed inside the server", self._transport.get_extra_info("peername"))
        self._transport.abort()

    def _choose(self, data: bytes) -> bool:
        if len(data) < len(PREFACE) and PREFACE.startswith(data):
            return False
        if data.startswith(PREFACE):
            self._session = session = Session(self._front, self._peer(), self._front._max_streams)
            session.touched = lambda: self._front.touch(self)
        else:
            self._http1 = Http1(self._transport, self._front.http, self._peer())
        return True

    def write_output(self) -> None:
        session, transport = self._session, self._transport
        if session is None or transport.is_closing():
            return
        if session.connection.has_output:
            output = session.connection.take_output()
            self._front.sent_bytes += len(output)
            transport.write(output)
        self._regulate(session)
        if session.connection.has_output:  # more than one turn sends; a full socket reports by `resume_writing`
            self._front.touch(self)
        if session.connection.going_away and not session.connection.streams:
            transport.close()

    def pause_writing(self) -> None:
        if self._session is not None:
            self._session.connection.paused = True
            self._regulate(self._session)
        elif self._http1 is not None:
            self._http1.pause()

    def resume_writing(self) -> None:
        if self._session is not None:
            self._session.connection.resume()
            self._front.touch(self)
        elif self._http1 is not None:
            self._http1.resume()

    def _break(self, code: ErrorCode, why: str) -> None:
        log.debug("%s: %s", self._transport.get_extra_info("peername"), why)
        assert self._session is not None
        self._session.connection.go_away(code, why)
        self._transport.write(self._session.connection.take_output())
        self._transport.close()

    def eof_received(self) -> None:
        if self._http1 is not None:
            self._http1.ended()

    def connection_lost(self, error: Exception | None) -> None:
        self._front.connections.discard(self)
        if self._session is not None:
            self._session.touched = lambda: None
            _end_all(self._session)
        elif self._http1 is not None:
            self._http1.lost()
        self._session = self._http1 = None  # break the reference cycle, to free memory without the collector

    def check(self, now: float, keepalive: float, timeout: float) -> None:
        session, quiet = self._session, now - self.heard_at
        if session is None:
            if quiet > FIRST_BYTES_SECONDS:
                self._transport.abort() if self._http1 is None else self._http1.time_out()
            return
        session.end_overdue(time.monotonic_ns())
        if session.connection.has_output:
            self._front.touch(self)
        if not self._reading:
            return  # the acknowledgement of a PING would not be read
        if session.connection.pinged:
            if quiet > keepalive + timeout:
                self._transport.abort()
        elif quiet > keepalive:
            session.connection.ping()
            self.write_output()

    def go_away(self) -> None:
        if self._session is not None:
            self._session.connection.go_away()
            self.write_output()
        elif self._http1 is None or self._http1.idle:
            self._transport.close()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


def _end_all(session: Session) -> None:
    """End the calls of a client that has disconnected, LOST_STREAMS in each turn of the loop."""
    if not session.connection.lost(LOST_STREAMS):
        asyncio.get_running_loop().call_soon(_end_all, session)
