"""A slice of history that several watchers read, with an index of its keys.

Without the index, each watcher costs a look at each change; a client that opens many watches of an old revision could
hold up everybody. For the same reason a slice is read in steps, as one revision may have a hundred thousand changes.
Previous values are read only for watchers that want them: that is a read of its own for each change.
"""

from __future__ import annotations

from bisect import bisect_left

from holdfast.kv.rows import NO_REVISION, Change, Version
from holdfast.kv.space import KeySpace
from holdfast.watch.watcher import Watcher

SLICE_CHANGES = 500  # a slice ends with the revision that reaches this, or SLICE_BYTES
SLICE_BYTES = 1 << 20


class Slice:
    """The changes of consecutive revisions from `start` on, in order, once `advance` has read them all. `following` is
    the next revision to read."""

    def __init__(self, space: KeySpace, start: int) -> None:
        self._space = space
        self._changes: list[Change] = []
        self._previous: list[Version] = []  # the version before each change; NO_REVISION after it was read
        self._size = 0
        self._at = start, 0  # the next change to read: its revision, and its number in that
        self._last = space.revision
        self._order: list[int] = []
        self._keys: list[bytes] = []
        self.start = start
        self.following = self._last + 1
        self._previous_cost = 0

    def advance(self, most: int) -> bool:
        """Read so many more changes, or SLICE_BYTES. Returns whether all are read. Later revisions may have been
        applied since the step before; `start` must not have been compacted."""
        size_before = self._size
        revision, sub = self._at
        for read, (change, number, previous) in enumerate(self._space.history(revision, self._last, sub)):
            enough = len(self._changes) >= SLICE_CHANGES or self._size > SLICE_BYTES
            if enough and change.revision != self._changes[-1].revision:
                self.following = change.revision
                break
            if read >= most or self._size > size_before + SLICE_BYTES:
                self._at = change.revision, number
                return False
            self._changes.append(change)
            self._previous.append(previous)
            self._size += len(change.kv)
        self._order = sorted(range(len(self._changes)), key=lambda n: self._changes[n].key)
        self._keys = [self._changes[n].key for n in self._order]
        return True

    @property
    def changes(self) -> int:
        """How many were read."""
        return len(self._changes)

    @property
    def cost(self) -> int:
        """Of all reads so far: one each, and one for each KiB."""
        return len(self._changes) + (self._size >> 10) + self._previous_cost

    def take(self, watcher: Watcher) -> tuple[list[Change], int]:
        """What the watcher wants of these revisions, in order, and the revision that it has to read next. Previous
        values count: with large ones it gets only the first of these revisions."""
        numbers = self._find(watcher)
        size = 0
        for place, n in enumerate(numbers if watcher.prev_kv else ()):
            if size > SLICE_BYTES and self._changes[n].revision != self._changes[numbers[place - 1]].revision:
                return [self._changes[n] for n in numbers[:place]], self._changes[n].revision
            if self._previous[n] != NO_REVISION:
                self._read_previous(n)
            size += len(self._changes[n].previous or b"")
        return [self._changes[n] for n in numbers], self.following

    def _find(self, watcher: Watcher) -> list[int]:
        found: set[int] = set()
        for start, end in watcher.ranges:
            first = bisect_left(self._keys, start)
            last = len(self._keys) if end is None else bisect_left(self._keys, end)
            found.update(self._order[first:last])
        return sorted(n for n in found if not watcher.filters(self._changes[n]))

    def _read_previous(self, n: int) -> None:
        change = self._changes[n]
        value = self._space.previous(change.key, self._previous[n])
        self._changes[n] = change._replace(previous=value)
        self._previous[n] = NO_REVISION
        self._previous_cost += 1 + (len(value or b"") >> 10)
