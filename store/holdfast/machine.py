"""The replicated state machine: the deterministic whole of keys, leases, members and sessions.

It sees only the log: no clock, no randomness, nothing of the node it runs on. What a turn applies goes to the store
in one batch together with the applied index, so that a crash leaves a state that some prefix of the log explains.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from hashlib import blake2b
from typing import NamedTuple

from google.protobuf.message import DecodeError, Message

from holdfast.auth import checks
from holdfast.auth.store import AuthStore, Principal
from holdfast.client_sessions import ClientSessions, Kept, may_be_named, operation_hash
from holdfast.kv import requests
from holdfast.kv.rows import Change
from holdfast.kv.space import Space
from holdfast.kv.store import Family, Pending, Reader, Store, StoreBusy
from holdfast.levels import CLUSTER_VERSION, level_of
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.invariant import InvariantViolation, invariant
from holdfast.raft.log import Entry
from holdfast.raft.quorum import ConfState
from holdfast.sessions import Sessions
from holdfast.status import (
    CORRUPT,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    MEMBER_EXISTS,
    MEMBER_NOT_FOUND,
    NO_SPACE,
    PERMISSION_DENIED,
    SESSION_ENDED,
    TTL_TOO_LARGE,
    Code,
    Refusal,
    RequestError,
)

# Of commands; a newer one is not understood and stops the member. What is proposed at level 2 of the cluster has format
# 2, so that a program that knows only level 1, and joins later, stops and does not apply it in its own way.
FORMAT = 2

_APPLIED = b"applied"
_CONF = b"conf"
_DIGEST = b"digest"
_EPOCH = b"epoch"
_WALL = b"wall"
_VERSION = b"version"
_MEMBER = b"member/"
_REMOVED = b"removed/"
_LEASE = b"lease/"
_SESSION = b"session/"
_WALL_AT = b"wall/"
_ALARM = b"alarm/"
_LEFT = b"left/"  # seconds that a lease still had at its last checkpoint

MAX_TTL_SECONDS = 9_000_000_000
NOSPACE_ALARM, CORRUPT_ALARM = rpc_pb2.NOSPACE, rpc_pb2.CORRUPT
# What is refused while an alarm is on, as etcd refuses it.
_NEEDS_SPACE = ("put", "txn", "lease_grant")
_NEEDS_TRUST = ("put", "txn", "delete_range", "compact", "lease_grant", "lease_revoke")


class Applied(NamedTuple):
    """What an entry did. `response` lacks its header; `revision` is the store's after it."""

    origin: int
    incarnation: int
    seq: int
    revision: int
    response: Message | None
    error: Refusal | None
    changes: list[Change]


class Genesis(NamedTuple):
    """What every founding member starts from, to the bit. It stands at index 1, term 1, so that whoever comes later
    has to be sent a snapshot, which holds it."""

    members: tuple[raft_pb2.MemberInfo, ...]
    version: str = CLUSTER_VERSION

    def write(self, store: Store) -> None:
        pending = Pending(store)
        conf = ConfState(voters=tuple(sorted(m.id for m in self.members)))
        for member in self.members:
            pending.put(Family.META, _MEMBER + _id(member.id), _pack(member))
        pending.put(Family.META, _CONF, _pack_conf(1, conf))
        pending.put(Family.META, _APPLIED, _two(1, 1))
        pending.put(Family.META, _EPOCH, (1).to_bytes(8, "big"))
        pending.put(Family.META, _VERSION, self.version.encode())
        pending.flush()


class Restored(NamedTuple):
    """What a state becomes when a new cluster begins with it: everything in it but who belonged to the old one."""

    member: raft_pb2.MemberInfo  # the only one
    bump: int  # revisions to leave out

    def write(self, store: Store) -> tuple[int, int]:
        """Returns (index, term) of the state."""
        machine = Machine(store)
        pending = Pending(store)
        for key, _ in [*pending.scan(Family.META, _MEMBER, _MEMBER + b"\xff" * 9)]:
            pending.put(Family.META, key, None)
            pending.put(Family.META, _REMOVED + key[len(_MEMBER) :], b"")
        for key, _ in [*pending.scan(Family.META, _SESSION, _SESSION + b"\xff" * 9)]:
            pending.put(Family.META, key, None)
        conf = ConfState(voters=(self.member.id,))
        pending.put(Family.META, _MEMBER + _id(self.member.id), _pack(self.member))
        pending.put(Family.META, _CONF, _pack_conf(machine.applied_index, conf))
        pending.put(Family.META, _EPOCH, (machine.epoch + 1).to_bytes(8, "big"))
        machine.space.skip(pending, self.bump)
        pending.flush()
        return machine.applied_index, machine.applied_term


def applied(store: Reader) -> tuple[int, int]:
    """(index, term) of the last entry that a store has applied; zeros for an empty one."""
    row = store.get(Family.META, _APPLIED)
    return _untwo(row) if row else (0, 0)


class Machine:
    """State at `applied_index`. Call `apply` for entries in order, then `flush`; read in between sees the writes."""

    def __init__(self, store: Store) -> None:
        self._pending = pending = Pending(store)
        self.store = store
        self.applied_index, self.applied_term = applied(store)
        self.conf_index, self.conf = _unpack_conf(pending.get(Family.META, _CONF))
        self.epoch = int.from_bytes(pending.get(Family.META, _EPOCH) or b"", "big")
        self.digest = int.from_bytes(pending.get(Family.META, _DIGEST) or b"", "big")
        self.wall_ms = int.from_bytes(pending.get(Family.META, _WALL) or b"", "big")
        self._set_version((pending.get(Family.META, _VERSION) or b"").decode())
        self.space = Space(pending)
        self.leases: dict[int, int] = {}  # id -> granted TTL in seconds
        self.members: dict[int, raft_pb2.MemberInfo] = {}
        self.removed: set[int] = set()
        self.sessions = Sessions()
        self.clients = ClientSessions(pending)
        self.auth = AuthStore(pending)
        self.alarms: set[tuple[int, int]] = set()  # (member, alarm)
        self.counts: Counter[str] = Counter()  # commands by kind that were done, since this member started
        self.remaining: dict[int, int] = {}  # id -> seconds left when the leader last said so
        for key, value in pending.scan(Family.META, _LEASE, _LEASE + b"\xff" * 9):
            self.leases[_signed(key[len(_LEASE) :])] = int.from_bytes(value, "big")
        for key, value in pending.scan(Family.META, _LEFT, _LEFT + b"\xff" * 9):
            self.remaining[_signed(key[len(_LEFT) :])] = int.from_bytes(value, "big")
        for key, _ in pending.scan(Family.META, _ALARM, _ALARM + b"\xff" * 17):
            self.alarms.add(_untwo(key[len(_ALARM) :]))
        for key, value in pending.scan(Family.META, _MEMBER, _MEMBER + b"\xff" * 9):
            self.members[_unid(key[len(_MEMBER) :])] = raft_pb2.MemberInfo.FromString(value)
        for key, _ in pending.scan(Family.META, _REMOVED, _REMOVED + b"\xff" * 9):
            self.removed.add(_unid(key[len(_REMOVED) :]))
        for key, value in pending.scan(Family.META, _SESSION, _SESSION + b"\xff" * 9):
            self.sessions.load(_unid(key[len(_SESSION) :]), value)

    # ---- applying ------------------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> Applied | None:
        """Apply the next entry. None: it was a leader's opening entry, or has been applied before."""
        if entry.index != self.applied_index + 1:
            raise InvariantViolation(f"entry {entry.index} after {self.applied_index}")
        self.applied_index, self.applied_term = entry.index, entry.term
        self._digest(entry.data)
        if entry.conf is not None:
            # Raft counts with this configuration since the entry is in the log, so it holds whatever the command says.
            self.conf_index, self.conf = entry.index, entry.conf
            self._pending.put(Family.META, _CONF, _pack_conf(entry.index, entry.conf))
        done = self._apply_command(entry) if entry.data else None
        if entry.conf is not None:
            self._forget_members()
        return done

    def _apply_command(self, entry: Entry) -> Applied | None:
        command = _command(entry)
        if command.format > FORMAT:
            raise InvariantViolation(
                f"entry {entry.index} has command format {command.format}; this program knows up to {FORMAT}: "
                "upgrade it"
            )
        if not self.sessions.admit(command.origin, command.incarnation, command.seq, command.window_low):
            return None
        self.wall_ms = max(self.wall_ms, command.wall_ms)
        origin, incarnation, seq = command.origin, command.incarnation, command.seq
        response: Message | None = None
        error: Refusal | None = None
        kind = command.WhichOneof("op")
        by_hash = self.level >= 2
        hash = operation_hash(command) if command.session and by_hash and may_be_named(kind) else b""
        keep = False
        try:
            if hash or (command.session and not by_hash):
                kept = self._kept_answer(command, hash)
                if kept is not None:
                    return Applied(origin, incarnation, seq, kept.revision, kept.response, kept.error, [])
                keep = True  # what refuses from here on is this command's answer
            response = self._do(kind, command)
            self.counts[kind or ""] += 1
        except RequestError as refused:
            error = refused.refusal
        changes = self.space.commit()
        if error is not None and changes:
            raise InvariantViolation(f"entry {entry.index} was refused and changed keys")
        revision = self.space.revision
        if keep and command.session in self.leases:
            self.clients.keep(command, revision, response, error, hash)
        if changes:
            self._pending.put(Family.META, _WALL_AT + revision.to_bytes(8, "big"), self.wall_ms.to_bytes(8, "big"))
            self._digest(b"".join([change.kv for change in changes]))
        return Applied(origin, incarnation, seq, revision, response, error, changes)

    def _kept_answer(self, command: raft_pb2.Command, hash: bytes) -> Kept | None:
        """The answer that this command of a client session got before. Raises RequestError, and then the number is not
        used up, if that cannot be told or the user may not do (any more) what is asked. `hash`: empty at level 1."""
        session, users = command.session, self.auth.enabled
        if session not in self.leases:
            raise RequestError(SESSION_ENDED)
        if not hash:
            return self.clients.find(session, command.session_seq)
        if users:
            self.auth.require_current(Principal(command.principal, command.auth_revision))
            self.clients.check_owner(session, command.principal)
            self.check_rights(command)
        kept = self.clients.find(session, command.session_seq, hash, only_hashed=users)
        if users:
            self.clients.bind(session, command.principal)
        return kept

    @property
    def busy(self) -> bool:
        """Whether the store did not take the last batch yet: flush again before applying more."""
        return not self._pending.empty

    def flush(self) -> None:
        """Give everything applied since the last flush to the store, in one batch."""
        put = self._pending.put
        put(Family.META, _APPLIED, _two(self.applied_index, self.applied_term))
        put(Family.META, _DIGEST, self.digest.to_bytes(8, "big"))
        put(Family.META, _WALL, self.wall_ms.to_bytes(8, "big"))
        for origin, row in self.sessions.take_changed():
            put(Family.META, _SESSION + _id(origin), row)
        with contextlib.suppress(StoreBusy):  # seen by `busy`
            self._pending.flush()

    def _digest(self, data: bytes) -> None:
        """A rolling digest of what was applied: members that differ at one index have diverged."""
        hashed = blake2b(self.digest.to_bytes(8, "big") + data, digest_size=8)
        self.digest = int.from_bytes(hashed.digest(), "big")

    def _do(self, kind: str | None, command: raft_pb2.Command) -> Message | None:
        if self.alarms:
            self._refuse_alarmed(kind, command)
        self.check_rights(command)
        if kind == "put":
            return requests.put(self.space, self.leases, command.put)
        if kind == "txn":
            return requests.txn(self.space, self.leases, command.txn)
        if kind == "delete_range":
            return requests.delete_range(self.space, command.delete_range)
        if kind == "compact":
            self.space.compact(command.compact.revision)
            return rpc_pb2.CompactionResponse()
        if kind == "lease_grant":
            return self._grant(command)
        if kind == "lease_revoke":
            return self._revoke(command.lease_revoke)
        if kind == "member":
            for change in (command.member, *command.member.together):
                self._change_member(change)
            return None
        if kind == "attributes":
            self._set_attributes(command.attributes)
            return None
        if kind == "claim":
            self._claim(command.claim)
            return None
        if kind == "cluster_version":
            self._raise_version(command)
            return None
        if kind == "alarm":
            return self._alarm(command.alarm)
        if kind == "auth":
            who = Principal(command.principal, command.auth_revision)
            return self.auth.apply(command.auth, who, self.applied_index, self.level)
        if kind == "lease_checkpoint":
            return self._checkpoint(command.lease_checkpoint)
        raise AssertionError(f"a command of an unknown kind: upgrade this program ({command.format=})")

    # ---- which behaviour counts ------------------------------------------------------------------------------

    def _set_version(self, version: str) -> None:
        level = level_of(version)
        invariant(
            level is not None,
            f"the state is of a cluster of version {version!r}; this program knows up to {CLUSTER_VERSION}: upgrade it",
        )
        self.cluster_version, self.level = version, level or 1

    def _raise_version(self, command: raft_pb2.Command) -> None:
        """Every member can do what this version stands for. It never goes down."""
        version = command.cluster_version.version
        level = level_of(version)
        if not command.system or (level is not None and level <= self.level):
            raise RequestError(
                Refusal(Code.INVALID_ARGUMENT, f"holdfast: the cluster does not go to version {version!r}")
            )
        self._set_version(version)
        self._pending.put(Family.META, _VERSION, version.encode())

    # ---- what may not be done now --------------------------------------------------------------------------

    def check_rights(self, command: raft_pb2.Command) -> None:
        """Whether the client that asked for this may, by the users and roles as they are now. Raises RequestError."""
        if command.system or not self.auth.enabled:
            return
        kind = command.WhichOneof("op")
        who = Principal(command.principal, command.auth_revision)
        if kind == "put":
            checks.check_put(self.auth, who, command.put, self.space.leased)
        elif kind == "delete_range":
            checks.check_delete(self.auth, who, command.delete_range)
        elif kind == "txn":
            checks.check_txn(self.auth, who, command.txn, self.space.leased)
        elif kind == "lease_grant":
            self.auth.require_current(who)
        elif kind == "lease_revoke":
            checks.check_lease(self.auth, who, command.lease_revoke.id, self.space.leased)
            owner = self.clients.owner(command.lease_revoke.id)
            if owner not in (None, who.user) and not self.auth.is_root(who.user):
                raise RequestError(PERMISSION_DENIED)  # ending a session takes away what its owner could ask again
        elif kind == "compact" and self.level >= 2:
            self.auth.require_admin(who)

    def _refuse_alarmed(self, kind: str | None, command: raft_pb2.Command) -> None:
        alarms = {alarm for _, alarm in self.alarms}
        if CORRUPT_ALARM in alarms and kind in _NEEDS_TRUST:
            raise RequestError(CORRUPT)
        if NOSPACE_ALARM in alarms and kind in _NEEDS_SPACE and (kind != "txn" or requests.puts(command.txn)):
            raise RequestError(NO_SPACE)

    def _alarm(self, request: rpc_pb2.AlarmRequest) -> Message:
        """Raise an alarm, or end the one of exactly this member and kind. The answer lists what changed."""
        alarm = (request.memberID, int(request.alarm))
        if alarm[1] not in (NOSPACE_ALARM, CORRUPT_ALARM):
            raise RequestError(
                Refusal(Code.INVALID_ARGUMENT, f"holdfast: there is no alarm {alarm[1]}: NOSPACE and CORRUPT are")
            )
        response = rpc_pb2.AlarmResponse()
        raising = request.action == request.ACTIVATE
        if raising or alarm in self.alarms:
            response.alarms.add(memberID=alarm[0], alarm=request.alarm)
        if raising:
            self.alarms.add(alarm)
        else:
            self.alarms.discard(alarm)
        self._pending.put(Family.META, _ALARM + _two(*alarm), b"" if raising else None)
        return response

    # ---- leases --------------------------------------------------------------------------------------------

    def _checkpoint(self, checkpoint: raft_pb2.LeaseCheckpoint) -> Message:
        """The answer names the leases that have their whole time again."""
        whole = raft_pb2.LeaseCheckpoint()
        for lease, left in zip(checkpoint.ids, checkpoint.remaining_seconds, strict=True):
            if lease in self.leases:
                self._set_remaining(lease, left)
                if not left:
                    whole.ids.append(lease)
        return whole

    def _set_remaining(self, lease: int, left: int) -> None:
        """0: it has its whole time."""
        if left:
            self.remaining[lease] = left
        elif self.remaining.pop(lease, None) is None:
            return
        self._pending.put(Family.META, _LEFT + _unsigned(lease), left.to_bytes(8, "big") if left else None)

    def _grant(self, command: raft_pb2.Command) -> Message:
        grant = command.lease_grant
        if grant.ttl_seconds > MAX_TTL_SECONDS:
            raise RequestError(TTL_TOO_LARGE)
        if grant.id in self.leases:
            raise RequestError(LEASE_EXISTS)
        if grant.ttl_seconds <= 0:
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, f"holdfast: a lease of {grant.ttl_seconds} s"))
        self.leases[grant.id] = grant.ttl_seconds
        if grant.session and self.level >= 2 and self.auth.enabled:
            self.clients.bind(grant.id, command.principal)
        self._pending.put(Family.META, _LEASE + _unsigned(grant.id), grant.ttl_seconds.to_bytes(8, "big"))
        return rpc_pb2.LeaseGrantResponse(ID=grant.id, TTL=grant.ttl_seconds)

    def _revoke(self, revoke: raft_pb2.LeaseRevoke) -> Message:
        if revoke.id not in self.leases:
            raise RequestError(LEASE_NOT_FOUND)
        for key in sorted(self.space.leased.get(revoke.id, ())):
            self.space.delete(key)
        del self.leases[revoke.id]
        self._set_remaining(revoke.id, 0)
        self.clients.end(revoke.id)
        self._pending.put(Family.META, _LEASE + _unsigned(revoke.id), None)
        return rpc_pb2.LeaseRevokeResponse()

    # ---- members -------------------------------------------------------------------------------------------

    def _change_member(self, change: raft_pb2.MemberChange) -> None:
        """Who counts for what is Raft's and came with the entry as a configuration; here is who the ids are."""
        kind, member = change.kind, change.member
        if kind in (change.ADD_LEARNER, change.ADD_VOTER):
            if member.id in self.members or member.id in self.removed:
                raise RequestError(MEMBER_EXISTS)
            self._put_member(member)
        elif member.id not in self.members:
            raise RequestError(MEMBER_NOT_FOUND)
        elif kind == change.UPDATE:
            new = raft_pb2.MemberInfo()
            new.CopyFrom(self.members[member.id])
            del new.peer_urls[:]
            new.peer_urls.extend(member.peer_urls)
            self._put_member(new)

    def _forget_members(self) -> None:
        """Who is in neither half of the configuration any more is removed, for good: ids are never used again. In a
        joint configuration those that leave still vote, so they are still members."""
        for member in sorted(set(self.members) - set(self.conf.members())):
            del self.members[member]
            self.removed.add(member)
            self._pending.put(Family.META, _MEMBER + _id(member), None)
            self._pending.put(Family.META, _REMOVED + _id(member), b"")

    def _set_attributes(self, attributes: raft_pb2.MemberAttributes) -> None:
        member = self.members.get(attributes.id)
        if member is None:
            raise RequestError(MEMBER_NOT_FOUND)
        new = raft_pb2.MemberInfo()
        new.CopyFrom(member)
        new.name = attributes.name
        new.priority = attributes.priority
        del new.client_urls[:]
        new.client_urls.extend(attributes.client_urls)
        self._put_member(new)

    def _claim(self, claim: raft_pb2.Claim) -> None:
        member = self.members.get(claim.member_id)
        if member is None:
            raise RequestError(MEMBER_NOT_FOUND)
        if member.volume_id not in (0, claim.volume_id):
            raise RequestError(
                Refusal(
                    Code.FAILED_PRECONDITION,
                    f"holdfast: member {claim.member_id:x} is taken by the volume {member.volume_id:x}; "
                    f"add another member for the volume {claim.volume_id:x}",
                )
            )
        new = raft_pb2.MemberInfo()
        new.CopyFrom(member)
        new.volume_id = claim.volume_id
        self._put_member(new)

    def _put_member(self, member: raft_pb2.MemberInfo) -> None:
        self.members[member.id] = member
        self._pending.put(Family.META, _MEMBER + _id(member.id), _pack(member))


def _command(entry: Entry) -> raft_pb2.Command:
    decoded, entry.decoded = entry.decoded, None
    if isinstance(decoded, raft_pb2.Command):
        return decoded
    try:
        return raft_pb2.Command.FromString(entry.data)
    except DecodeError as broken:
        raise AssertionError(f"entry {entry.index} is not a command: {broken}") from broken


def _pack(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _pack_conf(index: int, conf: ConfState) -> bytes:
    state = raft_pb2.ConfState(
        voters=conf.voters, outgoing=conf.outgoing, learners=conf.learners, learners_next=conf.learners_next
    )
    return index.to_bytes(8, "big") + _pack(state)


def _unpack_conf(row: bytes | None) -> tuple[int, ConfState]:
    if row is None:
        return 0, ConfState()
    state = raft_pb2.ConfState.FromString(row[8:])
    conf = ConfState(tuple(state.voters), tuple(state.outgoing), tuple(state.learners), tuple(state.learners_next))
    return int.from_bytes(row[:8], "big"), conf


def _two(a: int, b: int) -> bytes:
    return a.to_bytes(8, "big") + b.to_bytes(8, "big")


def _untwo(row: bytes) -> tuple[int, int]:
    return int.from_bytes(row[:8], "big"), int.from_bytes(row[8:], "big")


def _id(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _unid(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _unsigned(value: int) -> bytes:
    return (value & ((1 << 64) - 1)).to_bytes(8, "big")


def _signed(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)
