"""Listening sockets, and an accept loop that hands each connection over before anything is read from it.

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
        self._tasks: dict[socket.socket, asyncio.Task[None]] = {}

    @property
    def ports(self) -> list[int]:
        return [listening.getsockname()[1] for listening in self._tasks]

    def accept_from(self, sockets: list[socket.socket]) -> None:
        for listening in sockets:
            self._tasks[listening] = asyncio.ensure_future(self._accept(listening))

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._no_room(error)
                    await asyncio.sleep(RETRY_SECONDS)
                continue  # other errors: the connection ended before it was accepted
            self._accepted(sock, str(address[0]))

    async def close(self) -> None:
        """Accept nothing more, and close the listening sockets."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for listening in tasks:
            listening.close()
