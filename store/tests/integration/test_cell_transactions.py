"""Transactions between three clusters of real processes, whose coordinators stop at any point."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable

import pytest
from holdfast.cells import Cells, CellsTxn, CellsUnavailable, Result, TransactionAborted
from holdfast.cells.participant import Outcome
from holdfast.client import Client, OutcomeUnknown
from holdfast.client.txn import Ops
from holdfast_lab.processes import LocalCluster

from .test_registers import NAMES, clusters, reach  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(180)


async def value(them: Cells, cell: str, key: str) -> bytes | None:
    found = await them.client(cell).get(key)
    return None if found is None else found.value


async def stop_after(them: Cells, txn: CellsTxn, step: int) -> None:
    """Do what `commit` does, up to this step."""
    async with them._sessions.of(sorted(txn._parts)) as sessions:
        parts = txn._made("stopped", sessions)
    first = next(iter(parts))
    if step == 0:
        await txn._prepare({first: parts[first]}, time.monotonic() + 10)
        return
    assert await txn._prepare(parts, time.monotonic() + 10) is None
    if step >= 2:
        assert await them._resolver.decide("stopped", Outcome.COMMITTED) is Outcome.COMMITTED
    if step == 3:
        assert (
            await them._resolver.tell("stopped", Outcome.COMMITTED, {first: sessions[first]}, {}) is Outcome.COMMITTED
        )


async def nothing_is_open(them: Cells) -> None:
    """No cell has an intent."""
    for cell in NAMES:
        assert (await them.client(cell).range("/cells/intents/", prefix=True)).count == 0, cell


async def test_a_key_is_moved_whole_or_not_at_all(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them:
        await them.set_up()
        await them.client("eu").put("/stock", "1")

        def move() -> Awaitable[Result]:
            return (
                them.txn()
                .at("eu")
                .if_(Client.key("/stock").value == "1")
                .then(Ops.delete("/stock"))
                .at("us")
                .then(Ops.put("/stock", "1"))
                .commit()
            )

        assert await move() == Result(succeeded=True)
        assert await value(them, "eu", "/stock") is None
        assert await value(them, "us", "/stock") == b"1"
        assert await move() == Result(succeeded=False, differs="eu")
        await nothing_is_open(them)
        clusters["us"].kill()
        await them.client("eu").put("/stock", "1")
        with pytest.raises(CellsUnavailable, match="nothing was changed: us"):
            await move()
        assert await value(them, "eu", "/stock") == b"1"


@pytest.mark.parametrize("step", range(4))
async def test_others_decide_when_a_coordinator_is_gone(
    clusters: dict[str, LocalCluster],  # noqa: F811
    step: int,
) -> None:
    """It stops after it has prepared one part, all parts, decided, or told one cell."""
    async with reach(clusters) as them, reach(clusters) as gone:
        await them.set_up()
        await gone.set_up()
        stopped = gone.txn().at("eu").then(Ops.put("/a", "1")).at("us").then(Ops.put("/a", "1"))
        await stop_after(gone, stopped, step)
        began = asyncio.get_running_loop().time()
        done = await them.txn().at("us").then(Ops.put("/a", "2")).at("eu").then(Ops.put("/a", "2")).commit()
        assert done.succeeded
        assert asyncio.get_running_loop().time() - began < 3
        assert [await value(them, cell, "/a") for cell in ("eu", "us")] == [b"2", b"2"]
        await nothing_is_open(them)


async def test_the_sum_of_all_accounts_stays(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    """Many transfer money between the cells, and each may stop at any point of that; a cell is killed meanwhile."""
    chance = random.Random(7)
    async with reach(clusters, 20.0) as them:
        await them.set_up()
        for cell in NAMES:
            await them.client(cell).put("/money", "100")

        async def transfer() -> None:
            source, target = chance.sample(NAMES, 2)
            has, gets = int(await value(them, source, "/money") or b""), int(await value(them, target, "/money") or b"")
            amount = chance.randrange(1, 10)
            await (
                them.txn()
                .at(source)
                .if_(Client.key("/money").value == str(has))
                .then(Ops.put("/money", str(has - amount)))
                .at(target)
                .if_(Client.key("/money").value == str(gets))
                .then(Ops.put("/money", str(gets + amount)))
                .commit()
            )

        became: list[str] = []

        async def one() -> None:
            try:
                async with asyncio.timeout(chance.choice([20, 20, 0.01, 0.03, 0.06, 0.1])):
                    await transfer()
            except TransactionAborted:
                became.append("aborted")
            except (TimeoutError, CellsUnavailable, OutcomeUnknown):
                became.append("stopped")
            else:
                became.append("done")

        async def many() -> None:
            while min(became.count("done"), became.count("stopped")) < 6:
                await one()

        running = asyncio.gather(*(many() for _ in range(3)))
        while len(became) < 6:
            await asyncio.sleep(0.01)
        clusters["ap"].kill()
        clusters["ap"].start()
        await running
        print({what: became.count(what) for what in set(became)})
        await clusters["ap"].wait_ready(60)
        for cell in NAMES:
            for kv in (await them.client(cell).range("/cells/intents/", prefix=True)).kvs:
                await them.resolve(cell, kv.value.decode())
        await nothing_is_open(them)
        assert sum([int(await value(them, cell, "/money") or b"") for cell in NAMES]) == 300
