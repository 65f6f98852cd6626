"""Listening sockets, and an acceptor that hands each connection over before anything is read from it.

asyncio reports a TLS connection only after its handshake. Until then the connection uses a file descriptor that nobody
counts, and a member without a free descriptor cannot write its log. Who has to count connections accepts them here.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

RETRY_SECONDS = 0.1  # before accepting again, when there is no descriptor or memory for a connection
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


async def bind(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listen on all addresses of `host`, except those of an address family that this machine does not use; `::` also
    takes IPv4, as in etcd, and only IPv4 where there is no IPv6. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    unused: OSError | None = None
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                bound.append(_listen(socket.socket(family, kind, protocol), address, host, backlog))
            except OSError as error:
                if error.errno not in _NO_FAMILY:
                    raise
                unused = error
    except OSError:
        for sock in bound:
            sock.close()
        raise
    if unused is not None and not bound:
        if host == "::":
            return await bind("0.0.0.0", port, backlog)
        raise unused
    return bound


def _listen(sock: socket.socket, address: Any, host: str, backlog: int) -> socket.socket:
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind(address)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


class Acceptor:
    """Accepts the connections of some listening sockets. `accepted` gets each connection and its remote address;
    `no_room` is called when the system has no room for a connection."""

    def __init__(
        self, accepted: Callable[[socket.socket, str], None], no_room: Callable[[OSError], None] = lambda _: None
    ) -> None:
        self._accepted = accepted
        self._no_room = no_room
        self._pausing: dict[socket.socket, asyncio.TimerHandle | None] = {}  # of each listening socket

    @property
    def ports(self) -> list[int]:
        return [listening.getsockname()[1] for listening in self._pausing]

    def accept_from(self, sockets: list[socket.socket]) -> None:
        for listening in sockets:
            self._resume(listening)

    def _resume(self, listening: socket.socket) -> None:
        self._pausing[listening] = None
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, address = listening.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._no_room(error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                self._pausing[listening] = loop.call_later(RETRY_SECONDS, self._resume, listening)
            return  # other errors: the connection ended before it was accepted
        sock.setblocking(False)
        self._accepted(sock, str(address[0]))

    def close(self) -> None:
        """Accept nothing more, and close the listening sockets."""
        loop = asyncio.get_running_loop()
        pausing, self._pausing = self._pausing, {}
        for listening, timer in pausing.items():
            if timer is not None:
                timer.cancel()
            loop.remove_reader(listening)
            listening.close()
