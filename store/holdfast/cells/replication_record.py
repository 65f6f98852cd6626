"""What a destination keeps of each replication, and which replications exclude each other.

    /cells/replication/PREFIX    where the keys with this prefix come from, and how far they are replicated

The keys of two replications into one cell have none in common, so each key has one source. And nothing is replicated
to where it came from: the path of a record names the clusters that the data has come through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from google.protobuf.message import DecodeError

from holdfast.cells.errors import ReplicationLoop, ReplicationRefused
from holdfast.proto import cells_pb2

REPLICATION = b"/cells/replication/"
_OWN = b"/cells/"


@dataclass(frozen=True, slots=True)
class Record:
    """`revision`: of the source. 0: the prefix is being filled, and is a mixture until then. `epoch`: of the source. 0:
    the replication is claimed, and has written nothing. `path`: the ids of the clusters that the data may have come
    through, the source last."""

    source: str
    cluster_id: int
    epoch: int = 0
    lineage: int = 0
    revision: int = 0
    path: tuple[int, ...] = ()

    @property
    def claimed(self) -> bool:
        return not self.epoch

    def at(self, revision: int, path: tuple[int, ...]) -> Record:
        return replace(self, revision=revision, path=path)

    def packed(self) -> bytes:
        return cells_pb2.ReplicationRecord(
            source=self.source,
            cluster_id=self.cluster_id,
            epoch=self.epoch,
            lineage=self.lineage,
            revision=self.revision,
            path=self.path,
        ).SerializeToString()

    @staticmethod
    def unpacked(data: bytes) -> Record:
        """Raises ValueError."""
        try:
            found = cells_pb2.ReplicationRecord.FromString(data)
        except DecodeError as error:
            raise ValueError(f"this is no record of a replication: {error}") from error
        return Record(
            found.source, found.cluster_id, found.epoch, found.lineage, max(0, found.revision), tuple(found.path)
        )


def place(prefix: bytes) -> bytes:
    """The key of the record."""
    return REPLICATION + prefix


def check_prefix(prefix: bytes) -> None:
    """Raises ValueError."""
    if not prefix:
        raise ValueError("the prefix is empty: it would contain /cells/, which each cell has of its own")
    if not prefix.strip(b"\xff"):
        raise ValueError("a prefix of 0xff bytes only has no end; choose another one")
    if _OWN.startswith(prefix) or prefix.startswith(_OWN):
        raise ValueError(
            f"{shown(prefix)} cannot be replicated: it contains or lies within /cells/, where each cell keeps what it "
            "has agreed on with the others; choose a prefix beside it"
        )


def overlap(one: bytes, other: bytes) -> bool:
    """Whether there are keys with both prefixes."""
    return one.startswith(other) or other.startswith(one)


def check_alone(destination: str, source: str, prefix: bytes, there: Mapping[bytes, Record]) -> None:
    """Raise ReplicationRefused if the destination has a replication that this one excludes. `there`: all that it
    has."""
    for other, record in there.items():
        if overlap(prefix, other) and (other, record.source) != (prefix, source):
            raise ReplicationRefused(
                f"{destination} gets {shown(other)} from {record.source} already, so it cannot get {shown(prefix)} "
                f"from {source}; end that replication first: holdfast cells replicate {record.source} {destination} "
                f"{shown(other)} --forget"
            )


@dataclass(slots=True)
class Upstream:
    """Where the data of `prefix` at `source` comes from: what is known of the replications into it."""

    source: str
    prefix: bytes
    records: dict[bytes, Record] = field(default_factory=dict)  # that overlap, by their prefix

    def learn(self, records: Mapping[bytes, Record | None]) -> None:
        """`records`: as they are at the source now; None: removed."""
        for prefix, record in records.items():
            if not overlap(prefix, self.prefix):
                continue
            if record is None:
                self.records.pop(prefix, None)
            else:
                self.records[prefix] = record

    def path(self, cluster_id: int) -> tuple[int, ...]:
        """The path of the data at the destination. `cluster_id`: of the source."""
        paths = [record.path for _, record in sorted(self.records.items()) if not record.claimed]
        return joined(*paths, (cluster_id,))

    def check(self, destination: str, cluster_id: int, *, claims: bool = False) -> None:
        """Raise ReplicationLoop if data comes from the destination. `cluster_id`: of the destination. `claims`: also if
        it will, unless who claims finds that it may not. Who has begun does not stop for that."""
        for prefix, record in self.records.items():
            if record.claimed and not claims:
                continue
            if record.source == destination or cluster_id in record.path:
                raise ReplicationLoop(
                    f"{shown(self.prefix)} cannot be replicated to {destination}, because it would come back to where "
                    f"it came from: {self.source} gets {shown(prefix)} from {record.source}, and that comes from "
                    f"{destination}, directly or over others; end one of these replications"
                )


def joined(*paths: Iterable[int]) -> tuple[int, ...]:
    """The clusters of all these paths, each once, at its last place."""
    backwards = [id for path in reversed(paths) for id in reversed(tuple(path))]
    return tuple(reversed(dict.fromkeys(backwards)))


def shown(prefix: bytes) -> str:
    return prefix.decode(errors="backslashreplace")
