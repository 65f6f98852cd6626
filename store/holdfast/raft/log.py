"""The part of the replicated log that is kept in memory, so that the core never waits for a disk.

Everything at or below `base_index` is compacted: it is in the state, and a follower that needs it gets a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.raft.invariant import InvariantViolation, invariant
from holdfast.raft.quorum import ConfState


class Entry:
    """One entry. `conf` is the whole configuration in force from this entry on, if the entry changes it. `decoded`
    caches `data` in decoded form, from its validation until it is applied; Raft does not use it."""

    __slots__ = ("conf", "data", "decoded", "index", "term")

    def __init__(self, index: int, term: int, data: bytes, conf: ConfState | None = None) -> None:
        self.index = index
        self.term = term
        self.data = data
        self.conf = conf
        self.decoded: object | None = None

    def __repr__(self) -> str:
        return f"Entry({self.index}@{self.term}, {len(self.data)}B{', conf' if self.conf else ''})"


class Log:
    """Entries `first`..`last`, without gaps; their terms never fall."""

    __slots__ = ("_entries", "base_index", "base_term", "bytes")

    def __init__(self, base_index: int = 0, base_term: int = 0, entries: Iterable[Entry] = ()) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self._entries: list[Entry] = []
        self.bytes = 0
        self.append(list(entries))

    @property
    def first(self) -> int:
        return self.base_index + 1

    @property
    def last(self) -> int:
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.base_term

    def term(self, index: int) -> int | None:
        """The term of the entry at `index`, or None if it is compacted or not here."""
        at = index - self.base_index
        if at == 0:
            return self.base_term
        if 0 < at <= len(self._entries):
            return self._entries[at - 1].term
        return None

    def get(self, index: int) -> Entry:
        at = index - self.base_index - 1
        if not 0 <= at < len(self._entries):
            raise InvariantViolation(f"entry {index} is not in {self.first}..{self.last}")
        return self._entries[at]

    def since(self, start: int) -> list[Entry]:
        """Entries from `start` on."""
        invariant(start >= self.first, f"entries from {start} are compacted (first is {self.first})")
        return self._entries[start - self.first :]

    def slice(self, start: int, end: int, max_bytes: int) -> list[Entry]:
        """Entries start..end-1, at least one if there is one, then as many as fit in `max_bytes`."""
        invariant(start >= self.first, f"entries from {start} are compacted (first is {self.first})")
        chosen: list[Entry] = []
        size = 0
        for entry in self._entries[start - self.first : end - self.first]:
            size += len(entry.data) + 24
            if chosen and size > max_bytes:
                break
            chosen.append(entry)
        return chosen

    def append(self, entries: Sequence[Entry]) -> None:
        term = self.last_term
        for index, entry in enumerate(entries, self.last + 1):
            if entry.index != index:
                raise InvariantViolation(f"a gap in the log: {entry.index} where {index} belongs")
            if entry.term < term:
                raise InvariantViolation(f"term falls from {term} to {entry.term} at index {index}")
            term = entry.term
            self.bytes += len(entry.data)
        self._entries.extend(entries)

    def truncate(self, start: int) -> None:
        """Forget entries at and after `start`."""
        invariant(start > self.base_index, f"cannot truncate at {start}: compacted up to {self.base_index}")
        cut = start - self.first
        self.bytes -= sum(len(e.data) for e in self._entries[cut:])
        del self._entries[cut:]

    def compact(self, index: int) -> None:
        """Forget entries up to and including `index`, which the state has."""
        if index <= self.base_index:
            return
        term = self.term(index)
        assert term is not None, f"cannot compact to {index}: last is {self.last}"
        cut = index - self.base_index
        self.bytes -= sum(len(e.data) for e in self._entries[:cut])
        del self._entries[:cut]
        self.base_index, self.base_term = index, term

    def reset(self, index: int, term: int) -> None:
        """Empty the log; it continues after a snapshot at `index`."""
        self._entries.clear()
        self.bytes = 0
        self.base_index, self.base_term = index, term

    def newest_at_most(self, index: int, term: int) -> tuple[int, int]:
        """The newest (index, term) not after `index` whose term is at most `term`.

        Both sides use it to skip whole terms when their logs differ (paper section 5.3, as refined by etcd).
        """
        index = min(index, self.last)
        while index > self.base_index:
            here = self._entries[index - self.first].term
            if here <= term:
                return index, here
            index -= 1
        return self.base_index, self.base_term

    def up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends with this entry is at least as up-to-date as this one (paper section 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last)
