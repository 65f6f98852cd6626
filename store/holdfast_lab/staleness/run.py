"""Reads and faults until so many reads are answered, then a verdict."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from holdfast import client

from holdfast_lab.sim.violation import Violation
from holdfast_lab.staleness.calls import Calls
from holdfast_lab.staleness.clients import (
    KEYS,
    READ_SECONDS,
    READERS,
    Client,
    Reader,
    Reads,
    text_of,
    until_fresh,
    write,
)
from holdfast_lab.staleness.faults import Faults
from holdfast_lab.staleness.judge import Judge
from holdfast_lab.staleness.tree import PLACES, Tree

SAY_SECONDS = 60.0
LOOK_SECONDS = 0.2
HEALED_SECONDS = 150.0  # a replica waits up to two minutes for an upstream that cannot say how old its data is


@dataclass(slots=True)
class Report:
    seconds: float = 0.0
    writes: int = 0
    reads: Reads = field(default_factory=Reads)
    behind: int = 0
    oldest: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        return sum(self.reads.answered.values())

    def __str__(self) -> str:
        r = self.reads
        modes = "\n".join(
            f"{mode}: {r.answered[mode]:,} answered, {r.refused[mode]:,} refused, {r.silent[mode]:,} without an answer"
            for mode in sorted(r.answered)
        )
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return (
            f"{modes}\n{self.seconds:.0f} s, {self.writes:,} writes acknowledged; {self.behind:,} answers lacked a "
            f"write that was acknowledged before the read began, up to {self.oldest:.1f} s before\nfaults: {faults}"
        )


async def staleness_test(reads: int, seed: int, keep: Path | None = None, faults: int = 0) -> Report:
    """Runs until so many reads are answered, and there were so many faults. Raises Violation if an answer was older
    than it may be. `keep`: leave logs and data there."""
    directory = keep or Path(tempfile.mkdtemp(prefix="holdfast-staleness-"))
    tree = Tree(directory)
    try:
        await tree.start()
        return await _run(tree, reads, faults, Random(seed))
    finally:
        await tree.close()
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)


async def _run(tree: Tree, reads: int, least: int, chance: Random) -> Report:
    judge, report, began = Judge(), Report(), time.monotonic()
    endpoints = tree.cluster.endpoints
    async with client.connect(endpoints, timeout=30.0) as hf:
        for key in KEYS:
            judge.acknowledged(key, 0, (await hf.put(key, text_of(0))).revision)
    calls = {name: Calls(tree.endpoint(name), READ_SECONDS) for name in PLACES}
    readers = [Reader(name, calls[name], judge, report.reads, chance) for name in PLACES for _ in range(READERS)]
    owners = [Client() for _ in range(READERS)]
    try:
        await until_fresh(readers[::READERS], HEALED_SECONDS)
        faults = Faults(tree, judge, chance)
        work = [asyncio.ensure_future(write(key, endpoints, judge, chance)) for key in KEYS]
        work += [asyncio.ensure_future(r.run(owners[n % READERS])) for n, r in enumerate(readers)]
        await _until_done(
            [*work, asyncio.ensure_future(faults.run())],
            tree,
            report,
            lambda: report.answered >= reads and faults.done.total() >= least,
        )
        await until_fresh(readers[::READERS], HEALED_SECONDS)
    finally:
        for to_replica in calls.values():
            to_replica.close()
    report.seconds, report.writes, report.faults = time.monotonic() - began, judge.writes, faults.done
    report.behind, report.oldest = judge.behind, judge.oldest / 1e9
    return report


async def _until_done(work: list[asyncio.Task[None]], tree: Tree, report: Report, enough: Callable[[], bool]) -> None:
    """These tasks end by themselves only with an error."""
    say_at = time.monotonic() + SAY_SECONDS
    try:
        while not enough():
            await asyncio.wait(work, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            _raise_first(task for task in work if task.done())
            ended = tree.ended()
            if ended is not None:
                raise Violation("crash", f"{ended} ended by itself:\n{tree.log_of(ended)}")
            if time.monotonic() > say_at:
                say_at += SAY_SECONDS
                print(f"{report.answered:,} reads", flush=True)
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    _raise_first(task for task in work if not task.cancelled())  # what was wrong since the last look


def _raise_first(done: Iterable[asyncio.Task[None]]) -> None:
    for task in done:
        task.result()
