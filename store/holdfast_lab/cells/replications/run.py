"""Writes at the first cluster of a chain, watches all others, and checks and measures what arrives there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

from holdfast.cells import Cells
from holdfast.cells.replication_record import Record, place
from holdfast.client import ClientError
from holdfast.client.txn import Ops

from holdfast_lab.cells.clusters import Clusters, running
from holdfast_lab.cells.programs import Program, kill_one
from holdfast_lab.cells.replications.judge import PAIRS, PREFIX, Judge, transaction
from holdfast_lab.cells.torment import Torment
from holdfast_lab.processes import rss_mib
from holdfast_lab.sim.violation import check

REPLICATOR = "holdfast_lab.cells.replications.replicator"
TIMEOUT_SECONDS = 30.0
QUIET_SECONDS = 120.0  # without a change: nothing goes on any more
PAIRS_OF_WRITER = 20
PROGRAM_SECONDS, SERVER_SECONDS = 1.0, 5.0  # between kills, on average
FILL_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """`keys`: that are there before. `rate`: transactions a second while delays are measured, for `seconds`."""

    keys: int = 0
    transactions: int = 10_000
    size: int = 100
    rate: int = 50
    seconds: float = 20.0
    kill: bool = False
    voters: int = 3
    writers: int = 8
    replicators: int = 1
    seed: int = 0


@dataclass(slots=True)
class Report:
    lines: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)


async def run_replications(plan: Plan, directory: Path) -> Report:
    """Raises Violation. Logs and data are left in `directory`."""
    async with running(directory, 3, plan.voters, TIMEOUT_SECONDS) as (clusters, them):
        return await _Run(plan, clusters, them).run()


class _Run:
    def __init__(self, plan: Plan, clusters: Clusters, them: Cells) -> None:
        self._plan = plan
        self._clusters = clusters
        self._them = them
        self._first, *self._others = clusters.names
        self._judges = {cell: Judge(cell) for cell in self._others}
        self._report = Report()
        words = [json.dumps(clusters.endpoints), PREFIX]
        self._replicators = [Program(REPLICATOR, lambda _: words, lambda _: None) for _ in range(plan.replicators)]
        self._numbers = [0] * (plan.writers + 1)  # of transactions, of each writer and of the paced one

    async def run(self) -> Report:
        await self._prepare()
        programs = self._start()
        watching = [asyncio.ensure_future(self._watch(cell)) for cell in self._others]
        try:
            await self._ended(self._filled(), [*programs, *watching])
            async with self._torment():
                await self._ended(self._all_at_once(), [*programs, *watching])
            await self._ended(self._equal(), [*programs, *watching])
            if not self._plan.kill:
                await self._ended(self._paced(), [*programs, *watching])
                for program in self._replicators:
                    program.stop()
                await asyncio.gather(*programs)
                await self._write_all()
                programs = self._start()
                await self._ended(self._caught_up(), [*programs, *watching])
        finally:
            for program in self._replicators:
                program.stop()
            for task in watching:
                task.cancel()
            await asyncio.gather(*programs, *watching, return_exceptions=True)
        return self._report

    def _start(self) -> list[asyncio.Task[None]]:
        return [asyncio.ensure_future(program.run()) for program in self._replicators]

    async def _ended(self, work: Coroutine[Any, Any, None], others: Sequence[asyncio.Future[None]]) -> None:
        """Wait for `work`, unless one of the others ends before."""
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait([task, *others], return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
            check(task.done(), "ended", "a program has ended by itself")
        finally:
            task.cancel()

    # ---- phases --------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        first = self._them.client(self._first)
        value = "v" * self._plan.size
        for start in range(0, self._plan.keys, FILL_AT_ONCE):
            numbers = range(start, min(start + FILL_AT_ONCE, self._plan.keys))
            await first.txn().then(*(Ops.put(f"{PREFIX}filled/{n:08d}", value) for n in numbers)).commit()

    async def _filled(self) -> None:
        began = time.monotonic()
        for cell in self._others:
            while not await self._reached(cell):
                await asyncio.sleep(0.05)
            seconds = time.monotonic() - began
            self._say(f"{cell} has {self._plan.keys:,} keys of {self._plan.size:,} bytes after {seconds:.1f} s")
        for program in self._replicators:
            if program.pid is not None:
                self._say(f"a replicator takes {rss_mib(program.pid):.0f} MiB")

    async def _reached(self, cell: str) -> int:
        found = await self._them.client(cell).get(place(PREFIX.encode()))
        return 0 if found is None else Record.unpacked(found.value).revision

    async def _all_at_once(self) -> None:
        """Write as fast as it goes, and wait until all of it has arrived."""
        began = time.monotonic()
        count = await self._write_all()
        written = time.monotonic() - began
        self._say(f"{count:,} transactions of 2 keys were written in {written:.1f} s, {count / written:,.0f} a second")
        await self._equal()
        seconds = time.monotonic() - began
        self._say(f"all had arrived everywhere after {seconds:.1f} s, {2 * count / seconds:,.0f} changes a second")

    async def _write_all(self) -> int:
        shares = [self._plan.transactions // self._plan.writers] * self._plan.writers
        await asyncio.gather(*(self._write(writer, share) for writer, share in enumerate(shares)))
        return sum(shares)

    async def _caught_up(self) -> None:
        """What was written while nobody replicated."""
        began, count = time.monotonic(), self._plan.transactions
        await self._equal()
        seconds = time.monotonic() - began
        self._say(
            f"{count:,} transactions were caught up in {seconds:.1f} s, {2 * count / seconds:,.0f} changes a second"
        )

    async def _paced(self) -> None:
        for judge in self._judges.values():
            judge.delays.clear()
        chance = Random(self._plan.seed)
        count = int(self._plan.seconds * self._plan.rate)
        for _ in range(count):
            await self._write(self._plan.writers, 1)
            await asyncio.sleep(chance.expovariate(self._plan.rate))
        await self._equal()
        for cell, judge in self._judges.items():
            cuts = statistics.quantiles(judge.delays, n=100)
            delays = f"p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms"
            self._say(f"{cell} is behind, at up to {self._plan.rate} transactions a second: {delays}")

    async def _write(self, writer: int, count: int) -> None:
        first = self._them.client(self._first)
        for _ in range(count):
            number = self._numbers[writer] = self._numbers[writer] + 1
            pair, turn = number % PAIRS_OF_WRITER, number // PAIRS_OF_WRITER + 1
            ops = transaction(writer * PAIRS_OF_WRITER + pair, turn, self._plan.size)
            while True:
                with contextlib.suppress(ClientError):  # the cell is away, or it is not known: the same again
                    await first.txn().then(*ops).commit()
                    break

    async def _equal(self) -> None:
        """Wait until all cells have what the first one has. Raises Violation if nothing goes on any more."""
        wanted, last = await self._pairs(self._first), time.monotonic()
        before = -1
        for cell in self._others:
            while await self._pairs(cell) != wanted:
                seen = sum(judge.changes for judge in self._judges.values())
                if seen != before:
                    before, last = seen, time.monotonic()
                check(time.monotonic() - last < QUIET_SECONDS, "liveness", f"{cell} stays different")
                await asyncio.sleep(0.05)

    async def _pairs(self, cell: str) -> dict[bytes, bytes]:
        while True:
            with contextlib.suppress(ClientError):
                return {kv.key: kv.value for kv in (await self._them.client(cell).range(PAIRS, prefix=True)).kvs}

    # ---- beside --------------------------------------------------------------------------------------------

    async def _watch(self, cell: str) -> None:
        async for events in self._them.client(cell).watch_batches(PAIRS, prefix=True, start_revision=1):
            for _, of_revision in groupby(events, lambda event: event.kv.mod_revision):
                self._judges[cell].revision(of_revision)

    @contextlib.asynccontextmanager
    async def _torment(self) -> AsyncIterator[None]:
        """Kill replicators and servers meanwhile, if that is wanted."""
        chance = Random(self._plan.seed)
        torments = [
            Torment({"replicators killed": (1, lambda c: kill_one(self._replicators, c))}, PROGRAM_SECONDS, chance),
            Torment(
                {"voters killed": (3, self._clusters.kill_voter), "cells killed": (1, self._clusters.kill_cell)},
                SERVER_SECONDS,
                Random(self._plan.seed + 1),
            ),
        ]
        running = [asyncio.ensure_future(torment.run()) for torment in torments if self._plan.kill]
        try:
            yield
            for torment in torments:
                torment.stop()
                self._report.faults += torment.done
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()

    def _say(self, line: str) -> None:
        print(line, flush=True)
        self._report.lines.append(line)
