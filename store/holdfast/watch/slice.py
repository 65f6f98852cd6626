"""A slice of history that several watchers read, with an index of its keys.

Without the index, each watcher costs a look at each change; a client that opens many watches of an old revision could
hold up everybody.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from holdfast.keyrange import Range
from holdfast.kv.rows import Change


class Slice:
    """The changes of consecutive revisions, in order. `following` is the next revision to read."""

    def __init__(self, groups: list[list[Change]], following: int) -> None:
        self.changes = [change for group in groups for change in group]
        self.following = following
        self._order = sorted(range(len(self.changes)), key=lambda n: self.changes[n].key)
        self._keys = [self.changes[n].key for n in self._order]

    def of(self, ranges: Sequence[Range]) -> list[Change]:
        """The changes of keys in one of these ranges, in their order, each once."""
        found: set[int] = set()
        for start, end in ranges:
            first = bisect_left(self._keys, start)
            last = len(self._keys) if end is None else bisect_left(self._keys, end)
            found.update(self._order[first:last])
        return [self.changes[n] for n in sorted(found)]
