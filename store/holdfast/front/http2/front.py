"""The front that serves gRPC and plain HTTP on one port, as etcd does, in plain Python on the event loop.

The first bytes of a connection tell which it is. What arrives is handed over in batches, and what answers of a batch
go to one connection leaves in one write. A connection whose calls pile up is not read from until some are answered:
a client that floods waits for itself.
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

from holdfast.front.calls import Action, AddressInUse, Event, Kind, Peer, Unary
from holdfast.front.http import HttpHandler
from holdfast.front.http1 import Http1
from holdfast.front.http2.frames import PREFACE, ConnectionBroken, ErrorCode
from holdfast.front.http2.handshakes import BACKLOG, TlsPorts
from holdfast.front.http2.requests import OpenCall
from holdfast.front.http2.session import Session

log = logging.getLogger("holdfast.front")

MAX_CALLS = 20_000  # requests of any kind, of all connections, that are open
FEW_CALLS = 16  # that a connection may always have open
TURN_CALLS = 16  # events of one connection before others have their turn
LOST_STREAMS = 1000  # of a connection that is gone, that are ended in one turn of the loop
MAX_MESSAGE_BYTES = 2 << 20  # etcd's: the largest request and 512 KiB around it
MAX_STREAMS = MAX_CALLS // 2  # of one connection
MAX_CONNECTIONS = 1 << 20
PAUSE_CALLS = 2_000  # unanswered unary calls of one connection, beyond which it is not read from
FIRST_BYTES_SECONDS = 10.0
SWEEP_SECONDS = 5.0
STALLED_SECONDS = 60.0  # a connection that takes nothing of what is sent to it for so long is ended
WRITE_BUFFER_BYTES = 1 << 18
TELL_SECONDS = 60.0  # between two lines of the log that say the same


class Http2Front:
    """Serves `methods` (full path to kind), and everything that is not gRPC by `http`.

    A connection beyond `max_connections` is refused, or, with `newest_first`, takes the place of the one that has been
    quiet for longest.
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
        self._turns: deque[Session] = deque()  # connections with events that nobody has polled; the next one first
        self._ids = itertools.count(1)
        self.open_calls: dict[int, OpenCall] = {}
        self.streams = 0  # requests of any kind that are open
        self.received_bytes = self.sent_bytes = 0
        self.buffered = 0  # bytes of messages that are not whole yet, or beyond their calls' credit
        self.queued = 0  # bytes of answers that their clients do not fetch
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
        for listening in sockets:  # what is accepted inherits it
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_SECONDS * 1000))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(STALLED_SECONDS))
        if self._sweeper is None:
            self._sweep()
        return int(sockets[0].getsockname()[1])

    async def _bind(self, host: str, port: int, tls: ssl.SSLContext | None) -> Sequence[socket.socket]:
        if tls is not None:
            return await self._tls_ports.listen(host, port, tls)
        server = await asyncio.get_running_loop().create_server(lambda: _Wire(self), host, port, backlog=BACKLOG)
        self._servers.append(server)
        return server.sockets

    def _sweep(self) -> None:
        """End what says nothing at the beginning, or does not answer a ping; ping what has been quiet for long."""
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        now = time.monotonic()
        for wire in list(self.connections):
            try:
                wire.check(now, self._keepalive, self._keepalive_timeout)
            except Exception:
                wire.failed()

    async def drain(self, grace_seconds: float) -> None:
        """Take no new connections and calls, and give running ones this long."""
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
        self._tls_ports.close()
        for wire in list(self.connections):
            wire.close()
        await asyncio.sleep(0)
        os.close(self._event)

    # ---- the interface -------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._event

    def poll(self, max_events: int) -> list[Event]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        events: list[Event] = []
        while self._turns and len(events) < max_events:
            session = self._turns.popleft()
            waiting = session.events
            for _ in range(min(TURN_CALLS, len(waiting), max_events - len(events))):
                event = waiting.popleft()
                if not isinstance(event, Unary) or event.call.id in self.open_calls:  # or it was given up meanwhile
                    events.append(event)
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
            except Exception:  # the others' answers are none the worse for it
                log.exception("an answer to %s cannot be sent", entry.call.method)
                entry.session.break_down(entry)
            entry.session.touched()
        self._write_touched()
        return over

    # ---- what sessions use ---------------------------------------------------------------------------------

    def has_events(self, session: Session) -> None:
        """This connection has events, and had none."""
        if not self._turns:
            os.eventfd_write(self._event, 1)
        self._turns.append(session)

    def next_id(self) -> int:
        return next(self._ids)

    def admits(self, open: int) -> bool:
        """Whether a connection may have so many requests open: as many as there is room left for other ones, so that
        however many it wants, there is some left."""
        return open <= FEW_CALLS or open <= MAX_CALLS - self.streams

    def has_room(self) -> bool:
        """For another connection. If not, the log says so now and then."""
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
                "%d clients are connected, all that there are file descriptors for (ulimit -n); more are refused",
                len(self.connections),
            )
        return False

    def closed(self, id: int) -> bool:
        """A call is over. Returns whether it was open."""
        known = self.open_calls.pop(id, None) is not None
        if self._drained is not None and not self.open_calls:
            self._drained.set()
        return known

    def touch(self, wire: _Wire) -> None:
        """This connection has something to write: at the end of the batch, or in a moment."""
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
    """A socket that a client opened: HTTP/2, HTTP/1.1, or nothing yet."""

    def __init__(self, front: Http2Front, *, admitted: bool = False) -> None:
        """`admitted`: it was found before that there is room for it."""
        self._front = front
        self._admitted = admitted
        self._transport: Any = None
        self._session: Session | None = None
        self._http1: Http1 | None = None
        self._first = b""
        self.heard_at = time.monotonic()
        self._reading = True
        self._full = False  # it has too much unanswered
        self._going_on = False  # what is left of the bytes that came is taken up in the loop's next turn

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
        name = ""
        for part in (certificate or {}).get("subject", ()):
            name = next((value for key, value in part if key == "commonName"), name)
        return Peer(shown, transport.get_extra_info("ssl_object") is not None, name)

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
        """Whoever has too much unanswered, or does not read what it is answered, or has sent more than a turn takes, is
        not read from."""
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
        """An exception that nobody expected ends this connection, and no other."""
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
        self._session = self._http1 = None  # or they would keep each other until the collector comes by

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
            return  # its answer to a ping would not be heard
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
    """The client is gone: end its calls, some in each turn of the loop."""
    if not session.connection.lost(LOST_STREAMS):
        asyncio.get_running_loop().call_soon(_end_all, session)
