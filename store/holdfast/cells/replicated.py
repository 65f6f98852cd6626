"""What a replication writes at its destination: each request of it holds only if the record is as it was last seen.

Invariants:

- Each request compares the revision at which the record was last written, and writes the record. So a request that is
  late, or of another replicator, finds another record and changes nothing. (One value that leaves no room for the
  record compares it only: it may come again, until the record is written.)
- The record says revision N only together with the last write that makes the keys those of the source's revision N.
- Before a snapshot is filled in, the record says so: what was filled in by halves is never taken for a revision.
- A replication is claimed by a record before anything else is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import NamedTuple

from holdfast.cells import wire
from holdfast.cells.clock import now
from holdfast.cells.errors import NotSetUp
from holdfast.cells.followed import Part
from holdfast.cells.identity import Identity
from holdfast.cells.links import Links
from holdfast.cells.replication_batch import Writes, is_bare, operations, pieces
from holdfast.cells.replication_record import REPLICATION, Record, check_alone, place, shown
from holdfast.client.errors import ClientError, Refused
from holdfast.client.txn import Compare, Key, Op, Ops
from holdfast.keyrange import prefix_end
from holdfast.proto import rpc_pb2
from holdfast.status import REQUEST_TOO_LARGE

TOUCH_SECONDS = 0.5  # while a snapshot is filled in, others see that somebody is at work
PAGE = 500  # keys of the destination that are read at once, at most
PAGE_BYTES = 1 << 20


class Overtaken(ClientError):
    """Another replicator is at work, or the destination belongs to another set of cells now."""


class Records(NamedTuple):
    """All records of a cell, by their prefixes. `mods`: the revisions of the cell that wrote them. `revision`: of the
    cell."""

    records: Mapping[bytes, Record]
    mods: Mapping[bytes, int]
    revision: int


async def records(links: Links, cell: str, timeout: float) -> Records:
    """Raises ClientError."""
    read = rpc_pb2.TxnRequest(success=[Ops.get(REPLICATION, prefix=True)])
    answer = await links.request(cell, read, timeout)
    kvs = answer.responses[0].response_range.kvs
    try:
        found = {kv.key.removeprefix(REPLICATION): Record.unpacked(kv.value) for kv in kvs}
    except ValueError as error:
        raise ClientError(f"{cell} has something else below {shown(REPLICATION)}: {error}") from error
    return Records(found, {kv.key.removeprefix(REPLICATION): kv.mod_revision for kv in kvs}, answer.header.revision)


class Replicated:
    """The prefix at the destination, as of its record."""

    def __init__(self, links: Links, destination: str, prefix: bytes, timeout: float) -> None:
        self._links = links
        self._destination = destination
        self._prefix = prefix
        self._timeout = timeout
        self.record: Record | None = None
        self._identity = b""
        self._mod = 0  # the revision that wrote the record
        self._seen = 0  # the revision at which all records were read
        self.written = 0.0  # when the record was written by this replicator

    async def load(self, source: str) -> Identity:
        """Learn what is there. Raises ReplicationRefused if the destination gets keys of the prefix from elsewhere."""
        found = await self._request([Ops.get(wire.SELF)])
        kvs = found.responses[0].response_range.kvs
        if not kvs:
            raise NotSetUp(f"{self._destination} is not set up as a cell: `holdfast cells init` does that")
        self._identity = kvs[0].value
        try:
            identity = Identity.unpacked(kvs[0].value)
        except ValueError as error:
            raise ClientError(f"{self._destination}: {error}") from error
        there = await records(self._links, self._destination, self._timeout)
        check_alone(self._destination, source, self._prefix, there.records)
        self.record, self._mod = there.records.get(self._prefix), there.mods.get(self._prefix, 0)
        self._seen = there.revision
        return identity

    async def claim(self, record: Record) -> None:
        """Write the first record, unless a replication has appeared that was not there when `load` was called. Raises
        Overtaken."""
        others = Compare(key=REPLICATION, range_end=prefix_end(REPLICATION), create_revision=self._seen + 1)
        others.result, others.target = Compare.LESS, Compare.CREATE
        await self._write([others], [], record)

    async def withdraw(self) -> None:
        """Remove the record that `claim` wrote, unless somebody goes on with it."""
        await self._request([Ops.delete(place(self._prefix))], [self._unchanged])

    async def forget(self) -> bool:
        """Remove the record, whoever replicates. Returns whether there was one."""
        return (await self._request([Ops.delete(place(self._prefix))])).responses[0].response_delete_range.deleted > 0

    async def mod(self) -> int:
        """The revision that wrote the record; 0: there is none."""
        kvs = (await self._request([Ops.get(place(self._prefix))])).responses[0].response_range.kvs
        return kvs[0].mod_revision if kvs else 0

    # ---- writes --------------------------------------------------------------------------------------------

    async def note(self, record: Record) -> None:
        """Write the record alone."""
        await self._write([], [], record)

    async def change(self, writes: Writes, record: Record) -> None:
        """Make these writes, which make the keys those that `record` says."""
        *before, last = pieces(writes)
        if is_bare(last):
            before, last = [*before, last], {}
        for piece in before:
            await self._write_piece(piece)
        await self._write([], operations(last), record)

    async def _write_piece(self, piece: Writes) -> None:
        """Part of a change. The record stays as it is, so the change is made again, from the start, if it ends here."""
        if not is_bare(piece):
            if self.record is not None:
                await self._write([], operations(piece), self.record)
            return
        try:
            answer = await self._request(operations(piece), [self._unchanged])
        except Refused as error:
            if error.known != REQUEST_TOO_LARGE:
                raise
            text = f"{self._destination} takes no request that is large enough for {shown(next(iter(piece)))}"
            text = f"{text}: start its servers with a larger --max-request-bytes"
            raise Refused(error.code, text, error.known) from error
        if not answer.succeeded:
            raise self._overtaken()

    async def _write(self, compares: list[Compare], ops: list[Op], record: Record) -> None:
        here = Key(wire.SELF).value == self._identity  # it names the cluster: revisions of another mean something else
        written = [*ops, Ops.put(place(self._prefix), record.packed())]
        answer = await self._request(written, [here, self._unchanged, *compares])
        if not answer.succeeded:
            raise self._overtaken()
        self.record, self._mod, self.written = record, answer.header.revision, now()

    def _overtaken(self) -> Overtaken:
        what = f"another replicator writes {shown(self._prefix)} at {self._destination}"
        return Overtaken(f"{what}, or {self._destination} belongs to another set of cells now")

    @property
    def _unchanged(self) -> Compare:
        return Key(place(self._prefix)).mod_revision == self._mod

    async def _request(self, then: list[Op], compares: list[Compare] | None = None) -> rpc_pb2.TxnResponse:
        request = rpc_pb2.TxnRequest(compare=compares or (), success=then)
        return await self._links.request(self._destination, request, self._timeout)

    # ---- a snapshot ----------------------------------------------------------------------------------------

    async def fill(self, part: Part) -> int:
        """Make the keys that this part of a snapshot covers equal to it: only what differs is written. Returns how
        many keys that was."""
        written = 0
        async for there, low, high in self._pages(part):
            wanted = {key: value for key, value in part.writes.items() if low <= key < high}
            gone: dict[bytes, bytes | None] = {key: None for key in there if key not in wanted}
            differs = gone | {key: value for key, value in wanted.items() if there.get(key) != value}
            late = now() - self.written > TOUCH_SECONDS
            if self.record is not None and (differs or late):
                await self.change(differs, self.record)
            written += len(differs)
        return written

    async def _pages(self, part: Part) -> AsyncIterator[tuple[dict[bytes, bytes], bytes, bytes]]:
        """What is at the destination, with the range of keys that a page covers."""
        low, limit = part.low, max(1, min(PAGE, len(part.writes) + 1))
        while low < part.high:
            read = rpc_pb2.RangeRequest(key=low, range_end=part.high, limit=limit)
            page = (await self._request([Op(request_range=read)])).responses[0].response_range
            high = page.kvs[-1].key + b"\0" if page.more else part.high
            yield {kv.key: kv.value for kv in page.kvs}, low, high
            low, limit = high, _next_limit([len(kv.value) for kv in page.kvs])


def _next_limit(sizes: list[int]) -> int:
    """How many keys to read, if they are as large as these."""
    return max(1, min(PAGE, PAGE_BYTES * len(sizes) // (sum(sizes) + 1)))


def merged(parts: Iterator[Part]) -> Part:
    """Parts that follow each other as one."""
    first = next(parts)
    high, writes = first.high, dict(first.writes)
    for part in parts:
        high = part.high
        writes.update(part.writes)
    return Part(first.low, high, writes)
