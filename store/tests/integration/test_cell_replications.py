"""A prefix is replicated from one cluster to another: real clusters, of one process each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from holdfast.cells import Cells, Replication, ReplicationRefused
from holdfast.client import Client, ClientError
from holdfast.client.txn import Ops
from holdfast_lab.processes import LocalCluster

from .test_registers import clusters, reach  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(180)
PREFIX = "/global/"


@asynccontextmanager
async def running(*replications: Replication) -> AsyncIterator[list[ClientError]]:
    """They run meanwhile. Yields the errors of which they tell."""
    errors: list[ClientError] = []

    def told(news: int | ClientError) -> None:
        if isinstance(news, ClientError):
            errors.append(news)

    tasks = [asyncio.ensure_future(each.run(told)) for each in replications]
    try:
        yield errors
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ended:
        if not isinstance(end, asyncio.CancelledError):
            raise AssertionError(f"a replication ended: {end}") from end


async def state(client: Client, prefix: str = PREFIX) -> dict[bytes, bytes]:
    return {kv.key: kv.value for kv in (await client.range(prefix, prefix=True)).kvs}


async def equal(them: Cells, source: str, destination: str, prefix: str = PREFIX) -> dict[bytes, bytes]:
    """Wait until the destination is equal to what the source has now, and return that."""
    wanted = await state(them.client(source), prefix)
    while await state(them.client(destination), prefix) != wanted:
        await asyncio.sleep(0.02)
    return wanted


async def test_a_snapshot_then_changes(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them:
        await them.set_up()
        eu, us = them.client("eu"), them.client("us")
        for n in range(700):
            await eu.put(f"/global/{n:04d}", f"{n}")
        await eu.put("/elsewhere", "eu")
        await us.put("/global/0001", "it is overwritten")
        await us.put("/global/zzz", "it is removed")
        await us.put("/globe", "it stays")
        replication = them.replication("eu", "us", PREFIX)
        assert (await replication.lag()).reached is None
        async with running(them.replication("eu", "us", PREFIX)) as errors:
            assert len(await equal(them, "eu", "us")) == 700
            lease = await eu.lease(60)
            await eu.put("/global/leased", "for a while", lease=lease)
            await eu.put("/global/0002", "changed")
            await eu.delete("/global/01", prefix=True)
            found = await equal(them, "eu", "us")
            assert len(found) == 601
            copied = await us.get("/global/leased")
            assert copied is not None
            assert not copied.lease
            await lease.revoke()
            assert b"/global/leased" not in await equal(them, "eu", "us")
            assert await us.get("/elsewhere") is None
            assert [kv.value for kv in (await us.range("/globe")).kvs] == [b"it stays"]
            await eu.put("/elsewhere", "again")
            while (await replication.lag()).behind:
                await asyncio.sleep(0.05)
        assert errors == []
        written = (await us.range("/global/0003")).kvs[0]
        assert written.version == 1


async def test_large_transactions_and_values(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters, 30.0) as them:
        await them.set_up()
        eu, us = them.client("eu"), them.client("us")
        async with running(them.replication("eu", "us", PREFIX)) as errors:
            await eu.txn().then(*(Ops.put(f"/global/{n:03d}", "x") for n in range(128))).commit()
            await equal(them, "eu", "us")
            revisions = {kv.mod_revision for kv in (await us.range("/global/", prefix=True)).kvs}
            assert len(revisions) == 1, "the transaction was not torn"
            for large in (1_500_000, 1_572_864 - 40):
                await eu.put("/global/large", b"v" * large)
                assert len((await equal(them, "eu", "us"))[b"/global/large"]) == large
        assert errors == []
