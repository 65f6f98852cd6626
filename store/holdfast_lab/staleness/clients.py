"""The writers, each of one key, and the readers, each at one replica."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from holdfast import client
from holdfast.client.position import Position
from holdfast.durations import seconds
from holdfast.proto import rpc_pb2
from holdfast.status import BOUND_METADATA, POSITION_METADATA, READ_METADATA

from holdfast_lab.sim.violation import check
from holdfast_lab.staleness.calls import Calls, Failed
from holdfast_lab.staleness.judge import Answer, Asked, Judge, Mode
from holdfast_lab.staleness.tree import PREFIX

KEYS = [f"{PREFIX}{n}" for n in range(6)]
REQUESTS = {key: rpc_pb2.RangeRequest(key=key.encode()).SerializeToString() for key in KEYS}
WRITE_SECONDS = 0.03  # between two writes of a key, on average
READERS = 24  # at each replica
READ_SECONDS = 3.0  # after so long no answer is waited for
FAILED_SECONDS = 0.05  # pause of a reader after a failure: a replica that is down refuses at once
BOUNDS = ("50ms", "100ms", "200ms", "500ms", "1s", "2s", "5s")
LOCAL = Mode("local", "local")
BOUNDED = [Mode("bounded", f"bounded={text}", within=int(seconds(text) * 1e9)) for text in BOUNDS]


def text_of(number: int) -> str:
    """Numbers compare as their texts do."""
    return f"{number:012d}"


async def write(key: str, endpoints: list[str], judge: Judge, chance: Random) -> None:
    """Write growing numbers, until cancelled. A number that was sent and not acknowledged may be written late, but not
    after a larger one."""
    async with client.connect(endpoints, timeout=5.0) as hf:
        number = 1
        while True:
            try:
                smaller = hf.key(key).value < text_of(number)
                done = await hf.txn().if_(smaller).then(hf.op.put(key, text_of(number))).commit()
            except client.ClientError:
                pass
            else:
                check(done.succeeded, "L1", f"{key} is not smaller than {number}, which was never written before")
                judge.acknowledged(key, number, done.revision)
            number += 1
            await asyncio.sleep(2 * WRITE_SECONDS * chance.random())


@dataclass(slots=True)
class Client:
    """Readers that tell each other how far they have seen: one at each replica."""

    position: Position | None = None


@dataclass(slots=True)
class Reads:
    """Counts by mode."""

    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    silent: Counter[str] = field(default_factory=Counter)


class Reader:
    """Reads at one replica, in changing modes."""

    def __init__(self, replica: str, calls: Calls, judge: Judge, reads: Reads, chance: Random) -> None:
        self._replica = replica
        self._judge = judge
        self._reads = reads
        self._chance = chance
        self._calls = calls

    async def run(self, owner: Client) -> None:
        """Until cancelled. Raises Violation."""
        while True:
            await self.read(self._mode(owner), owner)

    def _mode(self, owner: Client) -> Mode:
        draw = self._chance.random()
        if draw < 0.2:
            return LOCAL
        if draw < 0.4 and owner.position is not None:
            return Mode("at-least", f"at-least={owner.position}", revision=owner.position.revision)
        return self._chance.choice(BOUNDED)

    async def read(self, mode: Mode, owner: Client) -> bool:
        """Whether it was answered."""
        key = self._chance.choice(KEYS)
        asked = self._judge.asked(self._replica, key, mode)
        try:
            headers, found = await self._calls.range(REQUESTS[key], READ_METADATA, mode.metadata)
        except Failed as error:
            (self._reads.silent if error.late else self._reads.refused)[mode.name] += 1
            await asyncio.sleep(FAILED_SECONDS)
            return False
        self._answered(asked, rpc_pb2.RangeResponse.FromString(found), headers, owner)
        return True

    def _answered(self, asked: Asked, found: rpc_pb2.RangeResponse, headers: dict[str, str], owner: Client) -> None:
        position, bound = Position.parse(headers[POSITION_METADATA]), headers[BOUND_METADATA]
        known = None if bound == "unknown" else int(seconds(bound) * 1e9)
        number, changed = (int(found.kvs[0].value), found.kvs[0].mod_revision) if found.kvs else (0, 0)
        self._judge.answered(asked, Answer(headers[READ_METADATA], number, changed, position.revision, known))
        self._reads.answered[asked.mode.name] += 1
        owner.position = max(owner.position or position, position, key=lambda p: p.revision)


async def until_fresh(readers: list[Reader], limit: float) -> None:
    """Wait until each of them gets an answer that may be at most a second old. Raises Violation."""
    fresh = Mode("bounded", "bounded=1s", within=10**9)
    end = time.monotonic() + limit
    for reader in readers:
        while not await reader.read(fresh, Client()):
            check(time.monotonic() < end, "L1", f"a replica is not fresh {limit:g} s after the last fault")
