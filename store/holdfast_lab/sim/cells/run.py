"""A run: programs change registers and move money between cells, while cells are away, are restored, and change."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from holdfast.cells import register, sessions, transaction, wire
from holdfast.cells.cell_set import CellSet
from holdfast.cells.cells import Cells
from holdfast.cells.clock import now
from holdfast.cells.errors import CellsUnavailable, NotSetUp, TransactionAborted
from holdfast.cells.identity import Identity
from holdfast.client.errors import ClientError, OutcomeUnknown
from holdfast.client.txn import Key, Ops

from holdfast_lab.sim.cells import history as checks
from holdfast_lab.sim.cells.cell import Cell, Rows, SimCell, keys_of
from holdfast_lab.sim.cells.history import History, Transfer
from holdfast_lab.sim.cells.members import MemberCell
from holdfast_lab.sim.cells.network import client_of
from holdfast_lab.sim.cells.weather import Weather
from holdfast_lab.sim.simulation import Result
from holdfast_lab.sim.violation import Violation, check
from holdfast_lab.sim.world import World
from holdfast_lab.virtual_loop import VirtualLoop

NAMES = ("ap", "eu", "sa", "us")
FIRST = NAMES[:3]  # set up at the beginning
REGISTERS = ("one", "two")
ACCOUNTS = {f"/account/{number}": FIRST[number % 3] for number in range(6)}
INITIAL = 100
SECONDS = 40
OF_MEMBERS = 0.2  # of the runs without restores
SETTLE_SECONDS = 600.0
CELLS_SOMETIMES = (
    "a change was of unknown outcome",
    "a change was not made",
    "a transaction was made",
    "a transaction was of unknown outcome",
    "a transaction met another one",
    "a program stopped",
    "the janitor ended a transaction",
    "the janitor forgot a transaction",
    "the set of cells was changed",
    "a change of the set of cells was not finished",
    "cells were clusters of members",
    "a cell was restored",
    "a restored cell was taken in again",
)


class CellsRun:
    """In some runs cells are restored. They forget transactions, so in these there are only registers."""

    def __init__(self, seed: int, *, seconds: int = 0, without: Collection[str] = (), keep_trace: int = 400) -> None:
        self.seed = seed
        self._seconds = seconds or SECONDS
        self._chance = random.Random(seed)
        self._cells: dict[str, SimCell | MemberCell] = {}
        self._weather = Weather(self._chance)
        self._history = History()
        self._haste = self._chance.choice((1, 5))  # how often programs do something, compared with others
        self._restores = self._chance.random() < 0.5
        self._steady = self._restores and self._chance.random() < 0.3  # otherwise the set does not change
        self._of_members = not self._restores and self._chance.random() < OF_MEMBERS
        self._violated: list[BaseException] = []  # by members
        self._restored: str | None = None  # the cell that was, until it is taken in again
        self._backups: dict[str, Rows] = {}
        self._sets: dict[int, CellSet] = {}  # by version
        self.world = World(seed, keep_trace)
        self.steps = 0
        self._faults = 0
        self._next = 0
        self._over = False

    def run(self) -> Result:
        """Raises Violation."""
        random.seed(self.seed)
        with seeded(self._chance), asyncio.Runner(loop_factory=VirtualLoop) as runner:
            try:
                runner.run(self._main())
            except ExceptionGroup as group:  # of the programs, each of which may have seen it
                raise group.exceptions[0] from None
            except (ClientError, TimeoutError) as error:
                if self._violated:
                    raise self._violated[0] from error
                raise Violation("L1", f"all cells are well again, and still: {error!r}") from error
        for member_cell in self._member_cells():
            member_cell.check_end()
        if self._violated:
            raise self._violated[0]
        return Result(
            self.seed,
            self.world.trace(),
            steps=self.steps,
            simulated_ns=self.world.now,
            operations=self._history.count,
            acknowledged=self._history.acknowledged,
            faults=self._faults,
            reached=self.world.reached,
        )

    # ---- the run -------------------------------------------------------------------------------------------

    async def _main(self) -> None:
        self._cells = {name: self._cell(name, number) for number, name in enumerate(NAMES)}
        await self._set_up()
        work: list[Callable[[Cells], Awaitable[None]]] = [self._use_registers, self._use_registers, self._change_set]
        work.append(self._change_set if self._chance.random() < 0.6 else self._use_registers)
        if not self._restores:
            work += [self._move_money, self._move_money, self._clear_away]
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(self._program(each))
            group.create_task(self._trouble())
            group.create_task(self._watch_time())
        await self._end()

    def _cell(self, name: str, number: int) -> SimCell | MemberCell:
        if not self._of_members:
            return SimCell(name, number + 1)
        self.world.sometimes("cells were clusters of members")
        return MemberCell(name, number + 1, len(NAMES) * self.seed + number, self._violated.append)

    def _member_cells(self) -> list[MemberCell]:
        return [cell for cell in self._cells.values() if isinstance(cell, MemberCell)]

    async def _set_up(self) -> None:
        calm, self._weather.calm = self._weather.calm, True
        async with self._reach(FIRST) as them:
            while not await self._try_to_set_up(them):
                await asyncio.sleep(1)
        self._weather.calm = calm

    async def _try_to_set_up(self, them: Cells) -> bool:
        """False: a cell had no leader."""
        try:
            await them.set_up()
            for account, cell in ACCOUNTS.items():
                await them.client(cell).txn().then(Ops.put(account, str(INITIAL))).commit()
        except OutcomeUnknown:
            return False
        return True

    def _reach(self, names: Collection[str] = NAMES) -> Cells:
        return Cells({name: client_of(self._cells[name], self._weather) for name in names}, 5.0)

    async def _watch_time(self) -> None:
        await asyncio.sleep(self._seconds)
        self._over = True

    async def _program(self, work: Callable[[Cells], Awaitable[None]]) -> None:
        """A process that does this work, stops at any moment, and is started again."""
        while not self._over:
            task = asyncio.ensure_future(self._live(work))
            await asyncio.wait([task], timeout=self._chance.expovariate(1 / 20))
            if not task.done():
                self._note("a program stopped")
                task.cancel()
                await asyncio.wait([task])
            elif not task.cancelled():
                task.result()

    async def _live(self, work: Callable[[Cells], Awaitable[None]]) -> None:
        them = self._reach()
        try:
            while not self._over:
                await asyncio.sleep(self._chance.expovariate(2 * self._haste))
                await work(them)
        finally:
            for name in NAMES:  # its leases end by themselves
                await them.client(name).close()

    def _note(self, what: str) -> None:
        self.world.sometimes(what)
        self._tell(what)

    def _tell(self, what: object) -> None:
        self.steps += 1
        self.world.now = int(now() * 1e9)
        self.world.note(str(what))

    # ---- what programs do ----------------------------------------------------------------------------------

    async def _use_registers(self, them: Cells) -> None:
        name = self._chance.choice(REGISTERS)
        reads = self._chance.random() < 0.3
        self._next += 1
        op = self._history.operation(name, "" if reads else str(self._next), now())
        add = op.id.encode()
        try:
            one = them.register(name)
            found = await (one.read() if reads else one.change(lambda before: before + b"," + add if before else add))
            op.value, op.made = _listed(found), True
        except OutcomeUnknown:
            self._note("a change was of unknown outcome")
        except CellsUnavailable:
            op.made = False
            self._note("a change was not made")
        op.ended = now()
        self._tell(op)

    async def _move_money(self, them: Cells) -> None:
        source, destination = self._chance.sample(sorted(ACCOUNTS), 2)
        if ACCOUNTS[source] == ACCOUNTS[destination]:
            return
        at, to = ACCOUNTS[source], ACCOUNTS[destination]
        self._next += 1
        transfer = Transfer(str(self._next), (source, at), (destination, to), self._chance.randrange(1, 10))
        try:
            have = await them.client(at).get(source)
            has = await them.client(to).get(destination)
        except ClientError:
            return
        assert have is not None
        assert has is not None
        self._history.transfers.append(transfer)
        receipt, amount = Ops.put(f"/receipt/{transfer.id}", ""), transfer.amount
        txn = them.txn().at(at).if_(Key(source).value == have.value)
        txn.then(Ops.put(source, str(int(have.value) - amount)), receipt)
        txn.at(to).if_(Key(destination).value == has.value)
        txn.then(Ops.put(destination, str(int(has.value) + amount)), receipt)
        try:
            transfer.made = (await txn.commit()).succeeded
            self._note("a transaction was made")
        except OutcomeUnknown:
            self._note("a transaction was of unknown outcome")
        except TransactionAborted:
            transfer.made = False
            self._note("a transaction met another one")
        except CellsUnavailable:
            transfer.made = False
        except ClientError:
            pass  # of the session, before anything was sent
        self._tell(transfer)

    async def _change_set(self, them: Cells) -> None:
        await asyncio.sleep(self._chance.expovariate(self._haste / 4))
        cell = self._restored
        if self._steady and self._chance.random() < 0.8:
            return  # what was restored is noticed late
        try:
            if cell is not None:
                await them.readmit(cell)
                self._restored = None
                self._note("a restored cell was taken in again")
            elif not self._steady:
                await them.change_set(set(self._chance.sample(NAMES, self._chance.choice((3, 3, 4)))))
                self._note("the set of cells was changed")
        except (ClientError, NotSetUp):
            self._note("a change of the set of cells was not finished")
        self._check_sets()

    def _check_sets(self) -> None:
        for cell in self._cells.values():
            itself = _data(cell).get(wire.SELF)
            if itself is not None:
                found = Identity.unpacked(itself).set
                known = self._sets.setdefault(found.version, found)
                check(found == known, "S2", f"{cell.name} belongs to {found}, and others to {known}")

    async def _clear_away(self, them: Cells) -> None:
        janitor = them.janitor()
        while not self._over:
            await self._sweep(janitor)
            await asyncio.sleep(2)

    async def _sweep(self, janitor: Any) -> bool:
        """Whether all cells answered."""
        try:
            swept = await janitor.sweep()
        except ClientError:
            return False
        if swept.resolved:
            self._note("the janitor ended a transaction")
        if swept.forgotten:
            self._note("the janitor forgot a transaction")
        return True

    # ---- faults --------------------------------------------------------------------------------------------

    async def _trouble(self) -> None:
        while not self._over:
            await asyncio.sleep(self._chance.expovariate(1 / 2))
            self._faults += 1
            self._check_sets()
            cell = self._cells[self._chance.choice(NAMES)]
            match self._chance.randrange(4):
                case 0 | 1:
                    self._goes_away(cell)
                case 2 if isinstance(cell, SimCell) and cell.name not in self._backups:
                    self._backups[cell.name] = cell.backup()  # the older, the more is forgotten
                case 2 | 3 if self._restores and self._restored is None and cell.name in self._backups:
                    assert isinstance(cell, SimCell)
                    await self._restore(cell)

    async def _restore(self, cell: SimCell) -> None:
        """What one of the others missed before, only one cell knows then, and that one goes away."""
        misses, knows = self._chance.sample([other for other in self._cells.values() if other is not cell], 2)
        misses.up = False
        await asyncio.sleep(self._chance.uniform(0, 4))
        cell.restore(self._backups.pop(cell.name), self._chance.getrandbits(60))
        self._restored = cell.name
        self._note("a cell was restored")
        self._goes_away(knows)
        misses.up = True

    def _goes_away(self, cell: SimCell | MemberCell) -> None:
        cell.up = False
        self._tell(f"{cell.name} is away")
        asyncio.get_running_loop().call_later(self._chance.uniform(0.2, 8), setattr, cell, "up", True)

    async def _end(self) -> None:
        """All is well again: what was begun comes to its end, and everything can be read."""
        self._weather.calm = True
        for cell in self._cells.values():
            cell.up = True
        for member_cell in self._member_cells():
            member_cell.heal()
        async with asyncio.timeout(SETTLE_SECONDS):
            await asyncio.sleep(60)  # no session is left
            for cell in self._cells.values():
                if isinstance(cell, SimCell):
                    cell.expire(now())
            async with self._reach() as them:
                for cell in self._cells.values():
                    if not _counts(cell):
                        await them.readmit(cell.name)
                await them.change_set(set(FIRST))
                check(all(_counts(self._cells[name]) for name in FIRST), "S1", "a cell of the set does not count")
                for name in REGISTERS:
                    found = await them.register(name).read()
                    checks.check_register(name, self._history.registers.get(name, []), _listed(found))
                if not self._restores:
                    await self._end_transactions(them)

    async def _end_transactions(self, them: Cells) -> None:
        janitor = them.janitor()
        for _ in range(4):
            answered = await self._sweep(janitor)
            await asyncio.sleep(6)
        check(answered, "T4", "cells do not answer, and nothing is wrong with them")
        data = {name: _text(cell) for name, cell in self._cells.items()}
        checks.check_nothing_is_left(data)
        checks.check_transfers(self._history.transfers, data, ACCOUNTS, INITIAL)


def _listed(value: bytes | None) -> list[str]:
    return value.decode().split(",") if value else []


def _counts(cell: Cell) -> bool:
    """Whether it was not restored after it joined the set."""
    itself = _data(cell).get(wire.SELF)
    return itself is None or Identity.unpacked(itself).cluster_id == cell.cluster_id


def _text(cell: Cell) -> dict[str, str]:
    return {key.decode(): value.decode(errors="replace") for key, value in _data(cell).items()}


def _data(cell: Cell) -> dict[bytes, bytes]:
    return {} if cell.space is None else keys_of(cell.space)


@contextmanager
def seeded(chance: random.Random) -> Iterator[None]:
    """What the code of the cells draws from the system's randomness comes from the seed."""
    drawn = SimpleNamespace(
        randbits=chance.getrandbits, token_hex=lambda n: chance.randbytes(n).hex(), token_bytes=chance.randbytes
    )
    modules: tuple[Any, ...] = (register, sessions, transaction)
    before = [module.secrets for module in modules]
    for module in modules:
        module.secrets = drawn
    try:
        yield
    finally:
        for module, secrets in zip(modules, before, strict=True):
            module.secrets = secrets
