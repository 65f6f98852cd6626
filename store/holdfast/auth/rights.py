"""The keys that a user may read or write, as a union of ranges, and whether it covers a requested range.

Permissions are granted range by range, but their union decides, so a request may span several adjacent grants.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from holdfast.keyrange import Range, bounds


class Rights:
    """A set of keys, given as ranges."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._starts: list[bytes] = []
        self._ends: list[bytes | None] = []
        for start, end in sorted(ranges, key=lambda r: r[0]):
            if self._starts and (self._ends[-1] is None or start <= self._ends[-1]):
                last = self._ends[-1]
                self._ends[-1] = None if last is None or end is None else max(last, end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def cover(self, key: bytes, range_end: bytes) -> bool:
        """Whether every key of this range is in the set; key and range_end are those of an etcd request."""
        start, end = bounds(key, range_end)
        at = bisect_right(self._starts, start) - 1
        if at < 0:
            return False
        mine = self._ends[at]
        if mine is None:
            return True
        return start < mine and end is not None and end <= mine
