"""The cells, from the side of a program."""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import TracebackType

from holdfast.cells.cell_set import CellSet
from holdfast.cells.janitor import Janitor
from holdfast.cells.lease import LeaseRegister
from holdfast.cells.links import Links, set_up
from holdfast.cells.queue import Queue
from holdfast.cells.queue_mending import mend_queues
from holdfast.cells.register import Register
from holdfast.cells.replication import Replication
from holdfast.cells.resolver import Resolver
from holdfast.cells.sessions import Sessions
from holdfast.cells.set_change import SetChange
from holdfast.cells.survey import Survey, survey
from holdfast.cells.transaction import CellsTxn
from holdfast.client.client import Client
from holdfast.client.values import to_bytes


def connect(clients: Mapping[str, Client], *, timeout: float = 10.0) -> Cells:
    """`clients`: one of each cell, by the cell's name; `Cells` closes them. `timeout`: seconds for each call."""
    return Cells(clients, timeout)


class Cells:
    def __init__(self, clients: Mapping[str, Client], timeout: float) -> None:
        self._links = Links(clients)
        self._timeout = timeout
        self._sessions = Sessions(self._links)
        self._resolver = Resolver(self._links, self.register, timeout)

    async def __aenter__(self) -> Cells:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._resolver.close()
        await self._sessions.close()
        for client in self._links.clients.values():
            await client.close()

    async def set_up(self) -> CellSet:
        """Make these clusters a set of cells, once. All of them have to answer."""
        return await set_up(self._links.clients)

    async def survey(self) -> Survey:
        """How the cells are, for people."""
        return await survey(self._links, self._timeout)

    async def change_set(self, cells: Set[str]) -> CellSet:
        """Make these cells the set; there has to be a client of each cell before and after. All that are added have to
        answer, and a majority before and after. It may be repeated after a failure."""
        return await SetChange(self._links, self.register, self._timeout).to(frozenset(cells))

    async def readmit(self, cell: str) -> dict[str, int]:
        """Take in a cell again whose cluster was restored from a snapshot. It has forgotten what it promised since, so
        it is removed from the set, and added as a new one; the others have to be a majority without it. Its queues go
        on behind what the other cells have. Returns how many messages of each source it had carried out and lost. A
        cell that counts is left as it is."""
        change = SetChange(self._links, self.register, self._timeout)
        if cell in (await change.remove_restored(cell)).cells:
            return {}
        lost = await mend_queues(self._links, cell)
        await change.add(cell)
        return lost

    def client(self, cell: str) -> Client:
        """The client of one cell."""
        return self._links.clients[cell]

    def txn(self) -> CellsTxn:
        """A transaction of keys in several cells."""
        return CellsTxn(self._links, self._sessions, self._resolver, self._timeout)

    async def resolve(self, cell: str, txn: str) -> None:
        """Bring a transaction to its end that this cell has a part of: it is aborted, unless it was decided to commit.
        Whoever waits for a key that it holds does so after a second."""
        await self._resolver.resolve(cell, txn)

    def janitor(self) -> Janitor:
        """Ends what coordinators have left, and removes what is over: `run` it in a process or two."""
        return Janitor(self._links, self._resolver, self._timeout)

    def queue(self, source: str, destination: str) -> Queue:
        """Messages from one cell to another."""
        return Queue(self._links, source, destination, self._timeout)

    def replication(self, source: str, destination: str, prefix: str | bytes) -> Replication:
        """All keys with `prefix`, from one cell to another."""
        return Replication(self._links, source, destination, to_bytes(prefix), self._timeout)

    def register(self, name: str) -> Register:
        """A value that the cells keep together."""
        return Register(self._links, name, self._timeout)

    def lease(self, name: str, *, ttl: float = 10.0) -> LeaseRegister:
        """What one process holds at a time. `ttl`: seconds until it is free again if its holder is gone."""
        return LeaseRegister(self._links, name, ttl, self._timeout)
