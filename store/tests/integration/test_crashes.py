"""kill -9 of random members, again and again, under load: nothing that was acknowledged may be missing."""

from __future__ import annotations

import asyncio
import random

import pytest
from holdfast import client
from holdfast.cli.processes import LocalCluster

ROUNDS = 50
WRITERS = 4


class Writer:
    """Writes numbered keys of its own and remembers which were acknowledged, and which may have happened."""

    def __init__(self, name: str, endpoints: list[str]) -> None:
        self.name = name
        self.endpoints = endpoints
        self.acknowledged: dict[str, str] = {}
        self.unknown: set[str] = set()
        self.stopping = False
        self.wrote = asyncio.Event()

    async def run(self) -> None:
        async with client.connect(self.endpoints, timeout=10.0) as hf:
            number = 0
            while not self.stopping:
                number += 1
                key, value = f"/{self.name}/{number}", f"{self.name}-{number}"
                try:
                    await hf.put(key, value)
                    self.acknowledged[key] = value
                    self.wrote.set()
                except client.OutcomeUnknown:
                    self.unknown.add(key)
                except client.Unavailable:
                    pass


@pytest.mark.timeout(600)
async def test_acknowledged_writes_survive_kill_9_of_random_members(cluster: LocalCluster) -> None:
    await cluster.wait_ready()
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    writers = [Writer(f"w{n}", cluster.endpoints) for n in range(WRITERS)]
    running = [asyncio.ensure_future(writer.run()) for writer in writers]
    for _ in range(ROUNDS):
        victims = chance.sample(sorted(cluster.voters), 2 if chance.random() < 0.2 else 1)
        for name in victims:
            cluster.voters[name].kill()
        if len(victims) == 1:
            # The two others go on without it: every writer has a write acknowledged while it is down.
            for writer in writers:
                writer.wrote.clear()
            async with asyncio.timeout(30):
                await asyncio.gather(*(writer.wrote.wait() for writer in writers))
        for name in victims:
            cluster.voters[name].start()
        await cluster.wait_ready()
    for writer in writers:
        writer.stopping = True
    await asyncio.gather(*running)

    acknowledged = {k: v for w in writers for k, v in w.acknowledged.items()}
    unknown = set().union(*(w.unknown for w in writers))
    print(f"{len(acknowledged)} writes acknowledged, {len(unknown)} of unknown outcome")
    assert len(acknowledged) > ROUNDS
    hashes = set()
    for process in cluster.voters.values():
        async with client.connect(process.endpoint) as hf:
            found = {kv.key.decode(): kv.value.decode() for kv in (await hf.range("/w", prefix=True)).kvs}
            missing = {k: v for k, v in acknowledged.items() if found.get(k) != v}
            assert not missing, (
                f"{process.name} lacks {len(missing)} acknowledged writes, such as {next(iter(missing))}"
            )
            assert set(found) <= set(acknowledged) | unknown, "a write is there that nobody made"
            answer = await hf.hash_kv(process.endpoint)
            hashes.add((answer.hash, answer.hash_revision))
    assert len(hashes) == 1, f"members differ: {hashes}"
