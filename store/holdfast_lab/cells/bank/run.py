"""Runs the bank: minutes of work under faults, and after each a pause in which everything is settled and checked."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter as Counts
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from holdfast_lab.cells.bank.counter import Counter
from holdfast_lab.cells.clusters import Clusters, running
from holdfast_lab.cells.programs import Program, kill_one
from holdfast_lab.cells.torment import Fault, Torment, faults_text

WORKER, JANITOR = "holdfast_lab.cells.bank.worker", "holdfast_lab.cells.bank.janitor"
JANITORS = 2
TIMEOUT_SECONDS = 30.0  # of the counter
LEAST_SECONDS = 3.0
COORDINATOR_SECONDS, SERVER_SECONDS = 2.0, 4.0  # between kills, on average


@dataclass(frozen=True, slots=True)
class Plan:
    seconds: float
    cells: int = 3
    voters: int = 3
    accounts: int = 30
    workers: int = 4
    seed: int = 0
    settle_seconds: float = 60.0  # of work between two settlements
    least: int = 1  # transfers, however long they take


@dataclass(slots=True)
class Report:
    seconds: float = 0.0
    settlements: int = 0
    transfers: Counts[str] = field(default_factory=Counts)
    made: int = 0
    left: int = 0
    faults: Counts[str] = field(default_factory=Counts)
    oldest: float = 0.0
    resolved: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{count:,} {what}" for what, count in self.transfers.most_common())
        faults = faults_text(self.faults)
        found = sorted(self.resolved) or [float("nan")]
        return (
            f"{self.seconds:.0f} s of work, settled {self.settlements} times: {self.made:,} transfers made; "
            f"answers: {told}; faults: {faults}; {self.left:,} marks of transactions are left; the oldest prepared "
            f"part was {self.oldest:.1f} s old; "
            f"{len(self.resolved)} parts of killed coordinators were resolved by others, after "
            f"{statistics.median(found):.1f} s (median), {found[-1]:.1f} s at most"
        )


async def run_bank(plan: Plan, directory: Path) -> Report:
    """Raises Violation. Logs and data are left in `directory`."""
    async with running(directory, plan.cells, plan.voters, TIMEOUT_SECONDS) as (clusters, them):
        counter = Counter(them, clusters.names, plan.accounts)
        revisions = await counter.open()
        watches = [counter.watch_accounts(*place) for place in revisions.items()]
        watches += [counter.watch_parts(*place) for place in revisions.items()]
        watching = [asyncio.ensure_future(watch) for watch in watches]
        try:
            return await _Bank(plan, clusters, counter, watching).run()
        finally:
            await _end(watching)


class _Bank:
    def __init__(self, plan: Plan, clusters: Clusters, counter: Counter, watching: list[asyncio.Task[None]]) -> None:
        self._plan = plan
        self._clusters = clusters
        self._counter = counter
        self._watching = watching
        self._workers = [Program(WORKER, self._words, self._heard) for _ in range(plan.workers)]
        self._janitors = [Program(JANITOR, lambda _: [json.dumps(clusters.endpoints)], print) for _ in range(JANITORS)]
        servers: dict[str, tuple[float, Fault]] = {
            "voters killed": (3, clusters.kill_voter),
            "cells killed": (1, clusters.kill_cell),
        }
        programs: dict[str, tuple[float, Fault]] = {
            "coordinators killed": (9, self._kill_worker),
            "janitors killed": (1, self._kill_janitor),
        }
        self._torments = [
            Torment(programs, COORDINATOR_SECONDS, Random(plan.seed)),
            Torment(servers, SERVER_SECONDS, Random(plan.seed + 1)),
        ]

    def _words(self, life: int) -> list[str]:
        endpoints = json.dumps(self._clusters.endpoints)
        return [endpoints, str(self._plan.accounts), str(life), f"{self._plan.seed} {life}"]

    def _heard(self, line: str) -> None:
        memo, what = line.split(" ", 1)
        self._counter.ledger.said(memo, what)

    async def _kill_worker(self, chance: Random) -> None:
        killed = self._counter.parts.killed
        await kill_one(self._workers, chance, lambda worker: killed(worker.life, time.monotonic()))

    async def _kill_janitor(self, chance: Random) -> None:
        await kill_one(self._janitors, chance)

    async def run(self) -> Report:
        report = Report()
        while report.seconds < self._plan.seconds or report.made < self._plan.least:
            began = time.monotonic()
            left = max(self._plan.seconds - report.seconds, LEAST_SECONDS)
            await self._work(min(self._plan.settle_seconds, left))
            report.seconds += time.monotonic() - began
            began = time.monotonic()
            report.left = await self._counter.settle(max(worker.life for worker in self._workers))
            report.settlements += 1
            self._fill(report)
            took = time.monotonic() - began
            print(f"settled in {took:.1f} s after {report.seconds:.0f} s: {report.made:,} transfers made", flush=True)
        return report

    async def _work(self, seconds: float) -> None:
        """Programs and faults for so long; then all programs are gone, and all voters run."""
        programs = [*self._workers, *self._janitors]
        faults = [asyncio.ensure_future(torment.run()) for torment in self._torments]
        working = [asyncio.ensure_future(program.run()) for program in programs]
        try:
            await asyncio.wait([*self._watching, *faults, *working], timeout=seconds, return_when="FIRST_COMPLETED")
            for torment in self._torments:
                torment.stop()
            await asyncio.gather(*faults)
            for program in programs:
                program.stop()
            await asyncio.gather(*working)
            for watch in self._watching:
                if watch.done():
                    watch.result()  # it ends by itself only with an error
            await self._clusters.wait_ready()
        finally:
            await _end([*faults, *working])

    def _fill(self, report: Report) -> None:
        ledger, parts = self._counter.ledger, self._counter.parts
        report.transfers, report.made = ledger.told, ledger.made
        report.faults = sum((torment.done for torment in self._torments), Counts())
        report.oldest, report.resolved = parts.oldest, parts.resolved


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
