"""A snapshot for a replica: all keys in its filter at one moment, read and sent one frame at a time.

Rows are read only as fast as the replica receives them, from iterators that see the state as of their creation. So a
snapshot is never in memory as a whole, and a large one does not block the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import google_crc32c

from holdfast.edge.holding import as_range
from holdfast.keyrange import Range
from holdfast.kv.fields import delimited
from holdfast.kv.rows import unpack_current
from holdfast.kv.store import Family, Reader
from holdfast.proto import holdfast_pb2

# One chunk is read and sent in a turn of the loop, which others wait for: half a millisecond.
CHUNK_ROWS = 200
CHUNK_BYTES = 64 << 10

_CHUNK, _KV = b"\x22", b"\x0a"  # tags of FollowResponse.chunk and FollowChunk.kvs

Row = tuple[bytes, bytes]


class Filling:
    """The frames of one snapshot: chunks, each of which is complete for a range of keys, then the trailer with the
    count and hash of all, for replicas of version 0.1."""

    def __init__(
        self,
        store: Reader,
        ranges: Sequence[Range],
        trailer: holdfast_pb2.FollowTrailer,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        """`trailer` has filter and revision set; count and hash are filled in here."""
        self._chunk_rows = chunk_rows
        # An iterator sees the state as of the reading of its first row, so read all first rows now.
        self._rows = [(low, high, _begun(store.scan(Family.CUR, low, high))) for low, high in ranges]
        self._trailer = trailer
        self._crc = 0

    def frames(self) -> Iterator[bytes]:
        """Serialised FollowResponses; the rows of each are read only when it is requested."""
        for low, high, rows in self._rows:
            yield from self._chunks(low, high, rows)
        self._trailer.hash = self._crc
        yield holdfast_pb2.FollowResponse(trailer=self._trailer).SerializeToString()

    def _chunks(self, low: bytes, high: bytes | None, rows: Iterator[Row]) -> Iterator[bytes]:
        """The chunks that cover the range [low, high). Each covers all up to after its last key, the last one the
        rest."""
        kvs: list[bytes] = []
        size = 0
        for key, value in rows:
            kv = unpack_current(value).kv
            self._crc = google_crc32c.extend(self._crc, kv)
            self._trailer.count += 1
            kvs.append(kv)
            size += len(kv)
            if size >= CHUNK_BYTES or len(kvs) >= self._chunk_rows:
                yield self._chunk(kvs, (low, after := key + b"\x00"))
                low, kvs, size = after, [], 0
        if high is None or low < high:
            yield self._chunk(kvs, (low, high))

    def _chunk(self, kvs: list[bytes], covered: Range) -> bytes:
        """FollowResponse{chunk: FollowChunk}, built from serialised key-values without decoding them."""
        about = holdfast_pb2.FollowChunk(range=as_range(covered), revision=self._trailer.revision, hash=crc_of(kvs))
        rest = about.SerializeToString()
        return delimited(_CHUNK, b"".join([*(delimited(_KV, kv) for kv in kvs), rest]))


def crc_of(kvs: Iterable[bytes]) -> int:
    """The hash of these serialised key-values."""
    crc = 0
    for kv in kvs:
        crc = google_crc32c.extend(crc, kv)
    return crc


def _begun(rows: Iterator[Row]) -> Iterator[Row]:
    first = next(rows, None)
    return iter(()) if first is None else chain([first], rows)
