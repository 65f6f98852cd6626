"""The life of one replica: it starts, follows, loses its power at any moment, and starts again without a network."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from holdfast_lab.powercuts.authority import PREFIXES
from holdfast_lab.powercuts.replica import Replica

FOLLOWING_SECONDS = 2.0  # at most, before the next cut
START_SECONDS = 0.7  # that a start may need; how long it does is measured


@dataclass(slots=True)
class Report:
    """`cuts` by what the replica was doing."""

    seconds: float = 0.0
    cuts: Counter[str] = field(default_factory=Counter)
    undone: int = 0
    lost: int = 0  # cuts after which the replica had less than it had shown before
    checks: int = 0
    keys: int = 0
    nothing: int = 0  # checks of a replica that showed nothing yet
    caught_up: int = 0
    revisions: int = 0

    def __str__(self) -> str:
        cuts = ", ".join(f"{count:,} {name}" for name, count in sorted(self.cuts.items()))
        return (
            f"{self.cuts.total():,} power cuts in {self.seconds:.0f} s: {cuts}\n"
            f"{self.undone:,} changes of files lost; {self.lost:,} times the replica was at an earlier revision then\n"
            f"{self.checks:,} checks of {self.keys:,} keys at {self.revisions:,} revisions; {self.nothing:,} times "
            f"there was nothing yet, {self.caught_up:,} times it had caught up"
        )


class Life:
    """Of one replica."""

    def __init__(self, replica: Replica, report: Report, chance: Random) -> None:
        self._replica = replica
        self._report = report
        self._chance = chance
        self._start_seconds = START_SECONDS
        self._kind = ""

    async def run(self) -> None:
        """Until cancelled. Raises Violation."""
        await self._replica.relay.start()
        self._replica.take(self._prefixes())
        while True:
            if await self._start():
                await self._follow()
            await self._restart()
            while self._chance.random() < 0.6:
                self._kind = "following"
                await self._follow()
                await self._restart()
            self._cut("at rest")

    def _prefixes(self) -> tuple[str, ...]:
        """Some, and of some only a part."""
        chosen = self._chance.sample(PREFIXES, self._chance.randint(1, len(PREFIXES)))
        return tuple(p + "1" if self._chance.random() < 0.3 else p for p in chosen)

    def _cut(self, kind: str) -> None:
        self._report.undone += self._replica.cut_power()
        self._report.cuts[kind] += 1

    async def _start(self) -> bool:
        """Start it, now and then with nothing, or with other prefixes. Returns whether it came to serve."""
        self._kind = "after a start"
        if self._chance.random() < 0.25:
            self._replica.empty()
            self._kind = "at its first snapshot"
        elif self._chance.random() < 0.4:
            self._replica.take(self._prefixes())
            self._kind = "with other prefixes"
        self._replica.relay.heal()
        return await self._started(0.3)

    async def _started(self, chance: float) -> bool:
        """With a chance the power is cut meanwhile; then returns False."""
        began = time.monotonic()
        self._replica.start()
        if self._chance.random() < chance:
            await asyncio.sleep(1.2 * self._start_seconds * self._chance.random())
            self._cut("at a start")
            return False
        await self._replica.serves()
        self._start_seconds = time.monotonic() - began
        return True

    async def _follow(self) -> None:
        """Let it follow for a while, sometimes until it has caught up."""
        self._replica.relay.heal()
        draw = self._chance.random()
        if draw < 0.1:
            self._report.keys += await self._replica.catch_up()
            self._report.caught_up += 1
        elif draw < 0.4:  # the snapshot comes at once
            await asyncio.sleep(0.2 * self._chance.random())
        else:
            await asyncio.sleep(FOLLOWING_SECONDS * self._chance.random())

    async def _restart(self) -> None:
        """Cut its power if it runs, start it without a network, and check what it shows."""
        before = 0
        if self._replica.running:
            node = await self._replica.describe()
            before = node.revision if node is not None else 0
            self._cut(self._kind)
        self._replica.relay.cut()
        while not await self._started(0.2):
            pass
        found = await self._replica.check(started=True)
        self._report.checks += 1
        self._report.keys += found
        self._report.nothing += not self._replica.held
        self._report.lost += self._replica.least < before
