"""Cells as real clusters: processes on loopback that are killed with -9 and started again."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random

from holdfast import cells, client
from holdfast.cells import Cells

from holdfast_lab.processes import LocalCluster

NAMES = ("eu", "us", "ap", "sa", "af", "me", "oc")
READY_SECONDS = 120.0


@contextmanager
def kept(directory: Path | None, prefix: str) -> Iterator[Path]:
    """This directory; None: a temporary one."""
    where = directory or Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield where
    finally:
        if directory is None:
            shutil.rmtree(where, ignore_errors=True)


def reach(endpoints: Mapping[str, Sequence[str]], timeout: float) -> Cells:
    """`timeout`: seconds for each call to a cell, and for each transaction."""
    clients = {name: client.connect(list(where), timeout=timeout) for name, where in endpoints.items()}
    return cells.connect(clients, timeout=timeout)


@asynccontextmanager
async def running(directory: Path, count: int, voters: int, timeout: float) -> AsyncIterator[tuple[Clusters, Cells]]:
    """Clusters that are started and killed in the end, and a program that reaches them. `timeout`: see `reach`."""
    clusters = Clusters(directory, count, voters)
    try:
        await clusters.start()
        async with reach(clusters.endpoints, timeout) as them:
            yield clusters, them
    finally:
        clusters.kill()


class Clusters:
    """The first `count` of NAMES, each with so many voters, below `directory`."""

    def __init__(self, directory: Path, count: int, voters: int) -> None:
        self.directory = directory
        self.cells = {name: LocalCluster(directory / name, voters) for name in NAMES[:count]}

    @property
    def names(self) -> list[str]:
        return list(self.cells)

    @property
    def endpoints(self) -> dict[str, list[str]]:
        return {name: cluster.endpoints for name, cluster in self.cells.items()}

    async def start(self) -> None:
        """Start all, and make them cells."""
        for cluster in self.cells.values():
            cluster.start()
        await self.wait_ready()
        async with reach(self.endpoints, READY_SECONDS) as them:
            await them.set_up()

    async def wait_ready(self) -> None:
        """Wait until every voter answers. Raises RuntimeError."""
        await asyncio.gather(*(cluster.wait_ready(READY_SECONDS) for cluster in self.cells.values()))

    def kill(self) -> None:
        for cluster in self.cells.values():
            cluster.kill()

    # ---- faults --------------------------------------------------------------------------------------------

    async def kill_voter(self, chance: Random) -> None:
        """kill -9 of any voter, which comes back."""
        cluster = self.cells[chance.choice(self.names)]
        voter = cluster.voters[chance.choice(list(cluster.voters))]
        voter.kill()
        await asyncio.sleep(2 * chance.random())
        voter.start()
        await cluster.wait_ready(READY_SECONDS)

    async def kill_cell(self, chance: Random) -> None:
        """kill -9 of all voters of a cell, which is away for some seconds."""
        cluster = self.cells[chance.choice(self.names)]
        cluster.kill()
        await asyncio.sleep(1 + 5 * chance.random())
        cluster.start()
        await cluster.wait_ready(READY_SECONDS)
