"""Consistent caches of real clients and members: nothing old is read, and writes wait for as long as is stated."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest
from holdfast import client
from holdfast.client.cache import Cache
from holdfast_lab.processes import LocalCluster

from .replica import Edge

PREFIX = "app/"
LONGEST_WAIT = 2.2  # for a holder that does not answer
HOLDER = """
import sys
from holdfast import client
hf = client.connect_blocking(sys.argv[1])
cache = hf.cache("app/", consistent=True)
while True:
    if cache.is_current:
        print("holds", flush=True)
        sys.stdin.readline()
"""


async def holding(cache: Cache) -> None:
    """Wait until the cache holds a lease and is current."""
    async with asyncio.timeout(20):
        while not cache.is_current:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await cache.moved()


async def logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    """Wait until this was logged: the holder asks for its lease beside what the cache is asked."""
    async with asyncio.timeout(20):
        while words not in caplog.text:
            await asyncio.sleep(0.02)


async def ready(cluster: LocalCluster) -> None:
    async with client.connect(cluster.endpoints, timeout=20) as hf:
        await hf.put(PREFIX + "n", "0")
        assert await hf.allow_caching(PREFIX)


async def took(work: Awaitable[object]) -> float:
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def test_reads_cost_no_call_and_are_never_old(cluster: LocalCluster) -> None:
    await ready(cluster)
    async with (
        client.connect(cluster.endpoints, timeout=20) as reader,
        client.connect(cluster.endpoints, timeout=20) as writer,
        await reader.cache(PREFIX, consistent=True) as cache,
    ):
        await holding(cache)
        calls = {address: known.calls for address, known in reader.metrics().items()}
        for _ in range(1000):
            await cache.current()
            assert cache[PREFIX + "n"].value == b"0"
        assert {address: known.calls for address, known in reader.metrics().items()} == calls
        assert cache.age == 0.0
        for number in range(1, 200):
            await writer.put(PREFIX + "n", str(number))
            await cache.current()
            assert cache[PREFIX + "n"].value == b"%d" % number
        await holding(cache)


async def test_nothing_old_is_read_while_leaders_are_killed(cluster: LocalCluster) -> None:
    """Reads from the copy, without waiting, beside writes: whatever was acknowledged before a read is in it."""
    await ready(cluster)
    acknowledged, reads, current = 0, 0, 0
    async with (
        client.connect(cluster.endpoints, timeout=20) as reader,
        client.connect(cluster.endpoints, timeout=20) as writer,
        await reader.cache(PREFIX, consistent=True) as cache,
    ):
        await holding(cache)
        over = asyncio.Event()

        async def reading() -> None:
            nonlocal reads, current
            while not over.is_set():
                before = acknowledged
                reads += 1
                if cache.is_current:
                    current += 1
                    assert int(cache[PREFIX + "n"].value) >= before
                await asyncio.sleep(0.001)

        async def writing() -> None:
            nonlocal acknowledged
            number = 0
            while not over.is_set():
                number += 1
                with contextlib.suppress(client.OutcomeUnknown):
                    await writer.put(PREFIX + "n", str(number))
                    acknowledged = number
                await asyncio.sleep(0.3)

        async def killing() -> None:
            for _ in range(4):
                await asyncio.sleep(2)
                leader = await cluster.leader()
                leader.kill()
                await asyncio.sleep(2)
                leader.start()
            over.set()

        await asyncio.gather(reading(), writing(), killing())
        assert acknowledged > 10
        assert current > reads / 10, "the cache hardly ever held a lease"


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_write_waits_for_a_lost_holder_no_longer_than_its_lease(
    cluster: LocalCluster, how: signal.Signals
) -> None:
    await ready(cluster)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, ",".join(cluster.endpoints)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == "holds\n"
        async with client.connect(cluster.endpoints, timeout=20) as hf:
            assert await took(hf.put(PREFIX + "n", "1")) < 1.0  # it acknowledges
            assert holder.stdin is not None
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert await asyncio.to_thread(holder.stdout.readline) == "holds\n"
            os.kill(holder.pid, how)
            await hf.put("elsewhere", "x")
            first = await took(hf.put(PREFIX + "n", "2"))
            assert first < LONGEST_WAIT + 1.0
            assert await took(hf.put(PREFIX + "n", "3")) < 1.0
            assert await took(hf.put(PREFIX + "n", "4")) < 1.0
            print(f"   a write waited {first:.2f} s for a holder that was sent {how.name}")
    finally:
        holder.kill()
        holder.wait()
        holder.communicate()


async def test_who_closes_its_cache_is_not_waited_for(cluster: LocalCluster) -> None:
    await ready(cluster)
    async with client.connect(cluster.endpoints, timeout=20) as hf:
        for number in range(3):
            cache = await hf.cache(PREFIX, consistent=True)
            await holding(cache)
            await cache.close()
            assert not cache.is_current
            assert await took(hf.put(PREFIX + "n", str(number))) < 1.0


async def test_without_a_lease_the_cluster_is_asked(
    cluster: LocalCluster, edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """A prefix that is not declared; and a replica, which gives no leases."""
    async with client.connect(cluster.endpoints, timeout=20) as hf, await hf.cache("a/", consistent=True) as cache:
        await hf.put("a/x", "1")
        await cache.current()
        assert cache["a/x"].value == b"1"
        assert not cache.is_current
        await logged(caplog, "holdfast cache --help")
        assert await hf.allow_caching("/a/")
        async with client.connect(edge.endpoint, timeout=20) as at_edge:
            async with await at_edge.cache("/a/", consistent=True) as there:
                await there.current()
                await logged(caplog, "a replica gives no cache leases")
                assert not there.is_current
            assert await at_edge.cachable() == [b"/a/"]  # is forwarded


def test_the_commands(server: LocalCluster, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "holdfast", "cache", *words, "--endpoints", server.endpoints[0]]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("allow", "x/").stdout == "x/ is cachable\n"
    assert run("allow", "x/").stdout == "x/ is cachable already\n"
    assert "have keys in common" in run("allow", "x/y/").stderr
    assert run("list", "-o", "simple").stdout == "x/\n"
    assert run("forbid", "x/").stdout == "x/ is not cachable any more\n"
    again = run("forbid", "x/")
    assert (again.returncode, again.stderr) == (1, "error: x/ is not declared as cachable\n")
