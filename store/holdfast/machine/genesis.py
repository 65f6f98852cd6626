"""Creates the first state of a cluster: of a new one, or of one restored from the state of an old one."""

from __future__ import annotations

from typing import NamedTuple

from holdfast.kv.store import Family, Pending, Store
from holdfast.levels import CLUSTER_VERSION
from holdfast.machine import rows
from holdfast.machine.machine import Machine
from holdfast.machine.members import conf_row, put_member
from holdfast.proto import raft_pb2
from holdfast.raft.quorum import ConfState


class Genesis(NamedTuple):
    """The first state of a new cluster, identical at every founding member. It has index 1 and term 1, so that members
    added later need a snapshot, which contains it."""

    members: tuple[raft_pb2.MemberInfo, ...]
    version: str = CLUSTER_VERSION

    def write(self, store: Store) -> None:
        pending = Pending(store)
        conf = ConfState(voters=tuple(sorted(m.id for m in self.members)))
        for member in self.members:
            put_member(pending, member)
        pending.put(Family.META, rows.CONF, conf_row(1, conf))
        pending.put(Family.META, rows.APPLIED, rows.pair(1, 1))
        pending.put(Family.META, rows.EPOCH, rows.number(1))
        pending.put(Family.META, rows.VERSION, self.version.encode())
        pending.flush()


class Restored(NamedTuple):
    """Turns the state of an old cluster into the first state of a new one: keeps everything but the members
    and their alarms."""

    member: raft_pb2.MemberInfo  # the only one
    bump: int  # number of revisions to skip
    cluster_id: int = 0  # of the old cluster
    epoch: int = 0  # the least number of the new epoch

    def write(self, machine: Machine) -> tuple[int, int]:
        """Change the state of `machine`, which must not be used any more. Returns the state's (index, term)."""
        pending = Pending(machine.store)
        for id, _ in [*rows.scan(pending, rows.MEMBER)]:
            pending.put(Family.META, rows.MEMBER + id, None)
            pending.put(Family.META, rows.REMOVED + id, b"")
        for alarm in ended_alarms(machine):
            pending.put(Family.META, rows.ALARM + rows.pair(*alarm), None)
        for id, _ in [*rows.scan(pending, rows.PROPOSALS)]:
            pending.put(Family.META, rows.PROPOSALS + id, None)
        put_member(pending, self.member)
        conf = ConfState(voters=(self.member.id,))
        pending.put(Family.META, rows.CONF, conf_row(machine.applied_index, conf))
        pending.put(Family.META, rows.EPOCH, rows.number(max(machine.epoch + 1, self.epoch)))
        lineage = machine.lineage or self.cluster_id
        pending.put(Family.META, rows.LINEAGE, rows.pair(lineage, machine.space.revision))
        machine.space.skip(pending, self.bump)
        pending.flush()
        return machine.applied_index, machine.applied_term


def ended_alarms(machine: Machine) -> list[tuple[int, int]]:
    """The alarms, (member, alarm), that a restored cluster does not have: those of the old cluster's members."""
    return sorted(a for a in machine.alarms if a[0] in machine.members or a[0] in machine.removed)
