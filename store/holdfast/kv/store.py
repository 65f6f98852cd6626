"""The interface of the state's store, and the buffer of writes that a turn has not flushed yet.

In production the store is RocksDB, in the simulator a dictionary; everything above is the same code.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from enum import IntEnum
from typing import Protocol


class Family(IntEnum):
    """Where a row lives (the column families of the state)."""

    CUR = 0  # user key -> its newest version
    REV = 1  # revision -> the change
    IDX = 2  # user key and revision, newest first
    META = 3  # everything that is not a key: applied index, members, leases, sessions


Write = tuple[Family, bytes, bytes | None]  # None deletes


class StoreBusy(Exception):
    """The store would have blocked. Nothing was written; try again later."""


class StateDamaged(Exception):
    """Stored rows cannot be read any more. The message says where, and what to do. No answer of this store is reliable
    from here on, so the process must stop serving it."""


class Reader(Protocol):
    """A consistent view of the rows."""

    def get(self, family: Family, key: bytes) -> bytes | None: ...

    def scan(self, family: Family, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Rows with start <= key < end in key order, as they are when the first one is read. `end` None means up to the
        last row."""
        ...


class Store(Reader, Protocol):
    """Rows by family. `apply` is atomic: after a crash either all of a batch is stored or none of it."""

    def apply(self, batch: list[Write]) -> None: ...


class Pending:
    """A store with this turn's writes buffered on top: reads see both, so a transaction sees its own writes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._writes: tuple[dict[bytes, bytes | None], ...] = tuple({} for _ in Family)

    def get(self, family: Family, key: bytes) -> bytes | None:
        writes = self._writes[family]
        if writes and key in writes:
            return writes[key]
        return self.store.get(family, key)

    def put(self, family: Family, key: bytes, value: bytes | None) -> None:
        self._writes[family][key] = value

    def scan(self, family: Family, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        writes = self._writes[family]
        mine = sorted(k for k in writes if k >= start and (end is None or k < end))
        if not mine:
            yield from self.store.scan(family, start, end)
            return
        at = 0
        for key, value in self.store.scan(family, start, end):
            while at < len(mine) and mine[at] < key:
                new = writes[mine[at]]
                if new is not None:
                    yield mine[at], new
                at += 1
            if at < len(mine) and mine[at] == key:
                new = writes[key]
                if new is not None:
                    yield key, new
                at += 1
            else:
                yield key, value
        for key in mine[at:]:
            new = writes[key]
            if new is not None:
                yield key, new

    @property
    def empty(self) -> bool:
        return not any(self._writes)

    def flush(self) -> None:
        """Write everything to the store in one batch. On StoreBusy the writes stay buffered and visible to reads."""
        batch: list[Write] = [(family, key, value) for family in Family for key, value in self._writes[family].items()]
        if batch:
            self.store.apply(batch)
            for writes in self._writes:
                writes.clear()


class MemoryStore:
    """Rows in dictionaries, for the simulator and for tests."""

    def __init__(self, rows: tuple[dict[bytes, bytes], ...] | None = None) -> None:
        self._rows = rows if rows is not None else tuple({} for _ in Family)
        self._sorted: list[list[bytes] | None] = [None for _ in Family]

    def get(self, family: Family, key: bytes) -> bytes | None:
        return self._rows[family].get(key)

    def _keys(self, family: Family) -> list[bytes]:
        keys = self._sorted[family]
        if keys is None:
            keys = self._sorted[family] = sorted(self._rows[family])
        return keys

    def scan(self, family: Family, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys(family)
        rows = self._rows[family]
        stop = len(keys) if end is None else bisect_left(keys, end)
        # Copied, so that writes during the iteration are not seen.
        yield from [(key, rows[key]) for key in keys[bisect_left(keys, start) : stop]]

    def apply(self, batch: list[Write]) -> None:
        for family, key, value in batch:
            rows = self._rows[family]
            keys = self._sorted[family]
            if value is None:
                if rows.pop(key, None) is not None and keys is not None:
                    del keys[bisect_left(keys, key)]
            else:
                if keys is not None and key not in rows:
                    keys.insert(bisect_right(keys, key), key)
                rows[key] = value

    def snapshot(self) -> MemoryStore:
        return MemoryStore(tuple(dict(rows) for rows in self._rows))
