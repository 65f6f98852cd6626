"""A snapshot for a replica: all keys in its filter at one moment, read and sent one frame at a time.

Rows are read only as fast as the replica receives them, from iterators that see the state as of their creation. So a
snapshot is never in memory as a whole, and a large one does not block the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import google_crc32c

from holdfast.keyrange import Range
from holdfast.kv.fields import delimited
from holdfast.kv.rows import unpack_current
from holdfast.kv.store import Family, Reader
from holdfast.proto import holdfast_pb2

CHUNK_ROWS = 500
CHUNK_BYTES = 256 << 10

Row = tuple[bytes, bytes]


class Filling:
    """The frames of one snapshot: chunks, then the trailer with their count and hash."""

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
        self._rows = chain.from_iterable([_begun(store.scan(Family.CUR, low, high)) for low, high in ranges])
        self._trailer = trailer
        self._crc = 0

    def frames(self) -> Iterator[bytes]:
        """Serialised FollowResponses; the rows of each are read only when it is requested."""
        parts: list[bytes] = []
        size = 0
        for _, value in self._rows:
            kv = unpack_current(value).kv
            self._crc = google_crc32c.extend(self._crc, kv)
            self._trailer.count += 1
            parts.append(delimited(b"\x0a", kv))
            size += len(kv)
            if size >= CHUNK_BYTES or len(parts) >= self._chunk_rows:
                yield _chunk(parts)
                parts, size = [], 0
        if parts:
            yield _chunk(parts)
        self._trailer.hash = self._crc
        yield holdfast_pb2.FollowResponse(trailer=self._trailer).SerializeToString()


def _begun(rows: Iterator[Row]) -> Iterator[Row]:
    first = next(rows, None)
    return iter(()) if first is None else chain([first], rows)


def _chunk(kvs: list[bytes]) -> bytes:
    """FollowResponse{chunk: FollowChunk{kvs}}, built from serialised key-values without decoding them."""
    return delimited(b"\x22", b"".join(kvs))
