"""Accepts TLS connections, so that each counts against the limit from the moment it is accepted.

A client that opened connections and sent nothing could otherwise use up all file descriptors (see `holdfast.ports`).
At the limit, the oldest unfinished handshake is ended.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from holdfast.ports import Acceptor, bind

log = logging.getLogger("holdfast.front")

HANDSHAKE_SECONDS = 10.0
BACKLOG = 4096


class TlsPorts:
    """Listening TLS sockets. `admit` decides on each accepted connection; `protocol` makes the protocol that serves it
    after the handshake."""

    def __init__(self, admit: Callable[[], bool], protocol: Callable[[], asyncio.Protocol]) -> None:
        self._admit = admit
        self._protocol = protocol
        self._handshakes: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._acceptors: list[Acceptor] = []

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
        """Accept connections to this address. Raises OSError."""
        sockets = await bind(host, port, BACKLOG)
        acceptor = Acceptor(lambda sock, _: self._accepted(sock, tls))
        acceptor.accept_from(sockets)
        self._acceptors.append(acceptor)
        return sockets

    def _accepted(self, sock: socket.socket, tls: ssl.SSLContext) -> None:
        if not self._admit():
            sock.close()
            return
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
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors = []

    async def close(self) -> None:
        self.stop_accepting()
        while self.end_oldest():
            pass
