"""Runs the hand-overs, and judges them.

H1. What the lock protects accepts no token smaller than one that it has seen.
H2. Nobody says that it certainly holds the lock after another one has been given it (the processes share a clock).
H3. After a holder that was lost (not released), nobody holds the lock before its session may have ended and the
    lock-delay is over.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from holdfast.client.keepalive import now

from holdfast_lab.processes import LocalCluster, Process
from holdfast_lab.sim.violation import check

NAME = "/handovers/lock"
WORKERS, TTL, DELAY = 5, 2, 1
LONGEST_FREEZE = 6.0
FAULT_SECONDS = 2.0  # between faults, on average
QUIET_SECONDS = 60.0  # without a hand-over: nothing goes on any more
Token = tuple[int, int]


@dataclass(slots=True)
class Holder:
    """What a worker said last of its hold. `released`: it was going to let go."""

    worker: int
    token: Token
    at: float
    safe_until: float
    released: bool = False


@dataclass(slots=True)
class Judge:
    """Sees everything that the workers say."""

    handovers: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    shown: Token = (0, 0)
    holders: dict[int, Holder] = field(default_factory=dict)  # by worker: the newest of each
    newest: Holder | None = None
    strike: Callable[[asyncio.subprocess.Process], None] | None = None  # hits the next one that uses the lock
    moved_at: float = field(default_factory=now)

    def hold(self, holder: Holder) -> None:
        before = self.newest
        check(
            before is None or holder.token > before.token,
            "H1",
            f"worker {holder.worker} holds by {holder.token} after {before}",
        )
        if before is not None and not before.released:
            self.counts["lost holder"] += 1
            free = before.safe_until + DELAY
            check(holder.at >= free, "H3", f"{holder} holds {free - holder.at:.3f} s too early, after {before}")
        self.holders[holder.worker] = self.newest = holder
        self.handovers += 1
        self.moved_at = now()

    def use(self, worker: int, token: Token, at: float, safe_until: float) -> bool:
        holder = self.holders[worker]
        holder.at, holder.safe_until = at, safe_until
        newest = self.newest
        if newest is not None and newest.token > token:
            self.counts["late use"] += 1
            check(at <= newest.at, "H2", f"worker {worker} holds by {token} at {at}, after {newest}")
        if token < self.shown:
            self.counts["late use refused"] += 1
            return False
        self.shown = token
        return True

    def release(self, worker: int, token: Token) -> None:
        if self.holders[worker].token == token:
            self.holders[worker].released = True


class Worker:
    """One worker process, started again when it was killed."""

    def __init__(self, number: int, endpoints: str, judge: Judge) -> None:
        self.number = number
        self._endpoints = endpoints
        self._judge = judge
        self.process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Until it is cancelled."""
        words = ["-m", "holdfast_lab.handovers.worker", self._endpoints, NAME, str(TTL), str(DELAY)]
        pipe = asyncio.subprocess.PIPE
        while True:
            program = asyncio.create_subprocess_exec(sys.executable, *words, stdin=pipe, stdout=pipe)
            self.process = process = await program
            try:
                assert process.stdout is not None
                async for line in process.stdout:
                    await self._heard(process, line.decode())
                await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def _heard(self, process: asyncio.subprocess.Process, line: str) -> None:
        what, *rest = line.split()
        if what == "error":
            self._judge.counts[f"error {rest[0]}"] += 1
            return
        token, at, safe_until = (int(rest[0]), int(rest[1])), float(rest[2]), float(rest[3])
        if what == "hold":
            self._judge.hold(Holder(self.number, token, at, safe_until))
        elif what == "release":
            self._judge.release(self.number, token)
        elif self.process is process and process.stdin is not None:
            if self._judge.strike is not None:
                strike, self._judge.strike = self._judge.strike, None
                strike(process)
            answer = b"ok\n" if self._judge.use(self.number, token, at, safe_until) else b"refused\n"
            process.stdin.write(answer)


async def hand_over(count: int, seed: int) -> Judge:
    """Until so many hand-overs are done. Raises Violation."""
    with tempfile.TemporaryDirectory(prefix="holdfast-handovers-") as directory:
        cluster = LocalCluster(Path(directory))
        cluster.start()
        try:
            await cluster.wait_ready()
            return await _contend(cluster, count, Random(seed))
        finally:
            cluster.kill()


async def _contend(cluster: LocalCluster, count: int, chance: Random) -> Judge:
    judge = Judge()
    workers = [Worker(number, ",".join(cluster.endpoints), judge) for number in range(WORKERS)]
    tasks = [asyncio.ensure_future(worker.run()) for worker in workers]
    tasks.append(asyncio.ensure_future(_disturb(cluster, workers, judge, chance)))
    told = 0
    try:
        while judge.handovers < count:
            done, _ = await asyncio.wait(tasks, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            check(now() < judge.moved_at + QUIET_SECONDS, "L1", f"no hand-over for {QUIET_SECONDS:g} s")
            if judge.handovers // 1000 > told:
                told = judge.handovers // 1000
                print(f"{judge.handovers} hand-overs, {dict(judge.counts)}", flush=True)
        return judge
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _disturb(cluster: LocalCluster, workers: list[Worker], judge: Judge, chance: Random) -> None:
    """Freeze and kill workers, mostly while they hold the lock, and kill the leader."""
    freezes: set[asyncio.Task[None]] = set()

    def kill(process: asyncio.subprocess.Process) -> None:
        judge.counts["worker killed"] += 1
        process.kill()

    def freeze(process: asyncio.subprocess.Process) -> None:
        judge.counts["worker frozen"] += 1
        task = asyncio.ensure_future(_freeze(process, LONGEST_FREEZE * chance.random()))
        freezes.add(task)
        task.add_done_callback(freezes.discard)

    while True:
        await asyncio.sleep(chance.expovariate(1 / FAULT_SECONDS))
        draw, action = chance.random(), kill if chance.random() < 0.4 else freeze
        if draw < 0.15:
            judge.counts["leader killed"] += 1
            await _kill_leader(cluster)
        elif draw < 0.75:
            judge.strike = action
        else:
            process = chance.choice(workers).process
            if process is not None and process.returncode is None:
                action(process)


async def _kill_leader(cluster: LocalCluster) -> None:
    leader: Process = await cluster.leader(seconds=30.0)
    await asyncio.to_thread(leader.kill)
    leader.start()


async def _freeze(process: asyncio.subprocess.Process, seconds: float) -> None:
    process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
