"""Few places for slow work, shared by clients so that none of them delays the others.

Addresses take turns, and so do the connections of one address; within a connection the order of arrival counts. So
work waits at most for as many others as there are addresses (and connections of its own address), however much any
one client has asked for.

There are no shares by user name: whoever tries passwords of a user would use up that user's share, and so lock the user
out.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

_Waiting = deque["asyncio.Future[None]"]


class Full(Exception):
    """A connection has as much work open as it may."""


class Place:
    """`async with` it: waits for its turn, and gives the place back after the work."""

    def __init__(self, turn: asyncio.Future[None], give_back: Callable[[], None]) -> None:
        self._turn = turn
        self._give_back = give_back

    def give_up(self) -> None:
        """Wait no longer: `async with` raises CancelledError. Without effect on work that has begun."""
        self._turn.cancel()

    async def __aenter__(self) -> None:
        try:
            await self._turn
        except asyncio.CancelledError:
            if not self._turn.cancelled():  # the task was cancelled just after its turn had come
                self._give_back()
            raise

    async def __aexit__(self, *error: object) -> None:
        self._give_back()


class Places:
    """`places` pieces of work are done at the same time; a connection has at most `share` open, waiting ones
    included."""

    def __init__(self, places: int, share: int) -> None:
        self._free = places
        self._share = share
        self._open: Counter[str] = Counter()  # by connection: waiting, or in a place
        # By host, then by connection; each time the first one is taken from, and becomes the last.
        self._waiting: OrderedDict[str, OrderedDict[str, _Waiting]] = OrderedDict()

    def ask(self, address: str) -> Place:
        """A place for work of the client at `address` (HOST:PORT). Raises Full."""
        if self._open[address] >= self._share:
            raise Full
        self._open[address] += 1
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            turn.set_result(None)
        else:
            connections = self._waiting.setdefault(_host(address), OrderedDict())
            connections.setdefault(address, deque()).append(turn)
            turn.add_done_callback(lambda done: self._gave_up(address, turn) if done.cancelled() else None)
        return Place(turn, lambda: self._give_back(address))

    def _give_back(self, address: str) -> None:
        """The work of a client that had a place is done; the next one in turn gets the place."""
        self._close(address)
        self._free += 1
        while self._free and self._waiting:
            turn = self._next()
            if not turn.cancelled():  # otherwise `_gave_up` is about to be called
                self._free -= 1
                turn.set_result(None)

    def _next(self) -> asyncio.Future[None]:
        host, connections = self._waiting.popitem(last=False)
        address, queue = connections.popitem(last=False)
        turn = queue.popleft()
        if queue:
            connections[address] = queue
        if connections:
            self._waiting[host] = connections
        return turn

    def _gave_up(self, address: str, turn: asyncio.Future[None]) -> None:
        self._close(address)
        host = _host(address)
        connections = self._waiting.get(host, OrderedDict())
        queue = connections.get(address)
        if queue is None or turn not in queue:
            return  # its turn came in between
        queue.remove(turn)
        if not queue:
            del connections[address]
        if not connections:
            del self._waiting[host]

    def _close(self, address: str) -> None:
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


def _host(address: str) -> str:
    """The part of an address that clients cannot choose freely: of IPv6 the network, which is usually one site's."""
    host = address.rpartition(":")[0]
    try:
        ip = ip_address(host)
    except ValueError:
        return host
    return ip.packed[:8].hex() if isinstance(ip, IPv6Address) and ip.ipv4_mapped is None else host
