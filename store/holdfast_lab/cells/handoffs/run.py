"""Sends messages from one cluster to another, watches what arrives, and checks that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from holdfast.cells import Cells, Lag, Queue
from holdfast.client import ClientError
from holdfast.client.values import Event

from holdfast_lab.cells.clusters import Clusters, running
from holdfast_lab.cells.handoffs.wire import DESTINATION, PREFIX, SOURCE, Judge, share
from holdfast_lab.cells.programs import Program, kill_one
from holdfast_lab.cells.torment import Torment, faults_text
from holdfast_lab.sim.violation import check

SENDER, COURIER = "holdfast_lab.cells.handoffs.sender", "holdfast_lab.cells.handoffs.courier"
TIMEOUT_SECONDS = 30.0
LOOK_SECONDS = 1.0
COMPACT_LOOKS, SAY_LOOKS = 10, 10
QUIET_SECONDS = 180.0  # without a message: nothing goes on any more
PROGRAM_SECONDS, SERVER_SECONDS = 3.0, 5.0  # between kills, on average


@dataclass(frozen=True, slots=True)
class Plan:
    messages: int
    kill: bool = False
    voters: int = 3
    senders: int = 2
    couriers: int = 3
    seed: int = 0


@dataclass(slots=True)
class Report:
    messages: int
    seconds: float = 0.0
    transactions: int = 0
    peak: int = 0
    megabytes: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        faults = faults_text(self.faults)
        return (
            f"{self.messages:,} messages in {self.seconds:.0f} s ({self.messages / self.seconds:,.0f} a second), "
            f"carried out in {self.transactions:,} transactions; {faults}; up to {self.peak:,} messages waited; all "
            f"disks had {self.megabytes:,.0f} MB at most"
        )


async def run_handoffs(plan: Plan, directory: Path) -> Report:
    """Raises Violation. Logs and data are left in `directory`."""
    async with running(directory, 2, plan.voters, TIMEOUT_SECONDS) as (clusters, them):
        return await _Handoffs(plan, clusters, them).run()


class _Handoffs:
    def __init__(self, plan: Plan, clusters: Clusters, them: Cells) -> None:
        self._plan = plan
        self._clusters = clusters
        self._them = them
        self._queue: Queue = them.queue(SOURCE, DESTINATION)
        self._judge = Judge(plan.senders)
        self._revision = 0  # of the destination: all up to it was seen
        endpoints = json.dumps(clusters.endpoints)
        self._couriers = [_program(COURIER, endpoints) for _ in range(plan.couriers)]
        shares = [str(share(plan.messages, plan.senders, n)) for n in range(plan.senders)]
        self._senders = [_program(SENDER, endpoints, str(n), count) for n, count in enumerate(shares)]
        self._programs = Torment(
            {"couriers killed": (2, self._kill_courier), "senders killed": (1, self._kill_sender)},
            PROGRAM_SECONDS,
            Random(plan.seed),
        )
        self._servers = Torment(
            {"voters killed": (3, clusters.kill_voter), "cells killed": (1, clusters.kill_cell)},
            SERVER_SECONDS,
            Random(plan.seed + 1),
        )

    async def _kill_courier(self, chance: Random) -> None:
        await kill_one(self._couriers, chance)

    async def _kill_sender(self, chance: Random) -> None:
        await kill_one(self._senders, chance)

    async def run(self) -> Report:
        report, began = Report(self._plan.messages), time.monotonic()
        torments = [self._programs, self._servers] if self._plan.kill else []
        faults = [asyncio.ensure_future(torment.run()) for torment in torments]
        programs = [asyncio.ensure_future(program.run()) for program in (*self._couriers, *self._senders)]
        watching = asyncio.ensure_future(self._watch())
        try:
            await self._until_arrived([watching, *faults, *programs], report)
            report.seconds = time.monotonic() - began
            for torment in torments:
                torment.stop()
                report.faults += torment.done
            await asyncio.gather(*faults)
            await self._nothing_is_left(watching)
        finally:
            for program in (*self._couriers, *self._senders):
                program.stop()
            for task in (watching, *faults):
                task.cancel()
            await asyncio.gather(watching, *faults, *programs, return_exceptions=True)
        report.transactions = self._judge.transactions
        return report

    async def _until_arrived(self, work: list[asyncio.Task[None]], report: Report) -> None:
        moved = time.monotonic()
        for look in itertools.count(1):
            before = self._judge.arrived
            done, _ = await asyncio.wait(work, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()  # senders end; all others end by themselves only with an error
            if self._judge.arrived == self._plan.messages:
                return
            moved = moved if self._judge.arrived == before else time.monotonic()
            check(time.monotonic() < moved + QUIET_SECONDS, "L1", f"no message for {QUIET_SECONDS:g} s")
            with contextlib.suppress(ClientError):  # a cell is away
                lag = await self._queue.lag()
                report.peak = max(report.peak, lag.waiting)
                if look % COMPACT_LOOKS == 0:
                    report.megabytes = max(report.megabytes, _megabytes(self._clusters.directory))
                    await self._compact()
                if look % SAY_LOOKS == 0:
                    print(f"{self._judge.arrived:,} messages arrived, {lag.waiting:,} wait", flush=True)

    async def _watch(self) -> None:
        """From the first revision on: each change, once and in order. Raises Violation."""
        client = self._them.client(DESTINATION)
        async for events in client.watch_batches(PREFIX, prefix=True, start_revision=1):
            for revision, of_it in itertools.groupby(events, key=_revision):
                self._judge.seen(revision, ((event.kv.key.decode(), event.kv.value) for event in of_it))
                self._revision = revision

    async def _compact(self) -> None:
        """The history that nobody needs any more."""
        source = self._them.client(SOURCE)
        await source.compact((await source.range("/", limit=1, keys_only=True)).revision)
        await self._them.client(DESTINATION).compact(self._revision)

    async def _nothing_is_left(self, watching: asyncio.Task[None]) -> None:
        """All is acknowledged at the source, nothing was put aside, and nothing more comes."""
        source, destination = self._them.client(SOURCE), self._them.client(DESTINATION)
        total = self._plan.messages
        end = time.monotonic() + QUIET_SECONDS
        while (lag := await self._queue.lag()) != Lag(total, total):
            check(time.monotonic() < end, "Q2", f"the source knows of {lag}, and all {total:,} have arrived")
            await asyncio.sleep(0.1)
        for client, prefix in (
            (source, f"/cells/outbox/{DESTINATION}/messages/"),
            (destination, f"/cells/inbox/{SOURCE}/refused/"),
        ):
            left = await client.range(prefix, prefix=True, limit=1)
            check(left.count == 0, "Q2", f"{left.count} messages are left below {prefix}")
        inbox = await destination.get(f"/cells/inbox/{SOURCE}/last")
        check(inbox is not None and int(inbox.value) == total, "Q2", f"the inbox counts {inbox}")
        last = await destination.range(PREFIX, prefix=True)
        check(
            max(kv.mod_revision for kv in last.kvs) == self._revision, "Q1", "there are changes after the last message"
        )
        if watching.done():
            watching.result()


def _revision(event: Event) -> int:
    return event.kv.mod_revision


def _program(module: str, *words: str) -> Program:
    return Program(module, lambda _: list(words), print)


def _megabytes(directory: Path) -> float:
    """What the files take of the disk."""
    found = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # it was removed meanwhile
            found += path.stat().st_blocks * 512
    return found / 1e6
