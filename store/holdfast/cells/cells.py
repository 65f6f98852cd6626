"""The cells, from the side of a program."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from holdfast.cells.cell_set import CellSet
from holdfast.cells.links import Links, set_up
from holdfast.cells.register import Register
from holdfast.client.client import Client


def connect(clients: Mapping[str, Client], *, timeout: float = 10.0) -> Cells:
    """`clients`: one of each cell, by the cell's name; `Cells` closes them. `timeout`: seconds for each call."""
    return Cells(clients, timeout)


class Cells:
    def __init__(self, clients: Mapping[str, Client], timeout: float) -> None:
        self._links = Links(clients)
        self._timeout = timeout

    async def __aenter__(self) -> Cells:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for client in self._links.clients.values():
            await client.close()

    async def set_up(self) -> CellSet:
        """Make these clusters a set of cells, once. All of them have to answer."""
        return await set_up(self._links.clients)

    def register(self, name: str) -> Register:
        return Register(self._links, name, self._timeout)
