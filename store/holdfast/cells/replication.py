"""One-way replication of a prefix from one cell to another.

    await them.replication("eu", "us", "/global/").run()      # in any process, best one near us

| The record at the destination is | Then the keys with the prefix there | Who replicates |
|---|---|---|
| absent | are not replicated | checks for loops, and claims it |
| at revision 0 | are a mixture: a snapshot is filled in | checks for loops, and fills in a snapshot |
| at revision N | are those of the source's revision N | writes the changes after N; a snapshot if those are compacted |

What the record is compared with, and when it is written, says `cells.replicated`; what is written together,
`cells.replication_batch`; which replications exclude each other, `cells.replication_record`; and how it is found that
data would come back to where it came from, `cells.replication_origin`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from holdfast.cells.cell_set import Member
from holdfast.cells.clock import now
from holdfast.cells.errors import CellsUnavailable, NotSetUp, ReplicationLoop, ReplicationRefused
from holdfast.cells.followed import Changes, Part, Whole
from holdfast.cells.follower import Follower
from holdfast.cells.links import Links, Restored
from holdfast.cells.replicated import Overtaken, Replicated, merged
from holdfast.cells.replication_batch import TOGETHER_BYTES, TOGETHER_WRITES, Batch, size_of
from holdfast.cells.replication_origin import Origin
from holdfast.cells.replication_record import REPLICATION, Record, check_prefix, place
from holdfast.client.errors import ClientError
from holdfast.client.txn import Ops
from holdfast.proto import holdfast_pb2, rpc_pb2

OTHER_SECONDS = 1.5  # after which a replicator looks whether another one is still at work
PAUSE_SECONDS = 0.1  # before a source is followed again
MOST_PAUSE_SECONDS = 5.0
NOTE_SECONDS = 5.0  # between two records while only other keys of the source change


@dataclass(frozen=True, slots=True)
class ReplicationLag:
    """`revision`: of the source now. `reached`: the destination has the prefix as of this one; 0: it is being filled;
    None: it is not replicated."""

    revision: int
    reached: int | None

    @property
    def behind(self) -> int | None:
        """Revisions of the source, also those that change other keys: of these the destination is told every few
        seconds. None: unknown, as long as it has no revision."""
        return max(0, self.revision - self.reached) if self.reached else None


class Replication:
    """Of `prefix`, from the cell `source` to the cell `destination`."""

    def __init__(self, links: Links, source: str, destination: str, prefix: bytes, timeout: float) -> None:
        check_prefix(prefix)
        if source == destination:
            raise ValueError("a replication leads from one cell to another one")
        for cell in (source, destination):
            if cell not in links.clients:
                raise ValueError(f"{cell} is no cell; there are {', '.join(sorted(links.clients))}")
        self._links = links
        self._source = source
        self._destination = destination
        self._prefix = prefix
        self._timeout = timeout
        self._there = Replicated(links, destination, prefix, timeout)
        self._turn = 0  # which server of the source to follow

    # ---- for people ----------------------------------------------------------------------------------------

    async def lag(self) -> ReplicationLag:
        """How far the destination is behind. Raises ClientError unless both cells answer."""
        await self._there.load(self._source)
        record = self._there.record
        read = rpc_pb2.TxnRequest(success=[Ops.get(place(self._prefix))])
        answer = await self._links.request(self._source, read, self._timeout)
        return ReplicationLag(answer.header.revision, None if record is None else record.revision)

    async def forget(self) -> bool:
        """End the replication, and leave the keys. Whoever runs it has to be stopped before, else it begins again.
        Returns whether there was one. Raises ReplicationRefused if the keys come from elsewhere."""
        await self._there.load(self._source)
        return await self._there.forget()

    # ---- replication ---------------------------------------------------------------------------------------

    async def run(self, told: Callable[[int | ClientError], None] = lambda _: None) -> None:
        """Replicate until it is cancelled. Any number of processes may do this; one is at work, and the others go on
        when it stops. `told` is called with the number of keys that were written, and with the error while a cell is
        away. Raises ReplicationRefused."""
        pause = PAUSE_SECONDS
        while True:
            began = now()
            try:
                await self._follow(told)
            except ReplicationRefused:
                raise
            except Overtaken:
                await self._let_the_other_write()
                continue
            except ClientError as error:
                self._turn += 1
                told(error)
            pause = PAUSE_SECONDS if now() - began > MOST_PAUSE_SECONDS else min(2 * pause, MOST_PAUSE_SECONDS)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _let_the_other_write(self) -> None:
        """Another replicator is at work: wait until it is not any more, or has nothing to write."""
        before = -1
        while (there := await self._mod(before)) != before:
            before = there
            await asyncio.sleep(OTHER_SECONDS * random.uniform(0.7, 1.3))

    async def _mod(self, unknown: int) -> int:
        try:
            return await self._there.mod()
        except ClientError:
            return unknown

    async def _follow(self, told: Callable[[int | ClientError], None]) -> None:
        """Follow one server of the source, as long as that goes well. Raises ClientError."""
        member, origin = await self._begin()
        try:
            await self._follow_source(member, origin, told)
        except ReplicationLoop:
            if (record := self._there.record) is not None and record.claimed:
                await self._there.withdraw()
            raise

    async def _follow_source(self, member: Member, origin: Origin, told: Callable[[int | ClientError], None]) -> None:
        connection = self._links.clients[self._source].connection
        addresses = await connection.order(stream=True)
        if not addresses:
            raise CellsUnavailable(f"{self._source} has no address")
        address = addresses[self._turn % len(addresses)]
        async with Follower(connection, address, [self._prefix, REPLICATION]) as follower:
            hello = await follower.begin(self._start(member))
            if hello.cluster_id != member.cluster_id:
                raise await self._restored(hello.cluster_id, member)
            await origin.learn()
            if self._there.record is None or self._there.record.claimed:
                await origin.check_all()
            if hello.snapshot:
                path = origin.path(member.cluster_id)
                record = Record(self._source, hello.cluster_id, hello.epoch, hello.lineage, 0, path)
                await self._fill(follower, record, told)
            await self._go_on(follower, origin, told)

    async def _begin(self) -> tuple[Member, Origin]:
        """The source, as the destination knows it, when the replication is claimed."""
        identity = await self._there.load(self._source)
        member = identity.set.member(self._source)
        if member is None or identity.cell != self._destination:
            raise NotSetUp(f"{self._destination} does not know {self._source} as a cell of its set")
        origin = Origin(self._links, self._source, identity, self._prefix, self._timeout)
        if self._there.record is None:
            await self._claim(member, origin)
        return member, origin

    async def _claim(self, member: Member, origin: Origin) -> None:
        await origin.learn()
        await origin.check_all()
        path = origin.path(member.cluster_id)
        await self._there.claim(Record(self._source, member.cluster_id, path=path))

    def _start(self, member: Member) -> holdfast_pb2.FollowStart:
        record = self._there.record
        if record is None or not record.revision or record.cluster_id != member.cluster_id:
            return holdfast_pb2.FollowStart()  # everything
        return holdfast_pb2.FollowStart(
            cluster_id=record.cluster_id, epoch=record.epoch, lineage=record.lineage, watermark=record.revision
        )

    async def _restored(self, cluster_id: int, member: Member) -> Restored:
        self._links.forget_set()
        with contextlib.suppress(ClientError):
            await self._links.cells(self._timeout)  # tells the destination, if it has missed a change of the set
        return Restored(
            f"{self._source} does not count: its cluster is {cluster_id:x}, and {self._destination} knows it as "
            f"{member.cluster_id:x}; if it was restored: holdfast cells readmit {self._source}"
        )

    # ---- what is written -----------------------------------------------------------------------------------

    async def _fill(self, follower: Follower, record: Record, told: Callable[[int | ClientError], None]) -> None:
        """Make the prefix equal to the snapshot that comes."""
        await self._there.note(record)
        while True:
            await follower.wait()
            head = follower.head
            if isinstance(head, Part) and head.low.startswith(self._prefix):
                if written := await self._there.fill(merged(_together(follower, self._prefix))):
                    told(written)
                continue
            follower.pop()
            if isinstance(head, Whole):
                await self._there.note(record.at(head.revision, record.path))
                return

    async def _go_on(self, follower: Follower, origin: Origin, told: Callable[[int | ClientError], None]) -> None:
        """Carry over changes as they come."""
        while True:
            await follower.wait()
            batch = Batch()
            while isinstance(head := follower.head, Changes) and batch.take(head.revision, origin.take(head)):
                follower.pop()
            before = self._there.record
            if before is None:
                raise Overtaken("the replication was ended")
            record = before.at(batch.revision, origin.path(before.cluster_id))
            due = record.revision > before.revision and now() - self._there.written > NOTE_SECONDS
            if batch.writes or record.path != before.path or due:
                await self._there.change(batch.writes, record)
                if batch.writes:
                    told(len(batch.writes))


def _together(follower: Follower, prefix: bytes) -> Iterator[Part]:
    """The parts of a snapshot that are here and are written together; they are taken."""
    count = size = 0
    while isinstance(head := follower.head, Part) and head.low.startswith(prefix):
        count += len(head.writes)
        size += size_of(head.writes)
        if count > len(head.writes) and (count > TOGETHER_WRITES or size > TOGETHER_BYTES):
            return
        follower.pop()
        yield head
