"""Which cells hold the registers, and which of them are enough.

The set changes by one joint step, as in Raft's joint consensus: while it does, a majority of the cells before *and* one
of the cells after are needed. So at no time can two sets of cells decide without each other.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CellSet:
    """`version` grows with each change. `after`: the cells that are to be the set, while it changes; else empty."""

    version: int
    cells: frozenset[str]
    after: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        return self.cells | self.after

    def is_quorum(self, answered: Set[str]) -> bool:
        """Whether these cells are enough. Those that do not belong to the set do not count."""
        return _majority(self.cells, answered) and (not self.after or _majority(self.after, answered))

    def can_be_quorum(self, without: Set[str]) -> bool:
        """Whether the others are enough."""
        return self.is_quorum(self.all - without)


def _majority(cells: Set[str], answered: Set[str]) -> bool:
    return 2 * len(cells & answered) > len(cells)
