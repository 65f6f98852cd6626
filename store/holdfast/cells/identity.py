"""Which cell a cluster is: what is stored in it below /cells/self, and compared with each request of a register.

The identity names the cluster by its id. A cluster that is restored from a snapshot gets another id and has forgotten
what it promised after the snapshot, so it does not count until it has been told its registers again.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from holdfast.cells.cell_set import CellSet, Member
from holdfast.proto import cells_pb2


@dataclass(frozen=True, slots=True)
class Identity:
    cell: str
    cluster_id: int
    set: CellSet

    def packed(self) -> bytes:
        return cells_pb2.CellIdentity(
            cell=self.cell,
            cluster_id=self.cluster_id,
            version=self.set.version,
            cells=sorted(self.set.cells),
            after=sorted(self.set.after),
            members=[cells_pb2.CellMember(**member._asdict()) for member in sorted(self.set.members)],
        ).SerializeToString(deterministic=True)

    @staticmethod
    def unpacked(data: bytes) -> Identity:
        """Raises ValueError."""
        try:
            found = cells_pb2.CellIdentity.FromString(data)
        except DecodeError as error:
            raise ValueError(f"this is no identity of a cell: {error}") from error
        members = frozenset(Member(member.cell, member.cluster_id, member.since) for member in found.members)
        cells = CellSet(found.version, frozenset(found.cells), frozenset(found.after), members)
        if sorted(member.cell for member in members) != sorted(cells.all):
            raise ValueError(f"this is no identity of a cell: its set is {cells}")
        return Identity(found.cell, found.cluster_id, cells)
