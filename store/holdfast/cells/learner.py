"""Learns what the cells choose as the value of a register, without asking them again and again.

Who waits for a register to change would have to read it over and over, and a read while another proposer is at work
gets in its way. Here each cell tells what it accepts, by a watch of its own; what a quorum has accepted is chosen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType

from holdfast.cells import wire
from holdfast.cells.acceptor import Accepted
from holdfast.cells.cell_set import CellSet
from holdfast.cells.links import Links
from holdfast.cells.record import Record
from holdfast.client.client import Client
from holdfast.client.errors import ClientError
from holdfast.tasks import Tasks

PAUSE_SECONDS = 0.5  # before a cell that did not answer is asked again


class Learner:
    """Of one register, while it is entered by `async with`."""

    def __init__(self, links: Links, name: str, timeout: float) -> None:
        self._links = links
        self._key = wire.accepted_key(name)
        self._timeout = timeout
        self._accepted: dict[str, Accepted] = {}  # newest, by cell
        self._told: Accepted | None = None
        self._moved = asyncio.Event()
        self._tasks = Tasks()

    async def __aenter__(self) -> Learner:
        for cell, client in self._links.clients.items():
            self._tasks.spawn(self._follow(cell, client))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel()

    async def next(self) -> bytes | None:
        """A value that was chosen, another one than the last time; waits for it. Of several the newest is enough. It
        may be old: a newer one may have been chosen already."""
        cells = await self._links.cells(self._timeout)
        while (chosen := self._chosen(cells)) is None or chosen == self._told:
            self._moved.clear()
            await self._moved.wait()
        self._told = chosen
        return Record.unpacked(chosen.value).value

    def _chosen(self, cells: CellSet) -> Accepted | None:
        by: dict[Accepted, set[str]] = {}
        for cell, accepted in self._accepted.items():
            by.setdefault(accepted, set()).add(cell)
        return next((accepted for accepted, where in by.items() if cells.is_quorum(where)), None)

    async def _follow(self, cell: str, client: Client) -> None:
        while True:
            try:
                async for value in self._values(client):
                    self._accepted[cell] = wire.accepted(value)
                    self._moved.set()
            except ClientError:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _values(self, client: Client) -> AsyncIterator[bytes | None]:
        """What the cell has, and then each change of it. Raises ClientError."""
        found = await client.range(self._key)
        yield found.kvs[0].value if found.kvs else None
        async for event in client.watch(self._key, start_revision=found.revision + 1):
            yield event.kv.value if event.type == "put" else None
