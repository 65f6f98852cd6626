"""What a cell knows of a prefix that is copied to it from another one, and the transactions that copy.

    /cells/replication/PREFIX    a `Replicated`

| `revision` is | What is here |
|---|---|
| 0 | a part of a snapshot, or nothing yet; keys of before may be between those of the snapshot |
| r | exactly what the source had at its revision r |

Each transaction compares that the record is as it was when its writer saw it last. So whatever several replicators do,
nothing is applied twice or in another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from holdfast.client.txn import Op, Ops
from holdfast.keyrange import prefix_end
from holdfast.proto import cells_pb2, kv_pb2, rpc_pb2

RECORDS = b"/cells/replication/"
OPS_AT_ONCE = 100  # of one transaction, within which there may be others; etcd allows 128
MAX_OPS = 1000
MAX_BYTES = 1 << 19


@dataclass(frozen=True, slots=True)
class Replicated:
    """See `cells.proto`. `stored`: the revision of the record in its cell; 0: it is not there."""

    source: str
    cluster_id: int = 0
    epoch: int = 0
    lineage: int = 0
    revision: int = 0
    path: tuple[int, ...] = ()
    stored: int = 0

    def packed(self) -> bytes:
        return cells_pb2.Replicated(
            source=self.source,
            cluster_id=self.cluster_id,
            epoch=self.epoch,
            lineage=self.lineage,
            revision=self.revision,
            path=self.path,
        ).SerializeToString(deterministic=True)

    @staticmethod
    def unpacked(data: bytes, stored: int) -> Replicated:
        """Raises ValueError."""
        try:
            found = cells_pb2.Replicated.FromString(data)
        except DecodeError as error:
            raise ValueError(f"this is no record of a replication: {error}") from error
        return Replicated(
            found.source, found.cluster_id, found.epoch, found.lineage, found.revision, tuple(found.path), stored
        )

    def at(self, revision: int) -> Replicated:
        return replace(self, revision=revision)


def record_key(prefix: bytes) -> bytes:
    return RECORDS + prefix


def overlap(one: bytes, other: bytes) -> bool:
    return one.startswith(other) or other.startswith(one)


def check_prefix(prefix: bytes) -> None:
    """Raise ValueError if this prefix cannot be replicated."""
    if not prefix.startswith(b"/") or overlap(prefix, b"/cells/"):
        raise ValueError(
            f"the prefix {prefix.decode(errors='replace')!r} cannot be replicated: it begins with a slash, and has "
            "none of the keys below /cells/, which are each cell's own"
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes of one or several revisions of the source, of each key the last. `revision`: that of the last one."""

    changes: dict[bytes, bytes | None]
    revision: int
    size: int

    @staticmethod
    def of(events: Iterable[kv_pb2.Event], revision: int) -> Batch:
        changes = {e.kv.key: None if e.type == kv_pb2.Event.DELETE else e.kv.value for e in events}
        return Batch(changes, revision, sum(len(key) + len(value or b"") for key, value in changes.items()))

    def and_then(self, later: Batch) -> Batch | None:
        """Both together; None if that is too much for one transaction."""
        size = self.size + later.size
        if len(self.changes) + len(later.changes) > MAX_OPS or size > MAX_BYTES:
            return None
        return Batch({**self.changes, **later.changes}, later.revision, size)


def parts(batch: Batch) -> Iterator[tuple[list[Op], bool]]:
    """The operations that apply the batch, in as many transactions as requests hold; and whether it is the last one,
    which writes the record, too. It is one, unless the batch is a single large revision."""
    ops = [Ops.delete(key) if value is None else Ops.put(key, value) for key, value in batch.changes.items()]
    part: list[Op] = []
    size = 0
    for op in ops:
        bytes_ = op.ByteSize()
        if part and size + bytes_ > 2 * MAX_BYTES:
            yield _nested(part), False
            part, size = [], 0
        part.append(op)
        size += bytes_
    yield _nested(part), True


def _nested(ops: list[Op]) -> list[Op]:
    return [
        Op(request_txn=rpc_pb2.TxnRequest(success=ops[first : first + OPS_AT_ONCE]))
        for first in range(0, len(ops), OPS_AT_ONCE)
    ]


def clipped(low: bytes, high: bytes | None, prefix: bytes) -> tuple[bytes, bytes] | None:
    """The part of a range that lies within the prefix; None if there is none."""
    end = prefix_end(prefix)
    low, high = max(low, prefix), end if high is None else min(high, end)
    return (low, high) if low < high else None
