"""The faults of real servers, and how they are repaired. Mostly one fault at a time, sometimes two."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from random import Random

from holdfast_lab.crash.cluster import CrashCluster
from holdfast_lab.crash.damage import Damaged

Fault = Callable[[], Awaitable[None]]


class Faults:
    """Injects faults until `stop`; all are repaired when `run` returns."""

    def __init__(self, cluster: CrashCluster, chance: Random, only: Collection[str] = ()) -> None:
        """`only`: these kinds of fault and no others."""
        self._cluster = cluster
        self._chance = chance
        self._only = only
        self.done: Counter[str] = Counter()
        self.power_undone = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        kinds: dict[str, Fault] = {
            "killed": self._kill,
            "leader killed": self._kill_leader,
            "all killed": self._kill_all,
            "frozen": self._freeze,
            "links stalled": self._stall,
            "links reset": self._reset,
        }
        if len(self._cluster.names) > 2:
            kinds["file damaged"] = self._damage
        if self._cluster.mounted:
            kinds["disk full"] = self._fill
        if self._cluster.power is not None:
            kinds["power cut"] = self._cut_power
            kinds["power cut everywhere"] = self._cut_all_power
        if self._only:
            kinds = {name: fault for name, fault in kinds.items() if name in self._only}
        while not self._stopping.is_set():
            name = self._chance.choice(list(kinds))
            await kinds[name]()
            self.done[name] += 1
            await self._pause(0.5, 2.5)

    async def _pause(self, least: float, most: float) -> None:
        """Wait; return early if it is time to stop."""
        try:
            async with asyncio.timeout(least + self._chance.random() * (most - least)):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _one(self) -> str:
        return self._chance.choice(self._cluster.names)

    # ---- processes -----------------------------------------------------------------------------------------

    async def _kill(self) -> None:
        await self._down([self._one()], self._cluster.kill)

    async def _kill_leader(self) -> None:
        await self._down([await self._cluster.leader() or self._one()], self._cluster.kill)

    async def _kill_all(self) -> None:
        await self._down(list(self._cluster.names), self._cluster.kill)

    async def _cut_power(self) -> None:
        await self._down([self._one()], self._power)

    async def _cut_all_power(self) -> None:
        await self._down(list(self._cluster.names), self._power)

    def _power(self, name: str) -> None:
        self.power_undone += self._cluster.cut_power(name)

    async def _down(self, names: list[str], how: Callable[[str], None]) -> None:
        for name in names:
            how(name)
        await self._pause(0.1, 3.0)
        for name in names:
            self._cluster.start_one(name)
        await self._cluster.wait_ready()

    async def _freeze(self) -> None:
        """Stop a server for long enough that another one is elected; then it continues with its old state."""
        process = self._cluster.processes[await self._cluster.leader() or self._one()]
        process.send_signal(signal.SIGSTOP)
        await self._pause(0.2, 5.0)
        process.send_signal(signal.SIGCONT)

    # ---- network and disk ----------------------------------------------------------------------------------

    def _partition(self) -> dict[str, set[int]]:
        """For each server, those whose traffic it does not get: between two sides, or in one direction only."""
        names, ids = self._cluster.names, self._cluster.ids
        side = set(self._chance.sample(names, self._chance.randrange(1, len(names))))
        one_way = self._chance.random() < 0.3
        cut: dict[str, set[int]] = {}
        for name in names:
            if one_way and name in side:
                continue
            cut[name] = {ids[other] for other in names if (other in side) != (name in side)}
        return cut

    async def _stall(self) -> None:
        for name, members in self._partition().items():
            self._cluster.proxies[name].stall(members)
        await self._pause(0.5, 6.0)
        for proxy in self._cluster.proxies.values():
            proxy.stall(set())

    async def _reset(self) -> None:
        for name, members in self._partition().items():
            self._cluster.proxies[name].refuse(members)
        await self._pause(0.0, 3.0)
        for proxy in self._cluster.proxies.values():
            proxy.refuse(set())

    async def _damage(self) -> None:
        """Damage one member's disk while all others are intact: what it may lose is on a majority of their disks."""
        self.done[await Damaged(self._cluster, self._one(), self._chance).run()] += 1
        await self._cluster.wait_ready()

    async def _fill(self) -> None:
        name = self._one()
        await asyncio.get_running_loop().run_in_executor(None, self._cluster.fill, name)
        await self._pause(2.0, 8.0)
        self._cluster.empty(name)
        await self._pause(1.5, 2.0)  # the server looks once a second
        if name in self._cluster.stopped_by_itself():
            # It may stop because it could not write; it must not lose anything.
            self.done["stopped on a full disk"] += 1
            self._cluster.processes[name].running = None
            self._cluster.start_one(name)
            await self._cluster.wait_ready()
