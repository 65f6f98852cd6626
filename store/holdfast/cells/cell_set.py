"""Which cells hold the registers, and which of them are enough.

The set changes by one joint step, as in Raft's joint consensus: while it does, a majority of the cells before *and* one
of the cells after are needed. So at no time can two sets of cells decide without each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple


class Member(NamedTuple):
    """`cluster_id`: of the cluster that was added as this cell; another one does not count. `since`: the version that
    added it. What the cluster has of earlier versions is not valid any more: it was not in the set in between."""

    cell: str
    cluster_id: int
    since: int


@dataclass(frozen=True, slots=True)
class CellSet:
    """`version` grows with each change. `after`: the cells that are to be the set, while it changes; else empty.
    `members`: one of each cell."""

    version: int
    cells: frozenset[str]
    after: frozenset[str] = frozenset()
    members: frozenset[Member] = frozenset()

    @staticmethod
    def first(clusters: Mapping[str, int]) -> CellSet:
        """`clusters`: the cluster ids of the cells."""
        return CellSet(1, frozenset(clusters), members=frozenset(Member(c, id, 1) for c, id in clusters.items()))

    def joint(self, after: frozenset[str], added: Mapping[str, int]) -> CellSet:
        """The next version, in which these cells are to be the set. `added`: the cluster ids of those that are new."""
        version = self.version + 1
        new = frozenset(Member(cell, id, version) for cell, id in added.items())
        return CellSet(version, self.cells, after, self.members | new)

    def completed(self) -> CellSet:
        """The version after a joint one."""
        left = frozenset(member for member in self.members if member.cell in self.after)
        return CellSet(self.version + 1, self.after, members=left)

    def member(self, cell: str) -> Member | None:
        """None: the cell does not belong to the set."""
        return next((member for member in self.members if member.cell == cell), None)

    def is_member(self, cell: str, cluster_id: int) -> bool:
        """Whether the cell belongs to the set, as this cluster."""
        member = self.member(cell)
        return member is not None and member.cluster_id == cluster_id

    @property
    def all(self) -> frozenset[str]:
        return self.cells | self.after

    def same_as(self, other: CellSet) -> bool:
        """Whether these are one set, at different times: they have a cluster in common then, as each belongs to one."""
        return not {m.cluster_id for m in self.members}.isdisjoint(m.cluster_id for m in other.members)

    def is_quorum(self, answered: Set[str]) -> bool:
        """Whether these cells are enough. Those that do not belong to the set do not count."""
        return _majority(self.cells, answered) and (not self.after or _majority(self.after, answered))

    def can_be_quorum(self, without: Set[str]) -> bool:
        """Whether the others are enough."""
        return self.is_quorum(self.all - without)


def _majority(cells: Set[str], answered: Set[str]) -> bool:
    return 2 * len(cells & answered) > len(cells)
