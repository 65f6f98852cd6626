"""Load and faults for a set time, then a verdict."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from holdfast import client

from holdfast_lab.crash.clients import LoadClient, LoadWatcher
from holdfast_lab.crash.cluster import CrashCluster
from holdfast_lab.crash.faults import Faults
from holdfast_lab.crash.judge import judge, whole_history
from holdfast_lab.crash.powercut import PowerCut
from holdfast_lab.sim.operations import Outcome
from holdfast_lab.sim.violation import Violation, check

CLIENTS = 6
WATCHERS = 3


@dataclass(slots=True)
class Report:
    seconds: float
    operations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    revisions: int = 0
    forks: int = 0
    power_undone: int = 0
    stale_reads: int = 0

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.seconds:.0f} s: {self.operations['done']:,} operations answered, {self.operations['unknown']:,} of "
            f"unknown outcome, {self.operations['refused']:,} refused or not sent; {self.revisions:,} revisions; "
            f"{self.stale_reads:,} serializable reads; faults: {faults}; {self.power_undone:,} unsynced changes lost "
            f"by power cuts; the order of operations was searched at {self.forks:,} places"
        )


async def crash_test(
    seconds: float, members: int, seed: int, power_cuts: bool, keep: Path | None, only: Collection[str] = ()
) -> Report:
    """Raises Violation if the servers did anything wrong. `keep`: leave logs and data there. `only`: these faults."""
    directory = keep or Path(tempfile.mkdtemp(prefix="holdfast-crash-"))
    directory.mkdir(parents=True, exist_ok=True)
    chance = Random(seed)
    power = PowerCut(directory / "power", Random(seed + 1)) if power_cuts else None
    cluster = CrashCluster(directory, members, power)
    try:
        await cluster.start()
        return await _run(cluster, Faults(cluster, chance, only), seconds)
    except client.ClientError as error:
        for name in cluster.names:
            cluster.check_running(name)  # its exception has more detail
        raise Violation("L1", f"a client failed for good: {error}") from error
    finally:
        await cluster.close()
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)


async def _run(cluster: CrashCluster, faults: Faults, seconds: float) -> Report:
    began = time.monotonic()
    ids = itertools.count(1)
    clients = [LoadClient(n, cluster.endpoints, ids, session=n % 2 == 0) for n in range(CLIENTS)]
    watchers = [LoadWatcher(cluster.endpoints) for _ in range(WATCHERS)]
    load = [asyncio.ensure_future(c.run()) for c in clients]
    watching = [asyncio.ensure_future(w.run()) for w in watchers]
    trouble = asyncio.ensure_future(faults.run())
    try:
        await asyncio.wait([trouble, *load, *watching], timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in (trouble, *load, *watching):
            if task.done():
                task.result()  # these tasks end by themselves only with an error
        faults.stop()
        await trouble
        await cluster.wait_ready()
        for worker in clients:
            worker.stopping = True
        await asyncio.gather(*load)
        revision = await _agree(cluster)
        history = await whole_history(cluster.endpoints[0], revision)
        await _until_told(watchers, sum(s.key.startswith(b"/k/") for s in history))
    finally:
        for task in (trouble, *load, *watching):
            task.cancel()
        await asyncio.gather(trouble, *load, *watching, return_exceptions=True)
    report = Report(time.monotonic() - began, faults=faults.done, revisions=revision, power_undone=faults.power_undone)
    operations = [o for worker in clients for o in worker.history]
    report.operations.update("unknown" if o.outcome is Outcome.OPEN else o.outcome.value for o in operations)
    stale = [read for worker in clients for read in worker.stale]
    report.stale_reads = len(stale)
    report.forks = judge(operations, stale, watchers, history)
    return report


async def _agree(cluster: CrashCluster) -> int:
    """Do one last write; then all members must have the same content."""
    async with client.connect(cluster.endpoints, timeout=30.0) as hf:
        revision = (await hf.put("/end", "x")).revision
    hashes = set()
    for endpoint in cluster.endpoints:
        async with client.connect(endpoint, timeout=30.0) as hf:
            await hf.get("/end")
            answer = await hf.hash_kv(endpoint, revision)
            hashes.add((answer.hash, answer.compact_revision))
    check(len(hashes) == 1, "I5", f"members differ at revision {revision}: {hashes}")
    return revision


async def _until_told(watchers: list[LoadWatcher], count: int) -> None:
    try:
        async with asyncio.timeout(30):
            while any(len(w.seen) < count for w in watchers):
                await asyncio.sleep(0.1)
    except TimeoutError:
        told = [len(w.seen) for w in watchers]
        raise Violation("I11", f"watches were told {told} of {count} changes and hear nothing more") from None
