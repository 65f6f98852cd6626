"""A client of three real members of which one is frozen: its connections stay open, and nothing comes."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from pathlib import Path

import pytest
from holdfast import client
from holdfast.client.client import Client
from holdfast_lab.processes import LocalCluster, Process, leader_among

pytestmark = pytest.mark.integration
FROZEN_SECONDS = 12.0


def by_port(local: LocalCluster, address: str) -> Process:
    return next(p for p in local.voters.values() if p.endpoint == address)


async def reading(hf: Client, until: float) -> list[float]:
    """How long each read took; any that fails ends the test."""
    took = []
    while time.monotonic() < until:
        began = time.monotonic()
        found = await hf.get("a")
        assert found is not None
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.005)
    return took


async def writing(hf: Client, until: float) -> None:
    number = 0
    while time.monotonic() < until:
        await hf.put("/n", str(number := number + 1))
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("leader", [False, True])
async def test_no_read_fails_and_a_watch_goes_on_elsewhere(tmp_path: Path, leader: bool) -> None:
    local = LocalCluster(tmp_path, voters=3)
    local.start()
    try:
        await local.wait_ready()
        async with client.connect(local.endpoints) as hf:
            await hf.put("a", "1")
            leads = await leader_among(local.endpoints)
            heard: list[float] = []

            async def watching() -> None:
                async for _ in hf.watch("/n"):
                    heard.append(time.monotonic())  # noqa: PERF401 - the moments count

            watch = asyncio.ensure_future(watching())
            readers = [asyncio.ensure_future(reading(hf, time.monotonic() + 2.0)) for _ in range(4)]
            await asyncio.gather(*readers)
            streams = {address: known.streams for address, known in hf.metrics().items()}
            assert leads is not None
            watched = next(a for a, n in streams.items() if n)
            frozen = leads if leader else next(a for a in (watched, *streams) if a != leads)
            process = by_port(local, frozen)
            assert process.running is not None
            until = time.monotonic() + FROZEN_SECONDS
            work = asyncio.gather(*(reading(hf, until) for _ in range(4)))
            writer = asyncio.ensure_future(writing(hf, until))
            await asyncio.sleep(0.2)
            began = time.monotonic()
            os.kill(process.running.pid, signal.SIGSTOP)
            try:
                took = sorted(seconds for one in await work for seconds in one)
                await writer
            finally:
                os.kill(process.running.pid, signal.SIGCONT)
            watch.cancel()
            assert len(took) > 200
            assert took[len(took) * 99 // 100] < 1.5, took[-5:]
            moments = [began, *(at for at in heard if at > began)]
            longest = max(b - a for a, b in itertools.pairwise(moments))
            assert longest < 5.0, f"the watch was deaf for {longest:.1f} s"
            print(
                f"   {len(took)} reads, p99 {took[len(took) * 99 // 100]:.2f} s, worst {took[-1]:.2f} s, "
                f"the watch was deaf for {longest:.1f} s at most"
            )
    finally:
        local.kill()
