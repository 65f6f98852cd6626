"""Load on real servers, recorded as the simulator's clients record it, so that the same checker can judge it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from holdfast import client

from holdfast_lab.sim.operations import Kind, Operation, Outcome, Version

KEYS = [f"/k/{n}" for n in range(10)]
SPAN = (b"/k/", b"/k0")


@dataclass(slots=True)
class StaleRead:
    """A serializable read: correct if it returned the state at its revision."""

    revision: int
    seen: list[tuple[bytes, bytes, int, int, int, int]]


class LoadClient:
    """A client that does one operation at a time, on a few keys, at changing servers."""

    def __init__(self, number: int, endpoints: list[str], ids: itertools.count[int], session: bool) -> None:
        self._number = number
        self._chance = Random(number)
        self._endpoints = endpoints
        self._ids = ids
        self._session_ttl = 30 if session else 0
        self.history: list[Operation] = []
        self.stale: list[StaleRead] = []
        self.stopping = False
        self._seen: dict[str, int] = {}

    async def run(self) -> None:
        order = self._chance.sample(self._endpoints, len(self._endpoints))
        async with client.connect(order, timeout=8.0, session_ttl=self._session_ttl) as hf:
            while not self.stopping:
                await self._one(hf)
                await asyncio.sleep(self._chance.random() * 0.02)

    async def _one(self, hf: client.Client) -> None:
        draw = self._chance.random()
        key = self._chance.choice(KEYS)
        if draw < 0.4:
            await self._put(hf, key)
        elif draw < 0.5:
            await self._delete(hf, key)
        elif draw < 0.7:
            await self._cas(hf, key)
        elif draw < 0.9:
            await self._get(hf)
        else:
            await self._get_stale(hf)

    def _begin(self, kind: Kind, key: str, **fields: object) -> Operation:
        operation = Operation(
            next(self._ids),
            kind,
            key=key.encode(),
            invoked=time.monotonic_ns(),
            **fields,  # type: ignore[arg-type]
        )
        self.history.append(operation)
        return operation

    def _value(self, operation: Operation) -> bytes:
        return b"%d.%d" % (self._number, operation.id)

    def _done(self, operation: Operation, revision: int, result: object) -> None:
        operation.outcome, operation.returned = Outcome.DONE, time.monotonic_ns()
        operation.revision, operation.result = revision, result

    @contextlib.contextmanager
    def _failing(self, operation: Operation) -> Iterator[None]:
        """What an error says about the outcome."""
        try:
            yield
        except client.OutcomeUnknown:
            operation.outcome = Outcome.UNKNOWN
        except client.Unavailable:
            # Not sent, or not a write. (A named write that was sent and never answered is OutcomeUnknown.)
            operation.outcome = Outcome.REFUSED
        except client.Refused:
            operation.outcome = Outcome.REFUSED

    async def _put(self, hf: client.Client, key: str) -> None:
        operation = self._begin(Kind.PUT, key)
        operation.value = self._value(operation)
        with self._failing(operation):
            done = await hf.put(key, operation.value, previous=True)
            self._done(operation, done.revision, _version(done.previous))

    async def _delete(self, hf: client.Client, key: str) -> None:
        operation = self._begin(Kind.DELETE, key, end=key.encode() + b"\x00")
        with self._failing(operation):
            done = await hf.delete(key, previous=True)
            self._done(operation, done.revision, [_versioned(kv) for kv in done.previous])

    async def _cas(self, hf: client.Client, key: str) -> None:
        operation = self._begin(Kind.CAS, key, expect=self._seen.get(key, 0))
        operation.value = self._value(operation)
        with self._failing(operation):
            done = await (
                hf.txn()
                .if_(hf.key(key).mod_revision == operation.expect)
                .then(hf.op.put(key, operation.value))
                .else_(hf.op.get(key))
                .commit()
            )
            if done.succeeded:
                self._done(operation, done.revision, (True, None))
            else:
                found = done.responses[0]
                assert isinstance(found, list)
                self._done(operation, done.revision, (False, _version(found[0] if found else None)))

    async def _get(self, hf: client.Client) -> None:
        operation = self._begin(Kind.GET, SPAN[0].decode(), end=SPAN[1])
        with self._failing(operation):
            found = await hf.range(SPAN[0], end=SPAN[1])
            self._seen = {kv.key.decode(): kv.mod_revision for kv in found.kvs}
            self._done(operation, found.revision, [_versioned(kv) for kv in found.kvs])

    async def _get_stale(self, hf: client.Client) -> None:
        with contextlib.suppress(client.ClientError):
            found = await hf.range(SPAN[0], end=SPAN[1], serializable=True)
            self.stale.append(StaleRead(found.revision, [_versioned(kv) for kv in found.kvs]))


@dataclass(slots=True)
class Seen:
    """The events that a watch got: (revision, key, value; None if the key was deleted)."""

    revision: int
    key: bytes
    value: bytes | None


class LoadWatcher:
    """Watches all keys from the first revision on, whatever faults happen."""

    def __init__(self, endpoints: list[str]) -> None:
        self._endpoints = endpoints
        self.seen: list[Seen] = []

    async def run(self) -> None:
        async with client.connect(self._endpoints, timeout=8.0) as hf:
            async for event in hf.watch("/k/", prefix=True, start_revision=1):
                deleted = event.type == "delete"
                self.seen.append(Seen(event.kv.mod_revision, event.kv.key, None if deleted else event.kv.value))


def _version(kv: client.KeyValue | None) -> Version | None:
    return None if kv is None else (kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def _versioned(kv: client.KeyValue) -> tuple[bytes, bytes, int, int, int, int]:
    return (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
