"""What it costs when a replica joins with a large snapshot, and how soon one that starts without a network answers.

    make bench-edge            (this is its second part, about three minutes)
    python benchmarks/edge_join.py [--keys 200000] [--boot-keys 400000] [--members 1]

Another client writes 100 times a second meanwhile. Its latencies count from when a put was due, so one that waits
delays those behind it. The replicas, which are elsewhere otherwise, run at the lowest priority. Memory is the highest
that the kernel saw (VmHWM), of a member and of a replica. Nothing here asserts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from holdfast import client
from holdfast_lab.processes import LocalCluster, Process, free_ports
from rich.console import Console
from rich.table import Table

PREFIX = "/join/"
VALUE = b"v" * 256
BATCH = 100  # keys in a transaction
RATE = 100  # puts a second
READY_SECONDS = 120


@dataclass
class Puts:
    """Latencies of the other client's puts, in ms."""

    took: list[float] = field(default_factory=list)

    def shown(self) -> tuple[str, str, str]:
        sorted_ = sorted(self.took) or [float("nan")]
        return tuple(f"{ms:.1f}" for ms in (sorted_[len(sorted_) // 2], sorted_[len(sorted_) * 99 // 100], sorted_[-1]))


def memory(pid: int) -> tuple[float, float]:
    """Resident memory now and at its highest, in MB."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found[name] = int(value.split()[0]) * 1024 / 1e6
    return found["VmRSS"], found["VmHWM"]


def forget_peak(pid: int) -> None:
    """Count the highest memory from now on."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def pid_of(process: Process) -> int:
    assert process.running is not None
    return process.running.pid


@asynccontextmanager
async def putting(hf: client.Client) -> AsyncIterator[Puts]:
    puts, stop = Puts(), asyncio.Event()

    async def put() -> None:
        await hf.put("/other/first", VALUE)  # connects
        began = time.monotonic()
        number = 0
        while not stop.is_set():
            due = began + number / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await hf.put(f"/other/{number % 100}", VALUE)
            puts.took.append((time.monotonic() - due) * 1000)
            number += 1

    task = asyncio.ensure_future(put())
    try:
        yield puts
    finally:
        stop.set()
        await task


async def fill(hf: client.Client, first: int, count: int) -> None:
    for at in range(first, first + count, BATCH):
        keys = [f"{PREFIX}{n:08d}" for n in range(at, min(at + BATCH, first + count))]
        await hf.txn().then(*(hf.op.put(key, VALUE) for key in keys)).commit()


def replica(directory: Path, name: str, endpoints: list[str]) -> Process:
    (port,) = free_ports(1)
    words = ["edge", f"--name={name}", f"--data-dir={directory / name}", f"--endpoints={','.join(endpoints)}"]
    words += [f"--listen-client-urls=http://127.0.0.1:{port}", f"--prefix={PREFIX}"]
    return Process(name, words, directory / f"{name}.log", port)


async def reaches(process: Process, revision: int) -> None:
    async with client.connect(process.endpoint, timeout=READY_SECONDS) as at, asyncio.timeout(READY_SECONDS):
        while True:
            node = await at.describe()
            if node.ready and node.revision >= revision:
                return
            await asyncio.sleep(0.02)


async def first_read(process: Process, key: str) -> float:
    """Seconds from the start of the process until it answers a read."""
    began = time.monotonic()
    process.start()
    async with client.connect(process.endpoint, timeout=READY_SECONDS) as at, asyncio.timeout(READY_SECONDS):
        while True:
            with contextlib.suppress(client.Unavailable):
                found = await at.get(key, serializable=True)
                assert found is not None
                return time.monotonic() - began
            await asyncio.sleep(0.005)


class Bench:
    def __init__(self, directory: Path, local: LocalCluster, hf: client.Client, chosen: argparse.Namespace) -> None:
        self.directory = directory
        self.local = local
        self.hf = hf
        self.chosen = chosen
        self.table = Table("", "puts p50, ms", "p99", "max", "seconds", "member, MB", "replica, MB", "elections")

    @property
    def members(self) -> list[int]:
        return [pid_of(process) for process in self.local.voters.values()]

    async def term(self) -> int:
        return (await self.hf.describe()).term

    def show(self, what: str, puts: Puts, seconds: float, replicas: list[Process], elections: int) -> None:
        member = max(memory(pid)[1] for pid in self.members)
        peaks = [memory(pid_of(process))[1] for process in replicas]
        row = (*puts.shown(), f"{seconds:.1f}", f"{member:.0f}", f"{max(peaks):.0f}" if peaks else "", str(elections))
        self.table.add_row(what, *row)
        print(what, *row, flush=True)

    async def joining(self, what: str, replicas: list[Process]) -> None:
        """These start now, and have to reach the cluster's revision."""
        for pid in self.members:
            forget_peak(pid)
        term = await self.term()
        revision = (await self.hf.describe()).revision
        async with putting(self.hf) as puts:
            began = time.monotonic()
            for process in replicas:
                await asyncio.get_running_loop().run_in_executor(None, process.start)
                os.setpriority(os.PRIO_PROCESS, pid_of(process), 19)
            await asyncio.gather(*(reaches(process, revision) for process in replicas))
            seconds = time.monotonic() - began
            await asyncio.sleep(1)
        self.show(what, puts, seconds, replicas, await self.term() - term)

    async def run(self) -> None:
        keys, endpoints = self.chosen.keys, self.local.endpoints
        idle = replica(self.directory, "idle", endpoints)
        await self.joining("a replica without data", [idle])
        idle.stop()
        await fill(self.hf, 0, keys)
        await asyncio.sleep(3)
        async with putting(self.hf) as puts:
            await asyncio.sleep(5)
        self.show("nobody joins", puts, 5, [], 0)
        one = replica(self.directory, "one", endpoints)
        with running([one]):
            await self.joining(f"one joins, {keys} keys", [one])
        four = [replica(self.directory, f"four{n}", endpoints) for n in range(4)]
        with running(four):
            await self.joining("four join at once", four)
        await fill(self.hf, 0, keys // 10)
        await self.hf.compact((await self.hf.describe()).revision)
        await asyncio.sleep(10)  # until the members have removed the rows
        with running([one]):
            await self.joining("one that fell behind the history", [one])

    async def boot(self) -> None:
        keys = self.chosen.boot_keys
        await fill(self.hf, self.chosen.keys, keys - self.chosen.keys)
        cold = replica(self.directory, "cold", self.local.endpoints)
        with running([cold]):
            cold.start()
            await reaches(cold, (await self.hf.describe()).revision)
        self.local.stop()
        size = sum(f.stat().st_size for f in (self.directory / "cold").rglob("*") if f.is_file()) / 1e6
        for _ in range(3):
            seconds = await first_read(cold, f"{PREFIX}{keys - 1:08d}")
            print(f"cold boot, {keys} keys, {size:.0f} MB on disk: first read after {seconds:.2f} s", flush=True)
            print(f"  memory {memory(pid_of(cold))[0]:.0f} MB")
            cold.stop()


@contextlib.contextmanager
def running(replicas: list[Process]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in replicas:
            process.stop()


async def measure(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="holdfast-join-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        local = LocalCluster(directory / "members", voters=chosen.members)
        local.start()
        try:
            await local.wait_ready()
            async with client.connect(local.endpoints, timeout=30) as hf:
                bench = Bench(directory, local, hf, chosen)
                await bench.run()
                await bench.boot()
        finally:
            local.stop()
    Console(width=140).print(bench.table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=200_000, help="of 256 bytes, for those that join")
    parser.add_argument("--boot-keys", type=int, default=400_000, help="of the replica that boots")
    parser.add_argument("--members", type=int, default=1)
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}", flush=True)
    asyncio.run(measure(chosen))


if __name__ == "__main__":
    main()
