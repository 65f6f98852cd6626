"""How long nobody can write after the leader was killed: ours and etcd, default settings, one run, one machine.

    make bench-failover

From `kill -9` of the leader until the first write is acknowledged that was sent after it. Writes are sent to both
members that are left, a new one every 20 ms, so that neither store is helped or hindered by how a client waits.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from etcd_cluster import EtcdCluster
from holdfast import client
from holdfast_lab.processes import LocalCluster, leader_among
from rich.console import Console
from rich.table import Table

EVERY_SECONDS = 0.02
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 30


async def next_write(endpoints: list[str], number: int, kill: Callable[[], None]) -> float:
    """Kill, and return the seconds until a write at one of `endpoints` is acknowledged."""
    clients = [client.connect(e, timeout=10.0, session_ttl=0) for e in endpoints]
    for hf in clients:
        await hf.get("warm", serializable=True)
    done = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def write(hf: client.Client, key: str) -> None:
        try:
            await hf.put(key, "x")
            done.set()
        except client.ClientError:
            pass  # another one is on its way

    await asyncio.get_running_loop().run_in_executor(None, kill)
    began = time.monotonic()
    count = 0
    while not done.is_set():
        for hf in clients:
            count += 1
            tasks.add(asyncio.ensure_future(write(hf, f"/failover/{number}/{count}")))
        try:
            async with asyncio.timeout(EVERY_SECONDS):
                await done.wait()
        except TimeoutError:
            continue
    took = time.monotonic() - began
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for hf in clients:
        await hf.close()
    return took


async def leader_of(endpoints: list[str]) -> str:
    for _ in range(200):
        leader = await leader_among(endpoints)
        if leader is not None:
            return leader
        await asyncio.sleep(0.1)
    raise TimeoutError("no leader")


async def rounds(
    endpoints: list[str],
    kill: Callable[[str], None],
    start: Callable[[str], None],
    ready: Callable[[], Awaitable[None]],
) -> list[float]:
    gaps = []
    for number in range(ROUNDS):
        await ready()
        victim = await leader_of(endpoints)
        left = [e for e in endpoints if e != victim]
        gaps.append(await next_write(left, number, lambda v=victim: kill(v)))
        start(victim)
    return gaps


def ours(directory: Path) -> list[float]:
    cluster = LocalCluster(directory)
    by_endpoint = {p.endpoint: p for p in cluster.voters.values()}
    cluster.start()
    try:
        return asyncio.run(
            rounds(
                cluster.endpoints,
                lambda e: by_endpoint[e].kill(),
                lambda e: by_endpoint[e].start(),
                cluster.wait_ready,
            )
        )
    finally:
        cluster.stop()


def theirs(directory: Path) -> list[float]:
    cluster = EtcdCluster(directory)
    cluster.start()

    async def ready() -> None:
        await asyncio.get_running_loop().run_in_executor(None, cluster.wait_ready)

    try:
        return asyncio.run(rounds(cluster.endpoints, cluster.kill, cluster.start, ready))
    finally:
        cluster.stop()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="holdfast-failover-", ignore_cleanup_errors=True) as directory:
        measured = {"holdfast": ours(Path(directory) / "ours"), "etcd": theirs(Path(directory) / "etcd")}
    table = Table(f"{ROUNDS} leaders killed", "median s", "mean s", "90 % s", "worst s", box=None)
    for name, gaps in measured.items():
        ninth = sorted(gaps)[int(len(gaps) * 0.9)] if len(gaps) > 1 else gaps[0]
        row = [statistics.median(gaps), statistics.mean(gaps), ninth, max(gaps)]
        table.add_row(name, *(f"{value:.3f}" for value in row))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
