"""The members of the cluster: Raft's configuration, what is known of each member, and the ids that were removed.

The leader computes a new configuration and puts it in the log entry; this module stores it, together with the members'
names, addresses, priorities and volumes.
"""

from __future__ import annotations

from holdfast.kv.store import Family, Pending
from holdfast.machine import rows
from holdfast.proto import raft_pb2
from holdfast.raft.quorum import ConfState
from holdfast.status import MEMBER_EXISTS, MEMBER_NOT_FOUND, Code, Refusal, RequestError


class Members:
    """The members and their configuration, kept as rows of the state."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self.conf_index, self.conf = _read_conf(pending.get(Family.META, rows.CONF))
        self.infos: dict[int, raft_pb2.MemberInfo] = {}
        self.removed: set[int] = set()
        for key, value in rows.scan(pending, rows.MEMBER):
            self.infos[rows.unnumber(key)] = raft_pb2.MemberInfo.FromString(value)
        for key, _ in rows.scan(pending, rows.REMOVED):
            self.removed.add(rows.unnumber(key))

    def set_conf(self, index: int, conf: ConfState) -> None:
        """Store the configuration that is in force from the entry at `index` on."""
        self.conf_index, self.conf = index, conf
        self._pending.put(Family.META, rows.CONF, conf_row(index, conf))

    def change(self, change: raft_pb2.MemberChange) -> None:
        kind, member = change.kind, change.member
        if kind in (change.ADD_LEARNER, change.ADD_VOTER):
            if member.id in self.infos or member.id in self.removed:
                raise RequestError(MEMBER_EXISTS)
            self._put(member)
        elif member.id not in self.infos:
            raise RequestError(MEMBER_NOT_FOUND)
        elif kind == change.UPDATE:
            new = self._copy(member.id)
            del new.peer_urls[:]
            new.peer_urls.extend(member.peer_urls)
            self._put(new)

    def forget_removed(self) -> set[int]:
        """Remove members that are in no part of the configuration any more, and return them. Their ids are never used
        again. In a joint configuration leaving voters still vote, so they are still members."""
        gone = set(self.infos) - set(self.conf.members())
        for member in sorted(gone):
            del self.infos[member]
            self.removed.add(member)
            self._pending.put(Family.META, rows.MEMBER + rows.number(member), None)
            self._pending.put(Family.META, rows.REMOVED + rows.number(member), b"")
        return gone

    def set_attributes(self, attributes: raft_pb2.MemberAttributes) -> None:
        """Store the attributes that a member reported of itself."""
        new = self._copy(attributes.id)
        new.name = attributes.name
        new.priority = attributes.priority
        del new.client_urls[:]
        new.client_urls.extend(attributes.client_urls)
        self._put(new)

    def claim(self, claim: raft_pb2.Claim) -> None:
        """Bind a member to a volume. It can never be bound to another volume."""
        new = self._copy(claim.member_id)
        if new.volume_id not in (0, claim.volume_id):
            raise RequestError(
                Refusal(
                    Code.FAILED_PRECONDITION,
                    f"holdfast: member {claim.member_id:x} is taken by the volume {new.volume_id:x}; "
                    f"add another member for the volume {claim.volume_id:x}",
                )
            )
        new.volume_id = claim.volume_id
        self._put(new)

    def _copy(self, member: int) -> raft_pb2.MemberInfo:
        if member not in self.infos:
            raise RequestError(MEMBER_NOT_FOUND)
        new = raft_pb2.MemberInfo()
        new.CopyFrom(self.infos[member])
        return new

    def _put(self, member: raft_pb2.MemberInfo) -> None:
        self.infos[member.id] = member
        put_member(self._pending, member)


def put_member(pending: Pending, member: raft_pb2.MemberInfo) -> None:
    pending.put(Family.META, rows.MEMBER + rows.number(member.id), rows.pack(member))


def encode_conf(conf: ConfState) -> raft_pb2.ConfState:
    return raft_pb2.ConfState(
        voters=conf.voters, outgoing=conf.outgoing, learners=conf.learners, learners_next=conf.learners_next
    )


def conf_row(index: int, conf: ConfState) -> bytes:
    return index.to_bytes(8, "big") + rows.pack(encode_conf(conf))


def _read_conf(row: bytes | None) -> tuple[int, ConfState]:
    if row is None:
        return 0, ConfState()
    state = raft_pb2.ConfState.FromString(row[8:])
    conf = ConfState(tuple(state.voters), tuple(state.outgoing), tuple(state.learners), tuple(state.learners_next))
    return int.from_bytes(row[:8], "big"), conf
