"""The member that replicas follow, the writer, and the true history: what every key was at every revision."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from holdfast import client
from sortedcontainers import SortedDict

PREFIXES = ("/a/", "/b/", "/c/")
KEYS = [f"{prefix}{n:03d}".encode() for prefix in PREFIXES for n in range(200)]
LONGEST = 2000  # bytes of a value
MOST = 6  # keys of a transaction
PAUSE_SECONDS = 0.04  # between writes, on average
COMPACTIONS = 0.002  # of writes are followed by one: then a replica that was away gets a snapshot
KEPT = 100  # revisions that a compaction leaves
Row = tuple[bytes, int, int, int]  # value, create and mod revision, version


@dataclass(slots=True)
class _Key:
    """What a key was, from each of these revisions on; None: it was not there."""

    revisions: list[int] = field(default_factory=list)
    rows: list[Row | None] = field(default_factory=list)

    def at(self, revision: int) -> Row | None:
        found = bisect_right(self.revisions, revision)
        return self.rows[found - 1] if found else None


class Authority:
    """The only writer: its acknowledged writes are the history."""

    def __init__(self, endpoint: str, chance: Random) -> None:
        self.endpoint = endpoint
        self._chance = chance
        self._keys: SortedDict[bytes, _Key] = SortedDict()
        self._written = 0
        self.revision = 0

    async def fill(self) -> None:
        """Write all keys once."""
        async with client.connect(self.endpoint, timeout=60.0) as hf:
            for at in range(0, len(KEYS), 100):
                await self._commit(hf, {key: self._value() for key in KEYS[at : at + 100]})

    async def write(self) -> None:
        """Until cancelled. The member has no faults, so a write that fails ends the test."""
        async with client.connect(self.endpoint, timeout=60.0) as hf:
            while True:
                await self._commit(hf, self._changes())
                if self._chance.random() < COMPACTIONS:
                    await hf.compact(max(1, self.revision - KEPT))
                await asyncio.sleep(2 * PAUSE_SECONDS * self._chance.random())

    def _value(self) -> bytes:
        self._written += 1
        return b"%d " % self._written + b"x" * self._chance.randrange(LONGEST)

    def _changes(self) -> dict[bytes, bytes | None]:
        """One key, or a transaction of several, of any prefixes. None: it is deleted."""
        count = self._chance.randrange(2, MOST + 1) if self._chance.random() < 0.3 else 1
        changes: dict[bytes, bytes | None] = {}
        for key in self._chance.sample(KEYS, count):
            there = self._row(key, self.revision) is not None
            changes[key] = None if there and self._chance.random() < 0.3 else self._value()
        return changes

    async def _commit(self, hf: client.Client, changes: dict[bytes, bytes | None]) -> None:
        ops = [hf.op.delete(key) if value is None else hf.op.put(key, value) for key, value in changes.items()]
        done = await hf.txn().then(*ops).commit()
        for key, value in changes.items():
            before = self._row(key, done.revision)
            create, version = (before[1], before[3] + 1) if before else (done.revision, 1)
            found = self._keys.setdefault(key, _Key())
            found.revisions.append(done.revision)
            found.rows.append(None if value is None else (value, create, done.revision, version))
        self.revision = done.revision

    async def knows(self, revision: int) -> None:
        """Wait until the writer has heard of this revision: a replica may be faster."""
        while self.revision < revision:
            await asyncio.sleep(0.002)

    def _row(self, key: bytes, revision: int) -> Row | None:
        found = self._keys.get(key)
        return found.at(revision) if found is not None else None

    def at(self, prefix: bytes, revision: int) -> Iterator[tuple[bytes, Row]]:
        """The keys with this prefix at this revision."""
        for key in self._keys.irange(prefix):
            if not key.startswith(prefix):
                return
            row = self._keys[key].at(revision)
            if row is not None:
                yield key, row
