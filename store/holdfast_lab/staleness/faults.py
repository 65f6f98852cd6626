"""What happens to members, to replicas and to the network meanwhile: one fault of each of these at a time.

The wall clock stays as it is: it is that of the whole machine. The replicas do not use it for what is checked here.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from holdfast_lab.processes import Process, leader_among
from holdfast_lab.staleness.judge import Judge
from holdfast_lab.staleness.links import Link
from holdfast_lab.staleness.tree import Tree


class Faults:
    """Injects faults until cancelled; then all are repaired."""

    def __init__(self, tree: Tree, judge: Judge, chance: Random) -> None:
        self._tree = tree
        self._judge = judge
        self._chance = chance
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        await asyncio.gather(self._members(), self._replicas(), self._network())

    async def _pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self._chance.uniform(least, most))

    # ---- members -------------------------------------------------------------------------------------------

    async def _members(self) -> None:
        """Mostly the leader, often for long enough that another one is elected while it is frozen."""
        while True:
            await self._pause(2.0, 6.0)
            voters = {p.endpoint: p for p in self._tree.cluster.voters.values()}
            leader = await leader_among(voters, timeout=1.0) if self._chance.random() < 0.6 else None
            chosen = voters[leader] if leader else self._chance.choice(list(voters.values()))
            async with _frozen(chosen):
                await self._pause(0.3, 5.0)
                others = [endpoint for endpoint in voters if endpoint != leader]
                deposed = leader is not None and await leader_among(others, timeout=0.5) is not None
            self.done["leader deposed while frozen" if deposed else "leader frozen" if leader else "member frozen"] += 1

    # ---- replicas ------------------------------------------------------------------------------------------

    async def _replicas(self) -> None:
        while True:
            await self._pause(0.5, 3.0)
            name = self._chance.choice(list(self._tree.replicas))
            process, kind = self._tree.replicas[name], name.rstrip("1234")
            if self._chance.random() < 0.6:
                async with _frozen(process):
                    await self._pause(0.2, 4.0)
                self.done[f"{kind} frozen"] += 1
            else:
                process.kill()
                self._judge.restarted(name)
                try:
                    await self._pause(0.0, 1.5)
                finally:
                    process.start()
                self.done[f"{kind} killed"] += 1

    # ---- the network ---------------------------------------------------------------------------------------

    async def _network(self) -> None:
        """One link, all from one replica upwards, or all from one server downwards."""
        while True:
            await self._pause(0.5, 2.0)
            links = self._tree.links
            lower, upper = self._chance.choice(list(links))
            upwards = [link for (of, _), link in links.items() if of == lower]
            downwards = [link for (_, to), link in links.items() if to == upper]
            hit = self._chance.choice(([links[lower, upper]], upwards, downwards))
            await self._hit(hit)

    async def _hit(self, links: list[Link]) -> None:
        how = self._chance.choice(("cut", "silent", "slow"))
        delay = self._chance.uniform(0.02, 0.5)
        try:
            for link in links:
                if how == "cut":
                    link.cut()
                elif how == "silent":
                    link.stall()
                else:
                    link.seconds = delay
            await self._pause(0.2, 5.0)
        finally:
            for link in links:
                link.heal()
        self.done[f"links {how}"] += 1


@asynccontextmanager
async def _frozen(process: Process) -> AsyncIterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
