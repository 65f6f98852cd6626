"""A run of replications: a prefix is replicated along a chain of cells, while replicators stop, messages are lost, late
and twice, and cells are away, compacted and restored.

R1: whenever a record of a destination names a revision, the keys are those that the source had then.
R2: the replications that have begun form no loop.
R3: when all is well, all of the chain become equal.

In some runs replications of all directions are started, and forgotten: then R2 is what counts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from holdfast.cells.cells import Cells
from holdfast.cells.clock import now
from holdfast.cells.errors import ReplicationRefused
from holdfast.cells.replication_record import REPLICATION, Record, overlap
from holdfast.client.errors import ClientError
from holdfast.client.txn import Ops
from holdfast.status import RequestError

from holdfast_lab.sim.cells.cell import Rows, SimCell, keys_of
from holdfast_lab.sim.cells.network import client_of
from holdfast_lab.sim.cells.run import seeded
from holdfast_lab.sim.cells.weather import Weather
from holdfast_lab.sim.simulation import Result
from holdfast_lab.sim.violation import Violation, check
from holdfast_lab.sim.world import World
from holdfast_lab.virtual_loop import VirtualLoop

CHAIN = ("eu", "us", "ap")
PREFIX = "/g/"
PAIRS = 4
SECONDS = 60
SETTLE_SECONDS = 300.0
REPLICATIONS_SOMETIMES = (
    "a cell was away",
    "a cell was compacted",
    "a cell was restored",
    "a replication was forgotten",
    "a replication was refused",
    "a restored cell was taken in again",
    "a snapshot was filled in",
    "keys were written",
)
State = dict[bytes, bytes]
Work = Callable[[Cells], Coroutine[Any, Any, None]]


class ReplicationRun:
    def __init__(self, seed: int, *, seconds: int = 0, without: Collection[str] = (), keep_trace: int = 400) -> None:
        self.seed = seed
        self._seconds = seconds or SECONDS
        self._chance = random.Random(seed)
        self.world = World(seed, keep_trace)
        self.steps = 0
        self._faults = 0
        self._weather = Weather(self._chance)
        self._cells = {name: SimCell(name, number + 1) for number, name in enumerate(CHAIN)}
        self._wild = self._chance.random() < 0.3
        self._states: dict[int, dict[int, State]] = {}  # by cluster id and revision
        self._backups: dict[str, Rows] = {}
        self._restored: str | None = None
        self._over = False
        self._violation: Violation | None = None

    def run(self) -> Result:
        """Raises Violation."""
        random.seed(self.seed)
        with seeded(self._chance), asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(self._main())
        return Result(
            self.seed,
            self.world.trace(),
            steps=self.steps,
            simulated_ns=self.world.now,
            faults=self._faults,
            reached=self.world.reached,
        )

    def _note(self, what: str) -> None:
        self.world.sometimes(what)
        self._tell(what)

    def _tell(self, what: str) -> None:
        self.steps += 1
        self.world.now = int(now() * 1e9)
        self.world.note(what)

    async def _main(self) -> None:
        await self._set_up()
        work: list[Work] = [self._write, self._readmit]
        if self._wild:
            work += [self._replicate_any] * 4
        else:
            for source, destination in (CHAIN[:2], CHAIN[1:]):
                work += [self._replicating(source, destination)] * 2
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(self._program(each))
            group.create_task(self._trouble())
            await asyncio.sleep(self._seconds)
            self._over = True
        self._raise()
        if not self._wild:
            await self._end()

    def _raise(self) -> None:
        if self._violation is not None:
            raise self._violation

    async def _set_up(self) -> None:
        calm, self._weather.calm = self._weather.calm, True
        async with self._reach() as them:
            await them.set_up()
            await them.client("eu").txn().then(*(Ops.put(f"{PREFIX}{n:03d}", "0") for n in range(8))).commit()
            await them.client("us").txn().then(Ops.put(f"{PREFIX}zz", "strange"), Ops.put("/other", "us")).commit()
        self._weather.calm = calm
        for cell in self._cells.values():
            cell.committed = self._committed
            self._committed(cell)

    def _reach(self) -> Cells:
        return Cells({name: client_of(cell, self._weather) for name, cell in self._cells.items()}, 5.0)

    async def _program(self, work: Work) -> None:
        """A process that does this work, stops at any moment, and is started again."""
        while not self._over:
            them = self._reach()
            task = asyncio.ensure_future(work(them))
            await asyncio.wait([task], timeout=self._chance.expovariate(1 / 10))
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is not None:
                task.result()

    # ---- what programs do ----------------------------------------------------------------------------------

    def _replicating(self, source: str, destination: str) -> Work:
        async def replicate(them: Cells) -> None:
            await them.replication(source, destination, PREFIX).run(self._told)

        return replicate

    def _told(self, news: int | ClientError) -> None:
        self._note("keys were written" if isinstance(news, int) else "a cell was away")

    async def _replicate_any(self, them: Cells) -> None:
        source, destination = self._chance.sample(CHAIN, 2)
        replication = them.replication(source, destination, self._chance.choice((PREFIX, f"{PREFIX}0", "/g")))
        try:
            if self._chance.random() < 0.2:
                if await replication.forget():
                    self._note("a replication was forgotten")
            else:
                await replication.run(self._told)
        except ReplicationRefused:
            self._note("a replication was refused")
            await asyncio.sleep(self._chance.expovariate(1))
        except ClientError:
            pass

    async def _write(self, them: Cells) -> None:
        number = 0
        while not self._over:
            await asyncio.sleep(self._chance.expovariate(1 / 0.3))
            number += 1
            pair, value = self._chance.randrange(PAIRS), f"{number} at {now():.3f}"
            keys = f"{PREFIX}{pair:03d}", f"{PREFIX}{pair + PAIRS:03d}"
            try:
                match self._chance.randrange(8):
                    case 0:
                        await them.client("eu").txn().then(*(Ops.delete(key) for key in keys)).commit()
                    case 1:
                        await them.client("eu").txn().then(Ops.delete(f"{PREFIX}00", prefix=True)).commit()
                    case 2:
                        lease = await them.client("eu").lease(2)
                        await them.client("eu").txn().then(Ops.put(keys[0], value, lease=lease.id)).commit()
                    case 3:
                        await them.client("eu").txn().then(Ops.put("/other", value)).commit()
                    case _:
                        await them.client("eu").txn().then(*(Ops.put(key, value) for key in keys)).commit()
            except ClientError:
                continue

    async def _readmit(self, them: Cells) -> None:
        while not self._over:
            await asyncio.sleep(self._chance.expovariate(1 / 2))
            await self._readmit_restored(them)

    async def _readmit_restored(self, them: Cells) -> None:
        if self._restored is None:
            return
        try:
            await them.readmit(self._restored)
        except ClientError:
            return
        self._restored = None
        self._note("a restored cell was taken in again")

    # ---- faults --------------------------------------------------------------------------------------------

    async def _trouble(self) -> None:
        while not self._over:
            await asyncio.sleep(self._chance.expovariate(1 / 2))
            self._faults += 1
            cell = self._cells[self._chance.choice(CHAIN)]
            match self._chance.randrange(5):
                case 0 | 1:
                    cell.up = False
                    asyncio.get_running_loop().call_later(self._chance.uniform(0.2, 8), setattr, cell, "up", True)
                case 2:
                    self._compact(cell)
                case 3 if cell.name not in self._backups:
                    self._backups[cell.name] = cell.backup()
                case 3 | 4 if self._restored is None and cell.name in self._backups and not self._wild:
                    self._restore(cell)

    def _compact(self, cell: SimCell) -> None:
        try:
            cell.compact(cell.space.revision - self._chance.choice((0, 0, 3)))
        except RequestError:
            return
        self._note("a cell was compacted")

    def _restore(self, cell: SimCell) -> None:
        states = self._states[cell.cluster_id]
        cell.restore(self._backups.pop(cell.name), self._chance.getrandbits(60))
        self._restored = cell.name
        self._states[cell.cluster_id] = {n: state for n, state in states.items() if n <= cell.space.revision}
        self._note("a cell was restored")

    # ---- what has to hold ----------------------------------------------------------------------------------

    def _committed(self, cell: SimCell) -> None:
        """A revision of a cell."""
        self._tell(f"{cell.name} has revision {cell.space.revision}: {keys_of(cell.space, b'/g')}")
        try:
            self._states.setdefault(cell.cluster_id, {})[cell.space.revision] = keys_of(cell.space, b"/g")
            self._check_loops()
            if not self._wild:
                self._check_state(cell)
        except Violation as violation:  # raised to whoever writes, it would be taken for an answer
            self._violation = self._violation or violation

    def _check_state(self, cell: SimCell) -> None:
        for prefix, record in _records(cell).items():
            there = self._states.get(record.cluster_id, {})
            if not record.revision:
                self._note("a snapshot was filled in")
                continue
            wanted = next((there[n] for n in range(record.revision, 0, -1) if n in there), {})
            wanted = {key: value for key, value in wanted.items() if key.startswith(prefix)}
            has = keys_of(cell.space, prefix)
            check(has == wanted, "R1", f"{cell.name} at {record}: it has {has}, and {record.source} had {wanted}")

    def _check_loops(self) -> None:
        edges = [
            (record.source, name, prefix)
            for name, cell in self._cells.items()
            for prefix, record in _records(cell).items()
            if not record.claimed
        ]
        for source, destination, prefix in edges:
            ways = {destination}
            for _ in CHAIN:
                ways |= {to for of, to, other in edges if of in ways and overlap(prefix, other)}
            check(source not in ways, "R2", f"there is a loop: {edges}")

    async def _end(self) -> None:
        """All is well again."""
        self._weather.calm = True
        async with self._reach() as them:
            tasks = [asyncio.ensure_future(self._replicating(*pair)(them)) for pair in (CHAIN[:2], CHAIN[1:])]
            ends = now() + SETTLE_SECONDS
            while len({tuple(keys_of(cell.space, PREFIX.encode()).items()) for cell in self._cells.values()}) > 1:
                for cell in self._cells.values():
                    cell.up = True
                    cell.expire(now())
                await self._readmit_restored(them)
                await asyncio.sleep(0.5)
                self._raise()
                check(
                    now() < ends,
                    "R3",
                    f"they stay different: {[keys_of(c.space, b'/g/') for c in self._cells.values()]}",
                )
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        self._raise()


def _records(cell: SimCell) -> dict[bytes, Record]:
    return {
        key.removeprefix(REPLICATION): Record.unpacked(row) for key, row in keys_of(cell.space, REPLICATION).items()
    }
