"""Several replicas side by side, each with power cuts of its own, until there were so many."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from random import Random

from holdfast_lab.crash.powercut import PowerCut
from holdfast_lab.powercuts.authority import Authority
from holdfast_lab.powercuts.life import Life, Report
from holdfast_lab.powercuts.replica import Replica
from holdfast_lab.processes import LocalCluster

REPLICAS = 4
SAY_CUTS = 100


async def cut_again_and_again(count: int, seed: int, keep: Path | None = None) -> Report:
    """Raises Violation if a replica was wrong, CannotBuild without a C compiler. `keep`: leave logs and data there."""
    directory = keep or Path(tempfile.mkdtemp(prefix="holdfast-powercuts-"))
    power = PowerCut(directory / "power", Random(seed + 1))
    cluster = LocalCluster(directory, voters=1)
    authority = Authority(cluster.endpoints[0], Random(seed))
    replicas = [Replica(f"r{n}", directory, authority, power, Random(seed + n)) for n in range(REPLICAS)]
    try:
        cluster.start()
        await cluster.wait_ready(60)
        await authority.fill()
        return await _run(authority, replicas, count, seed)
    finally:
        for replica in replicas:
            await replica.close()
        cluster.kill()
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)


async def _run(authority: Authority, replicas: list[Replica], count: int, seed: int) -> Report:
    report, began, told = Report(), time.monotonic(), 0
    lives = [Life(replica, report, Random(f"{seed} {replica.name}")) for replica in replicas]
    work = [asyncio.ensure_future(authority.write()), *(asyncio.ensure_future(life.run()) for life in lives)]
    try:
        while report.cuts.total() < count:
            done, _ = await asyncio.wait(work, timeout=0.2, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()  # these tasks end by themselves only with an error
            if report.cuts.total() // SAY_CUTS > told:
                told = report.cuts.total() // SAY_CUTS
                print(f"{report.cuts.total():,} cuts, {report.checks:,} checks", flush=True)
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    for task in work:
        if not task.cancelled():
            task.result()  # what was wrong since the last look
    report.seconds, report.revisions = time.monotonic() - began, authority.revision
    return report
