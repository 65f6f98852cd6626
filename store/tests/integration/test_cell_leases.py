"""Leases on three clusters of real processes, with holders that stop and clusters that go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from holdfast import cells, client
from holdfast.cells import Cells, CellsUnavailable, Holder, Lease, LeaseLost, LeaseRegister
from holdfast.client.errors import ClientError
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
        async with reach(made) as them:
            await them.set_up()
        yield made
    finally:
        for cluster in made.values():
            cluster.kill()
            print(cluster.logs())


def reach(clusters: dict[str, LocalCluster], timeout: float = 10.0) -> Cells:
    clients = {name: client.connect(cluster.endpoints, timeout=timeout) for name, cluster in clusters.items()}
    return cells.connect(clients, timeout=timeout)


async def acquired(primary: LeaseRegister, holder: str) -> Lease:
    """Also over times in which too few cells answer."""
    while True:
        try:
            return await primary.acquire(holder)
        except CellsUnavailable:
            await asyncio.sleep(0.1)


async def renewing(lease: Lease) -> None:
    """What a holder does that does not say when it stops."""
    while True:
        await lease.renew()
        await asyncio.sleep(0.2)


async def test_a_lease_goes_from_one_to_the_next(clusters: dict[str, LocalCluster]) -> None:
    async with reach(clusters) as them, reach(clusters) as others:
        primary, waiting = them.lease("primary", ttl=60), others.lease("primary", ttl=2)
        assert await primary.read() is None
        async with await primary.acquire("eu") as first:
            assert first.valid
            assert await waiting.try_acquire("us") is None
            assert await waiting.read() == Holder(b"eu", first.fence)
            next_one = asyncio.ensure_future(waiting.acquire("us"))
            await asyncio.wait([next_one], timeout=0.5)
            assert not next_one.done()
            clusters["ap"].kill()  # nobody needs it
        assert not first.valid
        async with asyncio.timeout(20):  # released: it is not waited for the ttl of the first one
            second = await next_one
        assert second.fence > first.fence
        assert await primary.read() == Holder(b"us", second.fence)

        stopped = asyncio.ensure_future(renewing(second))
        third = asyncio.ensure_future(primary.acquire("eu"))
        await asyncio.wait([stopped, third], timeout=2.5)  # longer than the ttl
        assert not third.done()
        assert second.valid
        stopped.cancel()
        lease = await third
        assert not second.valid
        assert lease.fence > second.fence
        with pytest.raises(LeaseLost):
            await second.renew()


async def test_who_is_cut_off_knows_it_before_another_one_has_it(clusters: dict[str, LocalCluster]) -> None:
    away = [clusters["eu"], clusters["us"]]
    async with (
        reach(clusters, timeout=2.0) as them,
        reach(clusters, timeout=2.0) as others,
        await them.lease("primary", ttl=3).acquire("eu") as first,
    ):
        next_one = asyncio.ensure_future(acquired(others.lease("primary", ttl=3), "us"))
        await asyncio.wait([next_one], timeout=1.0)
        assert first.valid
        for cluster in away:
            cluster.kill()
        with pytest.raises(ClientError):
            await first.renew()
        await first.lost.wait()
        assert not first.valid
        assert not next_one.done()
        for cluster in away:
            cluster.start()
        second = await next_one
        assert second.valid
        assert second.fence > first.fence
        assert not first.valid
