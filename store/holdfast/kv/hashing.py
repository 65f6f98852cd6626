"""Hashes by which servers are compared: of the whole history (etcd's HashKV), and of the keys of a range.

They read everything, so they are computed in slices over many turns of the loop, from one consistent view, like a
large range. They are the same on all servers, no matter how much compacted history each has removed already.
"""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c

from holdfast.kv import rows
from holdfast.kv.scan import Row, newest_at, newest_rows, rows_at
from holdfast.kv.slices import Sliced
from holdfast.kv.store import Family, Reader

SEEK_COST = 8  # cost of a seek, in rows read in sequence


class HistoryHash(Sliced):
    """CRC-32C over all history up to `revision`. Until it is finished, no rows may be removed for a compaction later
    than `compacted`. Each row costs 1, plus 1 for each KiB of it."""

    def __init__(self, reader: Reader, revision: int, compacted: int) -> None:
        super().__init__()
        self.revision = revision
        self.floor = self.compacted = compacted
        self._reader = reader
        self._rows = iter(reader.scan(Family.REV, b"", rows.revision_key(revision + 1)))
        self._crc = google_crc32c.value(b"key")

    def steps(self) -> Iterator[int]:
        for key, value in self._rows:
            yield self._take(key, value) + (len(value) >> 10)

    def _take(self, key: bytes, value: bytes) -> int:
        """Hash one row. Returns the cost: 1, or SEEK_COST if another row had to be looked up."""
        cost = 1
        main, sub = rows.unpack_revision_key(key)
        type_, _, kv = rows.unpack_revision(value)
        if main <= self.compacted:
            if type_ == rows.DELETE and main < self.compacted:
                return cost
            cost = SEEK_COST
            named = rows.key_of(kv)
            if type_ != rows.PUT or newest_at(self._reader, named, self.compacted) != (main, sub):
                return cost
        row = main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big") + (b"t" if type_ == rows.DELETE else b"")
        self._crc = google_crc32c.extend(self._crc, row + kv)
        return cost

    def result(self) -> int:
        """The hash. Call only when all is hashed."""
        return int(self._crc)


class RangeHash(Sliced):
    """CRC-32C over the live keys of a range at one revision, in order, and their number: servers that have the same
    data agree on it, whatever history they keep. Each row costs 1, plus 1 for each KiB of it."""

    def __init__(self, reader: Reader, start: bytes, end: bytes | None, revision: int, *, newest: bool) -> None:
        """`newest`: `revision` is the current one. Else no rows may be removed for a compaction later than it."""
        super().__init__()
        self.revision = revision
        self.count = 0
        self._crc = 0
        self._rows: Iterator[Row | None]
        if newest:
            self._rows = newest_rows(reader, start, end)
        else:
            self._rows = rows_at(reader, start, end, revision)
            self.floor = revision

    def steps(self) -> Iterator[int]:
        for row in self._rows:
            if row is None:
                yield 1
                continue
            self.count += 1
            self._crc = google_crc32c.extend(self._crc, row.kv)
            yield 1 + (len(row.kv) >> 10)

    def result(self) -> tuple[int, int]:
        """(hash, number of keys). Call only when all is hashed."""
        return int(self._crc), self.count
