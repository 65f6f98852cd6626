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


class VirtualAddress:
    """One address for several servers: each new connection goes to the next one, as with a Service of Kubernetes."""

    def __init__(self, ports: list[int]) -> None:
        self.ports: list[int] = []  # that connections went to
        self._next = itertools.cycle(ports)
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> VirtualAddress:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = next(self._next)
        self.ports.append(port)
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_copy(reader, back), _copy(there, writer), return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def test_behind_one_address_a_frozen_member_is_left(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path, voters=3)
    local.start()
    try:
        await local.wait_ready()
        ports = [process.port for process in local.voters.values()]
        async with VirtualAddress(ports) as address, client.connect(address.endpoint) as hf:
            await hf.put("a", "1")
            frozen = next(p for p in local.voters.values() if p.port == address.ports[0])
            assert frozen.running is not None
            os.kill(frozen.running.pid, signal.SIGSTOP)
            try:
                began = time.monotonic()
                await hf.put("a", "2")
                found = await hf.get("a")
                assert found is not None
                assert found.value == b"2"
                print(f"{time.monotonic() - began:.1f} s")
                assert len(address.ports) > 1
            finally:
                os.kill(frozen.running.pid, signal.SIGCONT)
    finally:
        local.kill()
