"""What the simulated applications do: they contend for locks, permits and leadership, and show their tokens."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from holdfast.client.errors import ClientError
from holdfast.recipes.election import Election
from holdfast.recipes.lock import Held, Lock
from holdfast.recipes.place import PlaceLost
from holdfast.recipes.rwlock import RWLock
from holdfast.recipes.semaphore import Semaphore
from holdfast.recipes.space import put, txn

from holdfast_lab.sim.apps.process import Process
from holdfast_lab.sim.apps.referee import Claim, Referee
from holdfast_lab.sim.apps.space import SimSpace
from holdfast_lab.sim.apps.tasks import Cancelled, Task
from holdfast_lab.sim.apps.works import Works
from holdfast_lab.sim.ledger import RequestLedger
from holdfast_lab.sim.mix import SECOND
from holdfast_lab.sim.node import Clock
from holdfast_lab.sim.world import World

PERMITS = 2
LONGEST_USE = 2.5  # seconds
WORKS = 0.5  # how often it works on something, instead of holding something


class Game(NamedTuple):
    """One thing to contend for."""

    name: bytes
    make: Callable[[SimSpace, Random], tuple[Held, bool, int]]  # the object, whether it is shared, and its permits


def _reading_or_writing(space: SimSpace, chance: Random) -> tuple[Held, bool, int]:
    rw, reads = RWLock(space, b"r/rw"), chance.random() < 0.6
    return (rw.reading if reads else rw.writing), reads, 1


GAMES = (
    Game(b"r/lock", lambda space, _: (Lock(space, b"r/lock"), False, 1)),
    Game(b"r/election", lambda space, _: (Election(space, b"r/election"), False, 1)),
    Game(b"r/rw", _reading_or_writing),
    Game(b"r/permits", lambda space, _: (Semaphore(space, b"r/permits", PERMITS), False, PERMITS)),
)


class App:
    """An application that is started again when it was killed. Each process has one session after the other."""

    def __init__(
        self,
        world: World,
        ledger: RequestLedger,
        referee: Referee,
        works: Works,
        number: int,
        clock: Clock,
        streams: dict[int, Any],
        *,
        numbered: bool,
        slow: float,
    ) -> None:
        """`numbered`: see `SimSpace`; `slow`: see `Process`."""
        self.number = number
        self.clock = clock
        self.stopping = False
        self._world = world
        self._ledger = ledger
        self._referee = referee
        self._works = works
        self._streams = streams
        self._numbered = numbered
        self._slow = slow
        self._chance = world.chance(f"app/{number}")
        self.process: Process | None = None
        self._waiting: Task | None = None  # what may be cancelled
        world.at(world.now + self._chance.randrange(2 * SECOND), self.start)

    # ---- processes -----------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.process is None and not self.stopping:
            self.process = Process(self._world, self.clock, self._chance, self._ended)
            self.process.slow = self._slow
            self.process.run(self._live(self.process))

    def kill(self) -> None:
        if self.process is not None:
            self._world.note(f"app {self.number} is killed")
            self.process.kill()
            self.process, self._waiting = None, None
            self._world.at(self._world.now + self._chance.randrange(4 * SECOND), self.start)

    def freeze(self, seconds: float) -> None:
        process = self.process
        if process is not None and not process.frozen:
            self._world.note(f"app {self.number} is frozen for {seconds:.1f} s")
            process.freeze()
            self._world.at(self._world.now + int(seconds * SECOND), process.thaw)

    def cut_off(self, seconds: float) -> None:
        """No server is reached for a while; the process goes on."""
        process = self.process
        if process is not None and not process.cut:
            self._world.note(f"app {self.number} is cut off for {seconds:.1f} s")
            process.cut = True
            self._world.at(self._world.now + int(seconds * SECOND), self._joined, process)

    @staticmethod
    def _joined(process: Process) -> None:
        process.cut = False

    def calm(self) -> None:
        """Start nothing any more, over a network that is well."""
        self.stopping = True
        if self.process is not None:
            self.process.slow = 0.0
        if not self._numbered:
            # Its own place, entered by a late request after it was given up, may be what it waits for (see
            # docs/coordination.md: what is not promised on etcd); the end of its session frees that.
            self.give_up()

    def end(self) -> None:
        """The run is over."""
        if self.process is not None:
            self.process.kill()

    def give_up(self) -> None:
        """Cancel what waits, as a user of `asyncio.timeout` does."""
        if self._waiting is not None:
            self._world.sometimes("waiting cancelled")
            self._waiting.cancel()
            self._waiting = None

    def _ended(self, task: Task, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, ClientError | Cancelled):
            raise error
        if isinstance(error, ClientError):
            self._world.note(f"app {self.number}: {type(error).__name__}: {error}")

    def _goes_on(self) -> bool:
        return not self.stopping

    # ---- what they do --------------------------------------------------------------------------------------

    async def _live(self, process: Process) -> None:
        while self._goes_on():
            space = SimSpace(process, self._ledger, self._streams, self.number, numbered=self._numbered)
            try:
                await space.open(3 + self._chance.randrange(4), self._chance.choice((0, 0, 2, 8)))
                self._world.sometimes("session opened")
                for _ in range(self._chance.randrange(2, 12)):
                    if not self._goes_on() or not await self._contend(space):
                        break
            except ClientError as error:
                self._world.note(f"app {self.number}: {type(error).__name__}: {error}")
            space.close()
            await process.pause()
        self.process = None

    async def _contend(self, space: SimSpace) -> bool:
        """False: it ends without releasing, which the end of the session does."""
        if self._chance.random() < WORKS:
            await self._works.some(self.number, space, self._chance)
            return True
        game = self._chance.choice(GAMES)
        held, shared, permits = game.make(space, self._chance)
        try:
            got = await self._acquire(space, held)
        except PlaceLost as lost:
            self._referee.lost(lost.key)
            raise
        if not got:
            self._world.sometimes("gave up waiting")
            return True
        claim = Claim(self.number, held, space, held.token, shared, permits)
        self._world.note(f"app {self.number} holds {game.name.decode()} by {claim.token}")
        self._referee.took(game.name, claim)
        await self._use(space, game.name, claim)
        if self._chance.random() < 0.1:
            return False
        await held.release()
        return True

    async def _acquire(self, space: SimSpace, held: Held) -> bool:
        """In a task of its own, which may be cancelled."""
        draw, got = self._chance.random(), False
        timeout = 0.0 if draw < 0.15 else 2 * self._chance.random() if draw < 0.4 else None
        error: ClientError | None = None

        async def acquire() -> None:
            nonlocal got, error
            try:
                got = await held.acquire(timeout)
            except ClientError as raised:
                error = raised

        self._waiting = task = space.process.run(acquire())
        while task is not None and not task.over:
            await space.process.pause()
        self._waiting = None
        if error is not None:
            raise error
        return got

    async def _use(self, space: SimSpace, name: bytes, claim: Claim) -> None:
        """It looks whether it still holds it, and may be frozen between that and the use."""
        until = space.now() + LONGEST_USE * self._chance.random()
        exclusive = claim.permits == 1 and not claim.shared
        while space.now() < until and claim.stands:
            await space.process.pause()
            if exclusive and not await self._show(space, name, claim):
                return

    async def _show(self, space: SimSpace, name: bytes, claim: Claim) -> bool:
        """Use what the lock protects, and write under the compare of the token, each by itself. False: refused."""
        if self._chance.random() < 0.5:
            return self._referee.use(name, claim)
        value = put(b"fenced/" + name, str(claim.token).encode())
        written = await txn(space, when=[claim.token.held()], then=[value])
        if not written.succeeded:
            self._world.sometimes("late write refused")
        return written.succeeded
