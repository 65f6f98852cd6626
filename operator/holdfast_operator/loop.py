"""Loops that keep objects as they are wanted. Events wake one, several at once count as one, and it backs off after
errors.

Handlers only wake a loop. What a pass does depends on what it reads from the API server, never on the event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable

from holdfast_operator.reconcile_cluster import LATER

log = logging.getLogger("holdfast.operator")

Key = tuple[str, str]  # namespace, name
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
QUIET_SECONDS = 0.05


class Loop(ABC):
    """Makes one pass after the other over one object, and over those that belong to it."""

    def __init__(self, key: Key) -> None:
        self._namespace, self._name = key
        self._failures: dict[str, int] = {}  # by object: how often in a row
        self.woken = asyncio.Event()
        self.passed_at = get_running_loop().time()

    async def run(self) -> None:
        """Run until nothing is left to be kept."""
        while True:
            self.woken.clear()
            delay = await self._pass()
            self.passed_at = get_running_loop().time()
            if delay is None:
                await self.close()
                if not self.woken.is_set():  # nothing is awaited between this and the end of the task
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self.woken.wait()
                    await asyncio.sleep(QUIET_SECONDS)  # events come in bursts; one pass serves them all

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    async def _pass(self) -> float | None:
        """Returns the seconds until the next pass is due; None if nothing is left."""

    async def _alone(self, what: str, work: Awaitable[float | None]) -> float | None:
        """Do the work for one object. If it fails, it is tried again later and later, and nothing else is held up."""
        try:
            delay = await work
        except Exception as error:
            return self._failed(what, error)
        self._failures.pop(what, None)
        return delay

    def _failed(self, what: str, error: Exception) -> float:
        count = self._failures.get(what, 0)
        self._failures[what] = count + 1
        log.warning("%s/%s: the pass for %s failed: %r", self._namespace, self._name, what, error, exc_info=count == 0)
        return BACKOFF_SECONDS[min(count, len(BACKOFF_SECONDS) - 1)]


class Loops:
    """The loops of all objects of a kind."""

    def __init__(self, make: Callable[[Key], Loop]) -> None:
        self._make = make
        self._loops: dict[Key, tuple[Loop, asyncio.Task[None]]] = {}

    def wake(self, namespace: str, name: str) -> None:
        """Something of this object has changed. A loop that has ended starts again."""
        key = (namespace, name)
        known = self._loops.get(key)
        if known is None or known[1].done():
            loop = self._make(key)
            self._loops[key] = (loop, asyncio.ensure_future(self._run(key, loop)))
        else:
            known[0].woken.set()

    async def _run(self, key: Key, loop: Loop) -> None:
        try:
            await loop.run()
        finally:
            if self._loops.get(key, (None,))[0] is loop:
                del self._loops[key]

    def wake_all(self) -> None:
        for loop, _ in self._loops.values():
            loop.woken.set()

    @property
    def stuck_seconds(self) -> float:
        """The time since a loop last finished a pass, less its longest pause; of the slowest loop."""
        now = get_running_loop().time()
        running = [now - loop.passed_at for loop, task in self._loops.values() if not task.done()]
        return max(0.0, max(running, default=0.0) - max(LATER, BACKOFF_SECONDS[-1]))

    async def close(self) -> None:
        running = list(self._loops.values())
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)
        for loop, _ in running:
            await loop.close()
