"""One watch of a client: what it wants, and how far it was served."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.keyrange import Range, within
from holdfast.kv.rows import DELETE, Change


@dataclass(slots=True)
class Watcher:
    """One watch on a stream, of one or more ranges [start, end); end None = no end."""

    id: int
    ranges: tuple[Range, ...]
    next: int
    prev_kv: bool = False
    no_put: bool = False
    no_delete: bool = False
    fragment: bool = False
    progress: bool = False
    told: bool = False  # something was sent since the last progress tick

    def wants(self, change: Change) -> bool:
        return self.covers(change.key) and not self.filters(change)

    def filters(self, change: Change) -> bool:
        """Whether its client does not want changes of this type."""
        return self.no_delete if change.type == DELETE else self.no_put

    def covers(self, key: bytes) -> bool:
        return any(within(key, start, end) for start, end in self.ranges)
