"""Which configuration is in force at each index: the last one in the log up to there."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.raft.log import Entry
from holdfast.raft.quorum import ConfState


class Configurations:
    """Configurations by the index of the entry that made each. The last one is in force as soon as it is in the log
    (thesis section 4.1), committed or not; truncating the log restores the one before."""

    def __init__(self, index: int, conf: ConfState, entries: Iterable[Entry] = ()) -> None:
        self._made: list[tuple[int, ConfState]] = [(index, conf)]
        self.append(entries)

    @property
    def current(self) -> ConfState:
        return self._made[-1][1]

    @property
    def index(self) -> int:
        return self._made[-1][0]

    def at(self, index: int) -> tuple[int, ConfState]:
        """The index of the entry that made the configuration in force at `index`, and that configuration."""
        for made, conf in reversed(self._made):
            if made <= index:
                return made, conf
        raise AssertionError(f"no configuration at {index}: the oldest known is of {self._made[0][0]}")

    def since(self, index: int) -> list[int]:
        """The indexes after `index` at which configurations were made."""
        return [made for made, _ in self._made if made > index]

    def append(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.conf is not None and entry.index > self._made[-1][0]:
                self._made.append((entry.index, entry.conf))

    def truncate(self, start: int) -> None:
        """The log was truncated: entries from `start` on are gone."""
        while self._made[-1][0] >= start:
            self._made.pop()

    def compact(self, index: int) -> None:
        """Forget configurations that were in force only before `index`."""
        while len(self._made) > 1 and self._made[1][0] <= index:
            del self._made[0]

    def reset(self, index: int, conf: ConfState) -> None:
        self._made = [(index, conf)]
