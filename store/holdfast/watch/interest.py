"""Finds the watchers of a key without examining every watcher.

Nearly all watches are of one key or of a prefix. They are found by looking up the key, and its beginnings of all
lengths that watched prefixes have. Prefixes beyond MAX_LENGTHS lengths, and other ranges, are found as intervals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

from holdfast.keyrange import Range, prefix_end
from holdfast.watch.intervals import Intervals, Ref

__all__ = ["Interest", "Range", "Ref"]

K = TypeVar("K")
MAX_LENGTHS = 64  # of prefixes: each length costs a lookup for each change


class Interest:
    """Watchers by the ranges that they watch; a watcher may have several."""

    def __init__(self) -> None:
        self._keys: dict[bytes, dict[Ref, None]] = {}
        self._prefixes: dict[bytes, dict[Ref, None]] = {}
        self._lengths: Counter[int] = Counter()  # length -> number of watched prefixes
        self._others = Intervals()
        self._count = 0

    def __len__(self) -> int:
        """How many watchers there are."""
        return self._count

    def add(self, ref: Ref, ranges: tuple[Range, ...]) -> None:
        self._count += 1
        for start, end in ranges:
            if _is_key(start, end):
                self._keys.setdefault(start, {})[ref] = None
            elif _is_prefix(start, end) and (len(start) in self._lengths or len(self._lengths) < MAX_LENGTHS):
                if start not in self._prefixes:
                    self._prefixes[start] = {}
                    self._lengths[len(start)] += 1
                self._prefixes[start][ref] = None
            else:
                self._others.add(ref, start, end)

    def remove(self, ref: Ref, ranges: tuple[Range, ...]) -> None:
        self._count -= 1
        for start, end in ranges:
            if _is_key(start, end):
                _discard(self._keys, start, ref)
            elif not _is_prefix(start, end) or ref not in self._prefixes.get(start, ()):
                self._others.discard(ref, start, end)
            elif _discard(self._prefixes, start, ref):
                self._lengths[len(start)] -= 1
                if not self._lengths[len(start)]:
                    del self._lengths[len(start)]

    def of(self, key: bytes) -> Iterator[Ref]:
        """Watchers of this key; one with several ranges may come more than once."""
        yield from self._keys.get(key, ())
        for length in self._lengths:
            if length <= len(key):
                yield from self._prefixes.get(key[:length], ())
        yield from self._others.of(key)


def _is_key(start: bytes, end: bytes | None) -> bool:
    return end == start + b"\x00"


def _is_prefix(start: bytes, end: bytes | None) -> bool:
    return bool(start) and end is not None and end == prefix_end(start)


def _discard(table: dict[K, dict[Ref, None]], key: K, ref: Ref) -> bool:
    """Remove `ref` from those of `key`. Returns whether it was the last one."""
    refs = table.get(key)
    if refs is None:
        return False
    refs.pop(ref, None)
    if refs:
        return False
    del table[key]
    return True
