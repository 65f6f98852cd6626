"""What is written at the destination together: whole revisions of the source, as many as one transaction takes.

| | |
|---|---|
| several revisions | go together while no key is written twice, so a watch at the destination sees each write |
| a revision | is never torn, unless it is larger than one request |
| one that is larger | is written in pieces, the record with the last: until then it is repeated from the start |

A transaction has at most 128 operations, those of a nested transaction counted with those around it. So the writes are
nested in groups: a revision of exactly 128 writes goes together with its record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from holdfast.client.txn import Op, Ops
from holdfast.proto import rpc_pb2

Writes = Mapping[bytes, bytes | None]  # the values of keys; None: it is deleted

GROUP = 100  # writes of a nested transaction
MOST_WRITES = 8 * GROUP  # of one request: a cell allows 8 times 128 operations in all
MOST_BYTES = 1_572_864 - 4096  # of one request, without what names and guards the record
TOGETHER_WRITES = 250  # when revisions are put together
TOGETHER_BYTES = 512 << 10
_OP_BYTES = 32  # of a write besides key and value


@dataclass(slots=True)
class Batch:
    """Whole revisions that go together."""

    revision: int = 0  # up to which it is complete
    writes: dict[bytes, bytes | None] = field(default_factory=dict)
    _bytes: int = 0

    def take(self, revision: int, writes: Writes) -> bool:
        """Add a revision, which may be one without writes; returns False if it has to wait. The first one is taken
        whatever its size."""
        size = size_of(writes)
        if self.writes and writes:
            full = len(self.writes) + len(writes) > TOGETHER_WRITES or self._bytes + size > TOGETHER_BYTES
            if full or not self.writes.keys().isdisjoint(writes):
                return False
        self.writes.update(writes)
        self._bytes += size
        self.revision = revision
        return True


def size_of(writes: Writes) -> int:
    return sum(_size(key, value) for key, value in writes.items())


def _size(key: bytes, value: bytes | None) -> int:
    return len(key) + len(value or b"") + _OP_BYTES


def pieces(writes: Writes) -> Iterator[dict[bytes, bytes | None]]:
    """The writes in as few requests as they fit; one that is empty if there are none."""
    piece: dict[bytes, bytes | None] = {}
    size = 0
    for key, value in writes.items():
        this = _size(key, value)
        if piece and (len(piece) == MOST_WRITES or size + this > MOST_BYTES):
            yield piece
            piece, size = {}, 0
        piece[key] = value
        size += this
    yield piece


def operations(writes: Writes) -> list[Op]:
    """The writes of one request."""
    ops = [Ops.delete(key) if value is None else Ops.put(key, value) for key, value in writes.items()]
    if len(ops) <= GROUP:
        return ops
    groups = (ops[first : first + GROUP] for first in range(0, len(ops), GROUP))
    return [Op(request_txn=rpc_pb2.TxnRequest(success=group)) for group in groups]


def is_bare(piece: Writes) -> bool:
    """Whether it is one value that leaves no room for a record beside it."""
    return len(piece) == 1 and size_of(piece) > MOST_BYTES
