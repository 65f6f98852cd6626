"""A slice of history that several watchers read, with an index of its keys.

History is the same for all watchers, so one read of it serves all those whose next revision is in the slice. Without
the index, each watcher would cost a look at each change; a client that opens many watches of an old revision could
delay everybody. A slice is read over several turns, because one revision may have any number of changes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from holdfast.keyrange import Range
from holdfast.kv.rows import NO_REVISION, Change, Version
from holdfast.kv.space import KeySpace
from holdfast.watch.watcher import Watcher

SLICE_CHANGES = 2000  # a slice ends with the revision that reaches this, or SLICE_BYTES
SLICE_BYTES = 1 << 20  # also of the events that a watcher takes at once; the last revision may exceed it

_revision = attrgetter("revision")


class Taken(NamedTuple):
    """What a watcher gets from a slice: `changes`, which leave out nothing before the revision `following`."""

    changes: list[Change]
    following: int
    cost: int  # changes looked at, plus one for each KiB taken


class Slice:
    """The changes of the revisions `start` to `following` - 1, in order. Read it with `read` until it is `whole`."""

    def __init__(self, start: int) -> None:
        self.start = self.following = start
        self.whole = False
        self.last = False  # whether history ended where this ends, when it was read
        self.at: Version = (start, 0)  # where to read on
        self._changes: list[Change] = []  # without previous values: few watchers want them
        self._previous: list[Version] = []  # the version before each change
        self._size = 0
        self._order: list[int] = []  # the numbers of the changes, by key
        self._keys: list[bytes] = []
        self._full: dict[int, Change] = {}  # some changes, with their previous values
        self._full_bytes = 0

    def __contains__(self, revision: int) -> bool:
        return self.start <= revision < self.following

    def read(self, space: KeySpace, budget: int) -> int:
        """Read on, to the end of a revision or until `budget` is used up. Returns the cost: one for each change, and
        one for each KiB. The caller must refuse compacted revisions."""
        changes = self._changes
        had, had_bytes = len(changes), self._size
        cost = 0
        for at, previous, change in space.history(self.at, space.revision):
            between = bool(changes) and changes[-1].revision != change.revision
            if between and (len(changes) >= SLICE_CHANGES or self._size > SLICE_BYTES):
                self._end(change.revision)
                return cost
            if cost >= budget:
                self.at = at
                return cost
            changes.append(change)
            self._previous.append(previous)
            self._size += len(change.kv)
            cost = len(changes) - had + ((self._size - had_bytes) >> 10)
        self._end(space.revision + 1)
        self.last = True
        return cost

    def _end(self, following: int) -> None:
        self.following = following
        self.whole = True
        keys = [change.key for change in self._changes]
        self._order = sorted(range(len(keys)), key=keys.__getitem__)
        self._keys = [keys[n] for n in self._order]

    def take(self, watcher: Watcher, space: KeySpace) -> Taken:
        """What `watcher` wants of these revisions, from its next one on: whole revisions, up to about SLICE_BYTES."""
        numbers, cost = self._find(watcher.ranges, watcher.next)
        wanted: list[Change] = []
        size = 0
        for n in numbers:
            change = self._changes[n]
            if watcher.filters(change):
                continue
            if size > SLICE_BYTES and change.revision != wanted[-1].revision:
                return Taken(wanted, change.revision, cost + (size >> 10))
            if watcher.prev_kv:
                change = self._with_previous(n, space)
                size += len(change.previous or b"")
                cost += 1
            size += len(change.kv)
            wanted.append(change)
        return Taken(wanted, self.following, cost + (size >> 10))

    def _find(self, ranges: Sequence[Range], start: int) -> tuple[Sequence[int], int]:
        """The numbers of the changes of keys in one of these ranges, from the revision `start` on, each once, in order;
        and how many changes were looked at."""
        first = 0 if start <= self.start else bisect_left(self._changes, start, key=_revision)
        found: list[int] = []
        for low, high in ranges:
            begin = bisect_left(self._keys, low)
            end = len(self._keys) if high is None else bisect_left(self._keys, high)
            if end - begin == len(self._keys):
                return range(first, end), end - first
            found += self._order[begin:end]
        numbers = set(found) if len(ranges) > 1 else found
        return sorted(n for n in numbers if n >= first), len(found)

    def _with_previous(self, n: int, space: KeySpace) -> Change:
        """The change with this number, with its previous value. It is kept for other watchers, as long as those values
        are small: a tombstone may replace a large one."""
        full = self._full.get(n)
        if full is None:
            change, previous = self._changes[n], self._previous[n]
            if previous == NO_REVISION:
                return change
            full = change._replace(previous=space.previous(change.key, previous))
            self._full_bytes += len(full.previous or b"")
            if self._full_bytes > SLICE_BYTES:
                self._full, self._full_bytes = {}, len(full.previous or b"")
            self._full[n] = full
        return full
