"""Copies a prefix of one cell to another, as changes happen there.

    await them.replication("eu", "us", "/global/").run()

It reads the Follow stream that edge replicas read, and writes transactions (`cells.replicated`). States:

| State | What it does |
|---|---|
| looks | whether it may: nothing of the prefix comes from the destination, and no other source writes there |
| reserves | writes a record with revision 0, unless there is one, and looks again |
| follows | from the record's revision; with a snapshot if that is 0, or compacted |

Of two that begin in opposite directions at a time, one at least sees the record of the other when it looks again.

Who writes below the prefix at the destination besides is overwritten when the key changes at the source.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace

from holdfast.cells import wire
from holdfast.cells.clock import now
from holdfast.cells.errors import CellsUnavailable, ReplicationRefused
from holdfast.cells.follower import Follower
from holdfast.cells.identity import Identity
from holdfast.cells.links import Links, Restored
from holdfast.cells.replicated import RECORDS, Batch, Replicated, check_prefix, clipped, overlap, parts, record_key
from holdfast.client.errors import ClientError
from holdfast.client.txn import Key, Op, Ops
from holdfast.keyrange import bounds, prefix_end
from holdfast.proto import holdfast_pb2, kv_pb2, rpc_pb2

PAUSE_SECONDS = 1.0
OTHER_SECONDS = 2.0  # between looks at what another replicator does
PROGRESS_SECONDS = 60.0  # after which the record goes on also if no key of the prefix changes
PAGE = 500
Told = Callable[[int | ClientError], None]


class _Overtaken(Exception):
    """Another replicator has written the record."""


class Replication:
    def __init__(self, links: Links, source: str, destination: str, prefix: str, timeout: float) -> None:
        """Raises ValueError if the prefix cannot be replicated."""
        self._prefix = prefix.encode()
        check_prefix(self._prefix)
        if source == destination:
            raise ValueError(f"{source} cannot be the source and the destination")
        self._links = links
        self._source = source
        self._destination = destination
        self._timeout = timeout
        self._at = record_key(self._prefix)
        self._record = Replicated(source)
        self._written_at = 0.0

    async def run(self, told: Told = lambda _: None) -> None:
        """Replicate until it is cancelled. Any number of processes may do this; one is at work, and the others go on
        when it stops. `told` is called with the number of changes that were applied, and with the error while a cell is
        away. Raises ReplicationRefused if it must not be done."""
        while True:
            try:
                await self._begin()
                async with Follower(self._links.clients[self._source].connection, self._timeout) as stream:
                    await self._follow(stream, told)
            except ReplicationRefused:
                raise
            except _Overtaken:
                await self._let_the_other_replicate()
                continue
            except ClientError as error:
                told(error)
            await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))

    async def forget(self) -> bool:
        """Remove the record, so that another cell may be the source. The keys stay. Returns whether there was one."""
        request = rpc_pb2.TxnRequest(success=[Ops.delete(self._at)])
        answer = await self._links.request(self._destination, request, self._timeout)
        return bool(answer.responses[0].response_delete_range.deleted)

    # ---- whether it may be done ----------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Raises ReplicationRefused, _Overtaken and ClientError."""
        identity = await self._identity()
        member = identity.set.member(self._source)
        if member is None:
            raise ReplicationRefused(f"{self._source} does not belong to the set of cells")
        here = await self._records(self._destination)
        self._check_others(here)
        known = here.get(self._prefix) or Replicated(self._source)
        path = await self._path(identity.cluster_id, member.cluster_id)
        if known.cluster_id != member.cluster_id:  # the source was restored, or this is the first time
            known = Replicated(self._source, member.cluster_id, path=path, stored=known.stored)
        elif known.path == path:
            self._record = known
            return
        self._record = replace(known, path=path)
        await self._write([Ops.put(self._at, self._record.packed())], self._record)
        await self._look_again(identity)

    async def _look_again(self, identity: Identity) -> None:
        """What was reserved is released if it must not be done, unless there is data."""
        try:
            self._check_others(await self._records(self._destination))
            await self._path(identity.cluster_id, self._record.cluster_id)
        except ReplicationRefused:
            if not self._record.revision:
                await self._write([Ops.delete(self._at)], None)
            raise

    def _check_others(self, here: dict[bytes, Replicated]) -> None:
        for prefix, record in here.items():
            if overlap(prefix, self._prefix) and (prefix, record.source) != (self._prefix, self._source):
                shown = prefix.decode(errors="replace")
                raise ReplicationRefused(
                    f"{self._destination} has {shown} from {record.source} already: stop that replication, and forget "
                    f"it (`holdfast cells replicate {record.source} {self._destination} {shown} --forget`)"
                )

    async def _path(self, destination: int, source: int) -> tuple[int, ...]:
        """The clusters that the data comes through, the source last. Raises ReplicationRefused if the destination is
        one of them."""
        before: set[int] = set()
        for prefix, record in (await self._records(self._source)).items():
            if overlap(prefix, self._prefix):
                before.update(record.path)
        if destination in before:
            raise ReplicationRefused(
                f"a loop: {self._source} has {self._prefix.decode(errors='replace')} or a part of it from "
                f"{self._destination}, directly or through other cells"
            )
        return (*sorted(before - {source}), source)

    async def _identity(self) -> Identity:
        request = rpc_pb2.TxnRequest(success=[Ops.get(wire.SELF)])
        answer = await self._links.request(self._destination, request, self._timeout)
        kvs = answer.responses[0].response_range.kvs
        if not kvs:
            raise CellsUnavailable(f"{self._destination} is not set up as a cell")
        return Identity.unpacked(kvs[0].value)

    async def _records(self, cell: str) -> dict[bytes, Replicated]:
        """What is replicated to a cell, by prefix."""
        read = rpc_pb2.RangeRequest(key=RECORDS, range_end=prefix_end(RECORDS))
        request = rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_range=read)])
        answer = await self._links.request(cell, request, self._timeout)
        kvs = answer.responses[0].response_range.kvs
        return {kv.key.removeprefix(RECORDS): _unpacked(cell, kv.key, kv.value, kv.mod_revision) for kv in kvs}

    # ---- what the source sends -----------------------------------------------------------------------------

    async def _follow(self, stream: Follower, told: Told) -> None:
        """Until the source's own replications change. Raises ClientError if the stream ends."""
        record = self._record
        await stream.begin(
            holdfast_pb2.FollowStart(
                cluster_id=record.cluster_id if record.revision else 0,
                epoch=record.epoch,
                lineage=record.lineage,
                watermark=record.revision,
                filter=[_range(self._prefix), _range(RECORDS)],
            )
        )
        while True:
            batch: Batch | None = None
            for frame in await stream.frames():
                if frame.WhichOneof("response") == "revision":
                    if self._comes_another_way(frame.revision.events):
                        return
                    events = [event for event in frame.revision.events if event.kv.key.startswith(self._prefix)]
                    if events or self._is_time():
                        batch = await self._join(batch, Batch.of(events, frame.revision.revision), told)
                    continue
                await self._apply(batch, told)
                batch = None
                await self._take(frame, told)
            await self._apply(batch, told)

    def _comes_another_way(self, events: Iterable[kv_pb2.Event]) -> bool:
        """Whether the source has got keys of the prefix through other clusters than the record says."""
        records = [
            (e.kv.key, e.kv.value) for e in events if e.type == kv_pb2.Event.PUT and e.kv.key.startswith(RECORDS)
        ]
        return any(
            not set(_unpacked(self._source, key, value, 0).path) <= set(self._record.path)
            for key, value in records
            if overlap(key.removeprefix(RECORDS), self._prefix)
        )

    async def _join(self, batch: Batch | None, later: Batch, told: Told) -> Batch:
        together = later if batch is None else batch.and_then(later)
        if together is None:
            await self._apply(batch, told)
        return together or later

    async def _take(self, frame: holdfast_pb2.FollowResponse, told: Told) -> None:
        kind = frame.WhichOneof("response")
        if kind == "hello":
            await self._greeted(frame.hello)
        elif kind == "chunk":
            await self._load(frame.chunk, told)
        elif kind == "trailer":
            await self._apply(Batch({}, frame.trailer.revision, 0), told)
        elif kind == "progress" and 0 < self._record.revision < frame.progress.revision and self._is_time():
            await self._apply(Batch({}, frame.progress.revision, 0), told)

    def _is_time(self) -> bool:
        return now() > self._written_at + PROGRESS_SECONDS

    async def _greeted(self, hello: holdfast_pb2.FollowHello) -> None:
        if hello.cluster_id != self._record.cluster_id:
            raise Restored(f"{self._source} does not count: its cluster is {hello.cluster_id:x}")
        if not hello.snapshot:
            return
        if not hello.ranged:
            raise CellsUnavailable(f"{self._source} is of version 0.1, which cannot be replicated from")
        begun = replace(self._record, epoch=hello.epoch, lineage=hello.lineage, revision=0)
        await self._write([Ops.put(self._at, begun.packed())], begun)

    async def _load(self, chunk: holdfast_pb2.FollowChunk, told: Told) -> None:
        """Make the keys of the chunk's range the same here."""
        part = clipped(*bounds(chunk.range.key, chunk.range.range_end), self._prefix)
        if part is None:
            return
        wanted = {kv.key: kv.value for kv in chunk.kvs}
        changes: dict[bytes, bytes | None] = {}
        here: dict[bytes, bytes] = {}
        async for key, value in self._keys(*part):
            here[key] = value
            if key not in wanted:
                changes[key] = None
        changes.update({key: value for key, value in wanted.items() if here.get(key) != value})
        batch: Batch | None = None
        for key, change in changes.items():
            batch = await self._join(batch, Batch({key: change}, 0, len(key) + len(change or b"")), told)
        await self._apply(batch, told)

    async def _keys(self, low: bytes, high: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        client = self._links.clients[self._destination]
        while low:
            page = await client.range(low, end=high, limit=PAGE)
            for kv in page.kvs:
                yield kv.key, kv.value
            low = page.kvs[-1].key + b"\0" if page.more else b""

    # ---- what the destination is told ----------------------------------------------------------------------

    async def _apply(self, batch: Batch | None, told: Told) -> None:
        if batch is None:
            return
        reached = self._record.at(batch.revision)
        for ops, last in parts(batch):
            await self._write([*ops, Ops.put(self._at, reached.packed())] if last else ops, reached if last else None)
        if batch.changes:
            told(len(batch.changes))

    async def _write(self, ops: Sequence[Op], reached: Replicated | None) -> None:
        """Execute these unless the record has changed. `reached`: what it is then, if it is one of them. Raises
        _Overtaken and ClientError."""
        unchanged = Key(self._at).mod_revision == self._record.stored
        request = rpc_pb2.TxnRequest(compare=[unchanged], success=ops)
        answer = await self._links.request(self._destination, request, self._timeout)
        if not answer.succeeded:
            raise _Overtaken
        if reached is not None:
            self._record = replace(reached, stored=answer.header.revision)
            self._written_at = now()

    async def _let_the_other_replicate(self) -> None:
        """Wait until the record does not change any more."""
        before: Replicated | None = self._record
        with contextlib.suppress(ClientError):
            while (there := (await self._records(self._destination)).get(self._prefix)) != before:
                before = there
                await asyncio.sleep(OTHER_SECONDS * random.uniform(0.5, 1.5))


def _unpacked(cell: str, key: bytes, value: bytes, stored: int) -> Replicated:
    """Raises ReplicationRefused."""
    try:
        return Replicated.unpacked(value, stored)
    except ValueError as error:
        raise ReplicationRefused(f"{cell}: {key!r}: {error}; delete it, and begin that replication anew") from error


def _range(prefix: bytes) -> holdfast_pb2.KeyRange:
    return holdfast_pb2.KeyRange(key=prefix, range_end=prefix_end(prefix))
