"""Accepts TLS connections, so that each counts against the limit from the moment it is accepted.

A connection uses a file descriptor before its handshake is done, but asyncio reports it only afterwards. A client that
opened connections and sent nothing could use up all descriptors, and a member without one cannot write its log.
Therefore this module accepts sockets itself, one by one; at the limit, the oldest unfinished handshake is ended.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

log = logging.getLogger("holdfast.front")

HANDSHAKE_SECONDS = 10.0
BACKLOG = 4096
RETRY_SECONDS = 0.1  # wait before accepting again when no descriptor is free
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class TlsPorts:
    """Listening TLS sockets. `admit` decides on each accepted connection; `protocol` makes the protocol that serves it
    after the handshake."""

    def __init__(self, admit: Callable[[], bool], protocol: Callable[[], asyncio.Protocol]) -> None:
        self._admit = admit
        self._protocol = protocol
        self._handshakes: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []

    @property
    def handshakes(self) -> int:
        """How many accepted connections have not finished their handshake."""
        return len(self._handshakes)

    def end_oldest(self) -> bool:
        """End the oldest unfinished handshake. Returns whether there was one."""
        oldest = next(iter(self._handshakes), None)
        if oldest is None:
            return False
        del self._handshakes[oldest]
        oldest.cancel()
        return True

    async def listen(self, host: str, port: int, tls: ssl.SSLContext) -> list[socket.socket]:
        """Bind the addresses of `host`, as asyncio does. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        bound: list[socket.socket] = []
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                sock = socket.socket(family, kind, protocol)
                bound.append(sock)
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
                sock.listen(BACKLOG)
        except OSError:
            for sock in bound:
                sock.close()
            raise
        self._sockets += bound
        self._accepting += [asyncio.ensure_future(self._accept(sock, tls)) for sock in bound]
        return bound

    async def _accept(self, listening: socket.socket, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    await asyncio.sleep(RETRY_SECONDS)
                continue  # other errors: the client disconnected before it was accepted
            if not self._admit():
                sock.close()
                continue
            task = asyncio.ensure_future(self._shake_hands(sock, tls))
            self._handshakes[task] = None
            task.add_done_callback(lambda done: self._handshakes.pop(done, None))

    async def _shake_hands(self, sock: socket.socket, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._protocol, sock, ssl=tls, ssl_handshake_timeout=HANDSHAKE_SECONDS)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError | TimeoutError | asyncio.CancelledError):
                raise
            log.debug("a TLS handshake failed: %r", error)

    def stop_accepting(self) -> None:
        for task in self._accepting:
            task.cancel()
        for sock in self._sockets:
            sock.close()
        self._accepting, self._sockets = [], []

    def close(self) -> None:
        self.stop_accepting()
        while self.end_oldest():
            pass
