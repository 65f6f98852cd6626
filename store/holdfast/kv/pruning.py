"""Removes compacted history: rows that a compaction made unreadable are deleted later, in slices."""

from __future__ import annotations

from holdfast.kv import rows
from holdfast.kv.scan import newest_at
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, Reader
from holdfast.raft.invariant import invariant


class HistoryPruner:
    """Finds compacted rows to remove, a slice at a time, so that no turn of the loop is long. This is local: the rows
    are unreadable already, so members need not agree on when to remove them."""

    def __init__(self, space: KeySpace, store_reader: Reader) -> None:
        self._space = space
        self._reader = store_reader
        self._target = space.compacted
        self._next = rows.revision_key(0)

    @property
    def target(self) -> int:
        return self._target

    def advance(self, budget: int) -> list[tuple[Family, bytes, bytes | None]] | None:
        """The next removals (perhaps none in this slice), or None when done. Call between turns. Each row read costs 1,
        plus 1 for each KiB of it, out of `budget`."""
        invariant(self._space.compacted >= self._target, "compaction goes backwards")
        removals: list[tuple[Family, bytes, bytes | None]] = []
        for key, value in self._reader.scan(Family.REV, self._next, rows.revision_key(self._target + 1)):
            if budget <= 0:
                self._next = key
                return removals
            budget -= 1 + (len(value) >> 10)
            main, sub = rows.unpack_revision_key(key)
            type_, _, kv = rows.unpack_revision(value)
            user_key = rows.key_of(kv)
            if newest_at(self._reader, user_key, self._target) != (main, sub) or (
                type_ == rows.DELETE and main < self._target
            ):
                removals.append((Family.REV, key, None))
                removals.append((Family.IDX, rows.index_key(user_key, main, sub), None))
        if self._next is _DONE:
            return None
        self._next = _DONE
        return removals


_DONE = b"\xff" * 12
