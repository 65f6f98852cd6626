"""How the cells are, for people: who answers and counts, which transactions are open, what waits in the queues, and
how far replications are.

Nothing is changed, and a cell that does not answer holds up none of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from holdfast.cells import part_wire, wire
from holdfast.cells.cell_set import CellSet
from holdfast.cells.errors import CellsUnavailable
from holdfast.cells.identity import Identity
from holdfast.cells.links import Links
from holdfast.cells.queue import INBOX, OUTBOX
from holdfast.cells.replication import ReplicationLag
from holdfast.cells.replication_record import REPLICATION, Record
from holdfast.cells.rows import rows
from holdfast.client.client import Client
from holdfast.client.errors import ClientError
from holdfast.keyrange import prefix_end
from holdfast.proto import cells_pb2, rpc_pb2


@dataclass(frozen=True, slots=True)
class Transactions:
    """Of one cell. `prepared`: their outcome is open there. `oldest`: when the first of those began, in milliseconds of
    Unix time; 0: unknown, or there is none. `outcomes`: of transactions that are over, kept for parts that are late."""

    prepared: int = 0
    oldest: int = 0
    outcomes: int = 0


@dataclass(frozen=True, slots=True)
class SurveyedCell:
    """`error`: why it did not answer; empty: it did. `identity`: as it was set up; None: it was not. `cluster_id`: as
    it answers."""

    cell: str
    error: str = ""
    identity: Identity | None = None
    cluster_id: int = 0
    transactions: Transactions = field(default=Transactions())

    @property
    def restored(self) -> bool:
        return self.identity is not None and not self.error and self.identity.cluster_id != self.cluster_id

    @property
    def counts(self) -> bool:
        """Whether its answers count for a quorum, if it is in the set."""
        return self.identity is not None and not self.error and self.identity.cell == self.cell and not self.restored


@dataclass(frozen=True, slots=True)
class SurveyedQueue:
    """`sent` and `arrived`: messages since the beginning. `refused`: messages put aside at the destination. None: it is
    not known, because the cell that knows it did not answer."""

    source: str
    destination: str
    sent: int | None
    arrived: int | None
    refused: int | None

    @property
    def waiting(self) -> int | None:
        return None if self.sent is None or self.arrived is None else max(0, self.sent - self.arrived)


@dataclass(frozen=True, slots=True)
class SurveyedReplication:
    """`reached`: the revision of the source that the destination has; 0: it is being filled. `revision`: of the source;
    None: it did not answer, or is another cluster than the one that is replicated."""

    source: str
    destination: str
    prefix: bytes
    reached: int
    revision: int | None

    @property
    def behind(self) -> int | None:
        """As `ReplicationLag.behind`; None also if the source did not answer."""
        return None if self.revision is None else ReplicationLag(self.revision, self.reached).behind


@dataclass(frozen=True, slots=True)
class Survey:
    """`set`: the newest that any cell knows. `cells`: those of which endpoints are given, then others of the set."""

    cells: Sequence[SurveyedCell]
    queues: Sequence[SurveyedQueue]
    set: CellSet | None
    replications: Sequence[SurveyedReplication] = ()

    @property
    def quorum(self) -> bool:
        """Whether enough cells answer."""
        return self.set is not None and self.set.is_quorum({found.cell for found in self.cells if found.counts})

    def in_set(self, cell: str) -> bool:
        return self.set is not None and cell in self.set.all


async def survey(links: Links, timeout: float) -> Survey:
    """Ask all cells. `timeout`: seconds for each read."""
    found = await asyncio.gather(*(_survey(cell, client, timeout) for cell, client in links.clients.items()))
    cells = [each.cell for each in found]
    known = [each.identity.set for each in cells if each.identity is not None and each.counts]
    newest = max(known, key=lambda cell_set: cell_set.version, default=None)
    strangers = sorted(newest.all - links.clients.keys()) if newest is not None else []
    cells += [SurveyedCell(cell, error="no endpoints are given") for cell in strangers]
    by_cell = {each.cell.cell: each for each in found}
    return Survey(cells, _queues(by_cell), newest, _replications(by_cell))


@dataclass(frozen=True, slots=True)
class _Found:
    """What one cell has. `outboxes`: by destination, the messages that were sent and that have arrived. `inboxes`: by
    source, the messages that have arrived and that were put aside. `replications`: into it, by prefix. `revision`: of
    the cell."""

    cell: SurveyedCell
    outboxes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    inboxes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    replications: Mapping[bytes, Record] = field(default_factory=dict)
    revision: int = 0


async def _survey(cell: str, client: Client, timeout: float) -> _Found:
    reader = _Reader(client, timeout)
    try:
        itself = await reader.range(wire.SELF)
        identity = Identity.unpacked(itself.kvs[0].value) if itself.kvs else None
        found = SurveyedCell(
            cell,
            identity=identity,
            cluster_id=itself.header.cluster_id,
            transactions=await _transactions(reader),
        )
        revision = itself.header.revision
        return _Found(found, await _outboxes(reader), await _inboxes(reader), await _records(reader), revision)
    except (ClientError, ValueError, DecodeError) as error:
        return _Found(SurveyedCell(cell, error=str(error)))


class _Reader:
    """Reads of one cell, each with a limit of time. They raise ClientError."""

    def __init__(self, client: Client, timeout: float) -> None:
        self._client = client
        self._timeout = timeout

    async def range(
        self, key: bytes, end: bytes = b"", *, limit: int = 0, keys_only: bool = False
    ) -> rpc_pb2.RangeResponse:
        """As `Client.range`, with the header, which names the cluster."""
        request = rpc_pb2.RangeRequest(key=key, range_end=end, limit=limit, keys_only=keys_only)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.connection.call(
                    "/etcdserverpb.KV/Range", request, rpc_pb2.RangeResponse, idempotent=True
                )
        except TimeoutError:
            raise CellsUnavailable(f"no answer within {self._timeout:g} s") from None

    async def names(self, prefix: bytes) -> list[str]:
        """The names that follow `prefix`, up to a slash. The keys below a name are skipped, however many they are."""
        names: list[bytes] = []
        start = prefix
        while found := (await self.range(start, prefix_end(prefix), limit=1, keys_only=True)).kvs:
            names.append(found[0].key.removeprefix(prefix).partition(b"/")[0])
            start = prefix_end(prefix + names[-1] + b"/")
        return [name.decode(errors="replace") for name in names]

    async def number(self, key: str) -> int:
        """0 if there is no such key."""
        found = (await self.range(key.encode())).kvs
        return int(found[0].value) if found else 0


async def _transactions(reader: _Reader) -> Transactions:
    prepared, outcomes, begun = 0, 0, 0
    async for _, mark in rows(lambda start, end, limit: reader.range(start, end, limit=limit), part_wire.TRANSACTIONS):
        if part_wire.is_outcome(mark) is not None:
            outcomes += 1
            continue
        prepared += 1
        this = cells_pb2.TransactionPart.FromString(mark).begun
        begun = min(begun or this, this or begun)
    return Transactions(prepared, begun, outcomes)


async def _outboxes(reader: _Reader) -> dict[str, tuple[int, int]]:
    return {
        name: (await reader.number(f"{OUTBOX}{name}/last"), await reader.number(f"{OUTBOX}{name}/acknowledged"))
        for name in await reader.names(OUTBOX.encode())
    }


async def _inboxes(reader: _Reader) -> dict[str, tuple[int, int]]:
    found = {}
    for name in await reader.names(INBOX.encode()):
        refused = f"{INBOX}{name}/refused/".encode()
        aside = await reader.range(refused, prefix_end(refused), limit=1, keys_only=True)
        found[name] = await reader.number(f"{INBOX}{name}/last"), aside.count
    return found


async def _records(reader: _Reader) -> dict[bytes, Record]:
    found = rows(lambda start, end, limit: reader.range(start, end, limit=limit), REPLICATION)
    return {key.removeprefix(REPLICATION): Record.unpacked(value) async for key, value in found}


def _queues(found: Mapping[str, _Found]) -> list[SurveyedQueue]:
    """Each queue as its two ends know it. What has arrived, the destination knows first."""
    ends = {(cell, to) for cell, each in found.items() for to in each.outboxes}
    ends |= {(source, cell) for cell, each in found.items() for source in each.inboxes}
    return [_queue(found, source, destination) for source, destination in sorted(ends)]


def _queue(found: Mapping[str, _Found], source: str, destination: str) -> SurveyedQueue:
    sent, arrived, refused = None, None, None
    if source in found and not found[source].cell.error:
        sent, arrived = found[source].outboxes.get(destination, (0, 0))
    if destination in found and not found[destination].cell.error:
        last, refused = found[destination].inboxes.get(source, (0, 0))
        arrived = max(arrived or 0, last)
    return SurveyedQueue(source, destination, sent, arrived, refused)


def _replications(found: Mapping[str, _Found]) -> list[SurveyedReplication]:
    """Those that their destinations know."""
    return [
        SurveyedReplication(record.source, cell, prefix, record.revision, _revision(found.get(record.source), record))
        for cell, each in sorted(found.items())
        for prefix, record in sorted(each.replications.items())
    ]


def _revision(source: _Found | None, record: Record) -> int | None:
    """Revisions of another cluster mean something else."""
    known = source is not None and not source.cell.error and source.cell.cluster_id == record.cluster_id
    return source.revision if known and source is not None else None
