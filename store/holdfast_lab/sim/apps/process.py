"""A simulated application process: tasks and a clock of its own; it may be frozen or killed.

Everything that reaches the process (answers, events of watches, its own timers) goes through `arrives`, so a frozen
process does nothing, and when it goes on finds all of it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from holdfast_lab.sim.apps.tasks import Task, Waiting
from holdfast_lab.sim.mix import SECOND
from holdfast_lab.sim.node import Clock
from holdfast_lab.sim.world import World


class Process:
    """`ended` is called with each task that ended, and its error."""

    def __init__(
        self, world: World, clock: Clock, chance: Random, ended: Callable[[Task, BaseException | None], None]
    ) -> None:
        self.world = world
        self.chance = chance
        self.frozen = False
        self.killed = False
        self.slow = 0.0  # how many messages to and from servers take seconds
        self.cut = False  # no message goes out or comes in; those on their way arrive
        self._clock = clock
        self._ended = ended
        self._tasks: dict[Task, None] = {}  # a set in a fixed order
        self._inbox: list[Callable[[], None]] = []

    def now_ns(self) -> int:
        return self._clock.local(self.world.now)

    def when(self, seconds: float) -> int:
        """The world's time at which this process's clock shows `seconds`."""
        return self._clock.when(int(seconds * SECOND))

    def arrives(self, what: Callable[[], None]) -> None:
        if self.killed:
            return
        if self.frozen:
            self._inbox.append(what)
        else:
            what()

    def at(self, nanoseconds: int, what: Callable[[], None]) -> None:
        """Call after a time by this process's clock."""
        self.world.at(self._clock.when(self.now_ns() + nanoseconds), self.arrives, what)

    def soon(self, what: Callable[[], None]) -> None:
        self.world.at(self.world.now, self.arrives, what)

    def delay_ns(self) -> int:
        """How long a message to or from a server takes."""
        seconds = 4 * self.chance.random() ** 2 if self.chance.random() < self.slow else 0.005 * self.chance.random()
        return int(seconds * SECOND)

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        """Go on. What arrived meanwhile is taken in any order: the process may use what it holds first."""
        self.frozen = False
        waiting, self._inbox = self._inbox, []
        self.chance.shuffle(waiting)
        for what in waiting:
            self.soon(what)

    def kill(self) -> None:
        self.killed = True
        for task in list(self._tasks):
            task.kill()

    def run(self, work: Coroutine[Any, Any, None]) -> Task | None:
        """Run a part of the process. None: it was killed."""
        if self.killed:
            work.close()
            return None
        task = Task(work, self.soon, self._over)
        self._tasks[task] = None
        return task

    def _over(self, task: Task, error: BaseException | None) -> None:
        self._tasks.pop(task, None)
        self._ended(task, error)

    async def pause(self) -> None:
        """Wait a little."""
        wait = Waiting[None]()
        self.at(int((0.05 + 0.1 * self.chance.random()) * SECOND), lambda: wait.set(None))
        await wait
