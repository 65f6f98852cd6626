"""Faults by chance, until it is time to stop; then all is running again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from random import Random

Fault = Callable[[Random], Awaitable[None]]


def faults_text(done: Counter[str]) -> str:
    """What was done, for people."""
    return ", ".join(f"{count:,} {what}" for what, count in sorted(done.items())) or "no faults"


class Torment:
    """One fault after the other, `seconds` apart on average. `faults`: with how often each comes, of all."""

    def __init__(self, faults: Mapping[str, tuple[float, Fault]], seconds: float, chance: Random) -> None:
        self._faults = faults
        self._seconds = seconds
        self._chance = chance
        self._stopping = asyncio.Event()
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        """Until `stop`; what was killed last is up again when this returns."""
        self._stopping.clear()
        names, weights = list(self._faults), [weight for weight, _ in self._faults.values()]
        while await self._pause(self._chance.expovariate(1 / self._seconds)):
            (name,) = self._chance.choices(names, weights)
            await self._faults[name][1](self._chance)
            self.done[name] += 1

    def stop(self) -> None:
        self._stopping.set()

    async def _pause(self, seconds: float) -> bool:
        """False: it is time to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return True
        return False
