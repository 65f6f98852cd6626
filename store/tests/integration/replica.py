"""An edge replica as a process, behind a relay that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from holdfast import client
from holdfast_lab.demo import Relay
from holdfast_lab.processes import LocalCluster, Process, free_ports


class Edge:
    """A replica behind a relay that can be cut."""

    def __init__(
        self,
        directory: Path,
        endpoints: list[str],
        prefixes: tuple[str, ...],
        data: Path | None = None,
        name: str = "berlin",
    ) -> None:
        self.name = name
        self.relay = Relay(endpoints)
        self.directory = directory
        self.data = data or directory / name
        self.prefixes = prefixes
        (self.port,) = free_ports(1)
        self.process: Process | None = None

    async def start(self, options: Sequence[str] = ()) -> None:
        await self.relay.start()
        arguments = [
            "edge",
            f"--name={self.name}",
            "--pool=shops",
            f"--data-dir={self.data}",
            f"--listen-client-urls=http://127.0.0.1:{self.port}",
            f"--endpoints=127.0.0.1:{self.relay.port}",
            *(f"--prefix={p}" for p in self.prefixes),
            *options,
        ]
        self.process = Process(self.name, arguments, self.directory / f"{self.name}.log", self.port)
        self.process.start()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def reaches(self, hf: client.Client, revision: int) -> None:
        async with asyncio.timeout(30):
            while (await hf.describe()).revision < revision:
                await asyncio.sleep(0.02)

    async def is_cut(self, hf: client.Client) -> None:
        async with asyncio.timeout(30):
            while (await hf.describe()).connected:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def following(cluster: LocalCluster, directory: Path, prefixes: tuple[str, ...]) -> AsyncIterator[Edge]:
    """A replica of the cluster, started; pytest shows the end of its log if the test failed."""
    found = Edge(directory, cluster.endpoints, prefixes)
    await cluster.wait_ready(60)
    await found.start()
    try:
        yield found
    finally:
        assert found.process is not None
        found.process.kill()
        await found.relay.close()
        print(found.process.tail(40))
