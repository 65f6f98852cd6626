"""What is left of transactions between cells, and when it goes. Three clusters of real processes."""

from __future__ import annotations

import asyncio

import pytest
from holdfast.cells import Cells, CellsUnavailable
from holdfast.cells import janitor as janitors
from holdfast.cells.participant import Outcome
from holdfast.client.txn import Ops
from holdfast_lab.processes import LocalCluster

from .test_cell_transactions import nothing_is_open, stop_after, value
from .test_registers import NAMES, clusters, reach  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(120)


async def left(them: Cells, below: str) -> set[str]:
    """What the cells have below this prefix."""
    found = [await them.client(cell).range(below, prefix=True) for cell in NAMES]
    return {kv.key.decode().removeprefix(below).split("/")[0] for result in found for kv in result.kvs}


async def ended(them: Cells, count: int) -> None:
    """Until so many sessions are left."""
    async with asyncio.timeout(20):
        while len(await left(them, "/cells/sessions/")) > count:
            await asyncio.sleep(0.05)


async def test_nothing_is_left_of_what_is_over(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them, reach(clusters) as others:
        await them.set_up()
        janitor = them.janitor()
        for number in range(3):
            assert (await others.txn().at("eu").then(Ops.put(f"/{number}", "1")).at("us").then().commit()).succeeded
        refused = others.txn().at("eu").if_(them.client("eu").key("/none").version > 0).at("ap").then(Ops.put("/9", ""))
        assert not (await refused.commit()).succeeded
        assert (await janitor.sweep()).forgotten == 0, "the coordinator could still send a part"
        assert len(await left(them, "/cells/transactions/")) == 4
        await others.close()
        await ended(them, 0)
        assert (await janitor.sweep()).forgotten == 4
        assert await left(them, "/cells/transactions/") == set()
        assert await left(them, "/cells/registers/") == set()
        # A coordinator that was late asks for the decision once more.
        await them._resolver.decide("late", Outcome.COMMITTED)
        await janitor.sweep()
        assert await left(them, "/cells/registers/") == set()
        assert await value(them, "eu", "/2") == b"1"


async def test_what_nobody_ends_the_janitor_does(
    clusters: dict[str, LocalCluster],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(janitors, "OLD_SECONDS", 0.5)
    async with reach(clusters) as them:
        await them.set_up()
        janitor = them.janitor()
        for step in range(4):
            async with reach(clusters) as others:
                txn = others.txn().at("eu").then(Ops.put(f"/{step}", "1")).at("us").then(Ops.put(f"/{step}", "1"))
                await stop_after(others, txn, step)
                assert (await janitor.sweep()).resolved == 0, "it may be at work"
                async with asyncio.timeout(10):
                    while not (await janitor.sweep()).resolved:
                        await asyncio.sleep(0.05)
            await nothing_is_open(them)
            assert await value(them, "eu", f"/{step}") == await value(them, "us", f"/{step}")
            await ended(them, 0)
            await janitor.sweep()
        assert await left(them, "/cells/transactions/") | await left(them, "/cells/registers/") == set()


async def test_without_a_cell_nothing_is_forgotten(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them:
        await them.set_up()
        async with reach(clusters) as others:
            assert (await others.txn().at("eu").then(Ops.put("/k", "1")).at("us").then().commit()).succeeded
        await ended(them, 0)
        clusters["ap"].kill()
        with pytest.raises(CellsUnavailable, match="nothing can be forgotten without ap"):
            await them.janitor().sweep()
        clusters["ap"].start()
        await clusters["ap"].wait_ready()
        assert (await them.janitor().sweep()).forgotten == 1
