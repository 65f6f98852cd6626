"""Registers on three clusters of real processes, one of which goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from holdfast import cells, client
from holdfast.cells import Cells, CellsUnavailable, NotSetUp
from holdfast_lab.processes import LocalCluster

pytestmark = pytest.mark.timeout(120)
NAMES = ("eu", "us", "ap")


@pytest.fixture
async def clusters(tmp_path: Path) -> AsyncIterator[dict[str, LocalCluster]]:
    made = {name: LocalCluster(tmp_path / name, voters=1) for name in NAMES}
    try:
        for cluster in made.values():
            cluster.start()
        for cluster in made.values():
            await cluster.wait_ready(60)
        yield made
    finally:
        for cluster in made.values():
            cluster.kill()
            print(cluster.logs())


def reach(clusters: dict[str, LocalCluster], timeout: float = 10.0) -> Cells:
    clients = {name: client.connect(cluster.endpoints, timeout=timeout) for name, cluster in clusters.items()}
    return cells.connect(clients, timeout=timeout)


async def test_a_register_survives_the_loss_of_a_minority(clusters: dict[str, LocalCluster]) -> None:
    async with reach(clusters) as them, reach(clusters) as others:
        primary = them.register("primary")
        with pytest.raises(NotSetUp, match="not set up"):
            await primary.read()
        await them.set_up()
        await others.set_up()
        assert await primary.read() is None
        assert await primary.change(lambda before: before or b"eu") == b"eu"
        assert await others.register("primary").change(lambda before: before or b"us") == b"eu"
        clusters["eu"].kill()
        assert await primary.change(lambda _: "us") == b"us"
        assert await others.register("primary").read() == b"us"
        clusters["ap"].kill()
    async with reach(clusters, timeout=2.0) as them:
        with pytest.raises(CellsUnavailable, match="too few cells answered"):
            await them.register("primary").read()
        with pytest.raises(CellsUnavailable, match="too few cells answered"):
            await them.register("primary").change(lambda _: "ap")
        clusters["ap"].start()
        await clusters["ap"].wait_ready(60)
        assert await them.register("primary").read() == b"us"
        clusters["eu"].start()


async def test_changes_by_many_are_made_one_after_the_other(clusters: dict[str, LocalCluster]) -> None:
    """Each reads what the one before wrote, also while a cell is killed and comes back."""

    def one_more(before: bytes | None) -> bytes:
        return str(int(before or b"0") + 1).encode()

    async def count(them: Cells, times: int) -> list[int]:
        register = them.register("count")
        return [int(await register.change(one_more) or b"") for _ in range(times)]

    async with reach(clusters, 30.0) as a, reach(clusters, 30.0) as b, reach(clusters, 30.0) as c:
        await a.set_up()
        counting = asyncio.gather(*(count(them, 10) for them in (a, b, c)))
        while int(await a.register("count").read() or b"0") < 5:
            await asyncio.sleep(0.01)
        clusters["us"].kill()
        clusters["us"].start()
        seen = [number for numbers in await counting for number in numbers]
        assert sorted(seen) == list(range(1, 31))
        assert await b.register("count").read() == b"30"


async def test_a_cell_of_another_set_is_refused(clusters: dict[str, LocalCluster]) -> None:
    async with reach(clusters) as them:
        await them.set_up()
    swapped = dict(zip(("us", "eu", "ap"), clusters.values(), strict=True))
    async with reach(swapped) as wrong:
        with pytest.raises(NotSetUp, match="is set up already"):
            await wrong.set_up()
    fewer = {name: clusters[name] for name in ("eu", "us")}
    async with reach(fewer) as wrong:
        with pytest.raises(NotSetUp, match="ap belong to the set, and no endpoints are given"):
            await wrong.register("primary").read()
