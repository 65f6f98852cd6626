"""Accepts connections on the peer port, and limits those that are not identified yet.

Each connection costs a file descriptor, and without free ones a member can neither write its log nor open its state. So
a connection counts as unknown from its acceptance, before TLS, until its member is known or it ends; the number of
unknown ones is limited per address and in all. A member has one connection per purpose: a new one replaces the old one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

from holdfast.member.frames import READ_BUFFER_BYTES
from holdfast.ports import Acceptor, bind

log = logging.getLogger("holdfast.peer")

MAX_UNKNOWN, MAX_UNKNOWN_OF_ONE_ADDRESS = 128, 32
SAID_EVERY_SECONDS = 60.0
_BACKLOG = 128

Serve = Callable[["Inbound"], Awaitable[None]]


class Seldom:
    """Logs a warning at most once a minute for each cause."""

    def __init__(self, most: int = 256) -> None:
        self._said: dict[object, float] = {}
        self._most = most

    def warn(self, cause: object, line: str, *arguments: object) -> None:
        now = time.monotonic()
        said = self._said.get(cause)
        if said is not None and now < said + SAID_EVERY_SECONDS:
            return
        if len(self._said) >= self._most:
            self._said = {c: at for c, at in self._said.items() if now < at + SAID_EVERY_SECONDS}
            if len(self._said) >= self._most:
                return
        self._said[cause] = now
        log.warning(line, *arguments)


class Inbound:
    """One incoming connection. `reader` and `writer` are set once TLS is established."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __init__(self, address: str) -> None:
        self.address = address
        self.member = 0  # 0 = not known yet
        self.purpose = ""
        self.task: asyncio.Task[None] | None = None

    def end(self) -> None:
        if self.task is not None:
            self.task.cancel()


class Door:
    """All connections of one peer port. `serve` runs as a task for each; the connection ends with it."""

    def __init__(self, serve: Serve, tls: ssl.SSLContext | None, handshake_seconds: float) -> None:
        self._serve = serve
        self._tls = tls
        self._handshake_seconds = handshake_seconds
        self._acceptor = Acceptor(self._accepted, self._no_room)
        self._unknown: dict[Inbound, None] = {}  # oldest first
        self._of_address: Counter[str] = Counter()
        self._known: dict[tuple[int, str], Inbound] = {}
        self._seldom = Seldom()

    async def listen(self, host: str, port: int) -> None:
        """Accept connections to this address. Raises OSError."""
        self._acceptor.accept_from(await bind(host, port, _BACKLOG))

    @property
    def ports(self) -> list[int]:
        return self._acceptor.ports

    @property
    def count(self) -> int:
        return len(self._unknown) + len(self._known)

    def _no_room(self, error: OSError) -> None:
        self._seldom.warn("room", "no peer is accepted now: %s", error.strerror)

    def _accepted(self, sock: socket.socket, address: str) -> None:
        if self._of_address[address] >= MAX_UNKNOWN_OF_ONE_ADDRESS:
            sock.close()
            self._seldom.warn(
                address,
                "%s has %d connections to the peer port and has not said who it is: no more are accepted",
                address,
                MAX_UNKNOWN_OF_ONE_ADDRESS,
            )
            return
        if len(self._unknown) >= MAX_UNKNOWN:
            next(iter(self._unknown)).end()
            self._seldom.warn("many", "over %d connections to the peer port have not said whose they are", MAX_UNKNOWN)
        connection = Inbound(address)
        self._unknown[connection] = None
        self._of_address[address] += 1
        connection.task = asyncio.ensure_future(self._run(connection, sock))

    def know(self, connection: Inbound, member: int, purpose: str) -> None:
        """The connection is identified as `member`'s. Ends an older one of this member for the same purpose."""
        self._forget(connection)
        connection.member, connection.purpose = member, purpose
        before = self._known.pop((member, purpose), None)
        if before is not None:
            before.end()
        self._known[member, purpose] = connection

    def of(self, member: int, purpose: str) -> Inbound | None:
        return self._known.get((member, purpose))

    def shut_out(self, members: Collection[int]) -> None:
        for (member, _), connection in list(self._known.items()):
            if member in members:
                connection.end()

    def _forget(self, connection: Inbound) -> None:
        if connection in self._unknown:
            del self._unknown[connection]
            self._of_address[connection.address] -= 1
            if not self._of_address[connection.address]:
                del self._of_address[connection.address]
        elif self._known.get((connection.member, connection.purpose)) is connection:
            del self._known[connection.member, connection.purpose]

    async def _run(self, connection: Inbound, sock: socket.socket) -> None:
        try:
            await self._open(connection, sock)
            try:
                await self._serve(connection)
            finally:
                connection.writer.close()
        except (OSError, TimeoutError, ssl.SSLError) as error:
            log.debug("a connection of %s ended: %s", connection.address, error)
        finally:
            self._forget(connection)

    async def _open(self, connection: Inbound, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection.reader = reader = asyncio.StreamReader(limit=READ_BUFFER_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        more = (
            {} if self._tls is None else {"ssl_handshake_timeout": self._handshake_seconds, "ssl_shutdown_timeout": 1}
        )
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._tls, **more)
        except BaseException:
            sock.close()
            raise
        connection.writer = asyncio.StreamWriter(transport, protocol, reader, loop)

    async def close(self) -> None:
        self._acceptor.close()
        connections = (*self._unknown, *self._known.values())
        tasks = [c.task for c in connections if c.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
