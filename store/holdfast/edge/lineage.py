"""Which history a revision belongs to. A cluster that is restored from a snapshot is a new cluster with a history of
its own: it has another id, lacks what came after the snapshot, and gives the revisions after it anew.

It keeps the *lineage*, the id of the first cluster that its data comes from, and has a higher *epoch*. So a replica
that holds data of an earlier epoch can tell a restored cluster, which it has to follow, from a foreign one.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Relation(Enum):
    """What one history is to another."""

    SAME = "same"
    LATER = "later"  # it was restored after the other, from a snapshot of it or of one before
    EARLIER = "earlier"
    FOREIGN = "foreign"  # none of them is in the place of the other


class Lineage(NamedTuple):
    """One history. `restored_from`: the last revision that it has of the one before; 0: it is not known, or there was
    none before. `parent`: the id of the one before; 0: it is not known, as of a cluster."""

    cluster_id: int
    epoch: int
    first: int  # the id of the first cluster
    restored_from: int = 0
    parent: int = 0

    @classmethod
    def of(cls, cluster_id: int, epoch: int, first: int, restored_from: int = 0, parent: int = 0) -> Lineage:
        """`first`: 0 if the cluster is the first one itself, or if the sender knows no lineages."""
        return cls(cluster_id, epoch, first or cluster_id, restored_from, parent)

    def relation(self, other: Lineage) -> Relation:
        """What this history is to the other one."""
        if (self.cluster_id, self.epoch) == (other.cluster_id, other.epoch):
            return Relation.SAME
        if self.first != other.first or self.epoch == other.epoch:
            return Relation.FOREIGN
        return Relation.LATER if self.epoch > other.epoch else Relation.EARLIER

    def shared(self, other: Lineage) -> int:
        """Up to which revision this history and an earlier one of the same lineage are the same; 0: it is not known.
        A cluster does not say which one it was restored from: it is taken for the other one."""
        if self.parent == other.cluster_id:
            return self.restored_from
        if other.parent == self.cluster_id:
            return other.restored_from
        if self.parent:
            return min(self.restored_from, other.restored_from) if self.parent == other.parent else 0
        return self.restored_from
