"""The hash of history by which members are compared, a slice at a time.

A hash reads everything there is, so it is made over many turns of the loop from one consistent view, as a large range
is. It is the same on all members whatever each has removed already of what is compacted.
"""

from __future__ import annotations

import google_crc32c

from holdfast.kv import rows
from holdfast.kv.scan import newest_at
from holdfast.kv.store import Family, Reader
from holdfast.proto import kv_pb2

SEEK_COST = 8  # about as much as so many rows in a sequence


class HistoryHash:
    """CRC-32C over all history up to `revision`. While this goes on, nothing may be removed that is compacted
    later than `compacted`."""

    def __init__(self, reader: Reader, revision: int, compacted: int) -> None:
        self.revision = revision
        self.compacted = compacted
        self._reader = reader
        self._rows = iter(reader.scan(Family.REV, b"", rows.revision_key(revision + 1)))
        self._crc = google_crc32c.value(b"key")

    def advance(self, budget: int) -> bool:
        """Take in some more rows: each counts as one, and one more for each KiB of it. True: finished."""
        for key, value in self._rows:
            budget -= self._take(key, value) + (len(value) >> 10)
            if budget <= 0:
                return False
        return True

    def _take(self, key: bytes, value: bytes) -> int:
        """Returns what it has cost: 1, or more if another row had to be looked for."""
        cost = 1
        main, sub = rows.unpack_revision_key(key)
        type_, _, kv = rows.unpack_revision(value)
        if main <= self.compacted:
            if type_ == rows.DELETE and main < self.compacted:
                return cost
            cost = SEEK_COST
            named = kv_pb2.KeyValue.FromString(kv).key
            if type_ != rows.PUT or newest_at(self._reader, named, self.compacted) != (main, sub):
                return cost
        row = main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big") + (b"t" if type_ == rows.DELETE else b"")
        self._crc = google_crc32c.extend(self._crc, row + kv)
        return cost

    def result(self) -> int:
        """Once `advance` said it is finished."""
        return int(self._crc)
