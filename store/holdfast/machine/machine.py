"""The replicated state machine: keys, leases, users, members, alarms and sessions, all deterministic.

It sees only the log: no clock, no randomness, nothing of the node it runs on. What a turn applies goes to the store
in one batch together with the applied index, so that after a crash the state corresponds to some prefix of the log.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Set
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple, cast

from google.protobuf.message import DecodeError, Message

from holdfast.auth import checks
from holdfast.auth.store import AuthStore, Principal
from holdfast.kv import requests
from holdfast.kv.rows import Change
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, Pending, Store, StoreBusy
from holdfast.levels import CLUSTER_VERSION, level_of
from holdfast.machine import rows
from holdfast.machine.cachable import Cachable
from holdfast.machine.client_sessions import ClientSessions, Kept, may_be_named, operation_hash
from holdfast.machine.dedup import ProposalDedup
from holdfast.machine.leases import LeaseEvent, Leases
from holdfast.machine.members import Members
from holdfast.proto import holdfast_pb2, raft_pb2, rpc_pb2
from holdfast.raft.invariant import InvariantViolation, invariant
from holdfast.raft.log import Entry
from holdfast.raft.quorum import ConfState
from holdfast.status import (
    CACHES_UNSUPPORTED,
    CORRUPT,
    MEMBER_NOT_FOUND,
    NO_ADMIN_THROUGH_REPLICA,
    NO_SPACE,
    PERMISSION_DENIED,
    SEQUENCES_UNSUPPORTED,
    SESSION_ENDED,
    Code,
    Refusal,
    RequestError,
)

# The newest command format that this program understands; a newer one stops the member. Commands proposed at cluster
# level 2 have format 2, so that a program of level 1 that joins later stops instead of applying them by its own rules.
FORMAT = 2

NOSPACE_ALARM, CORRUPT_ALARM = rpc_pb2.NOSPACE, rpc_pb2.CORRUPT
# Commands refused while an alarm is on, as in etcd.
# Kinds that `check_rights` lets pass. Only members propose some of them; for the others the services require the role
# root before they propose them, and `auth` checks its changes again when it applies them.
_RIGHTS_ELSEWHERE = ("compact", "member", "attributes", "claim", "cluster_version", "alarm", "auth", "lease_checkpoint")
_NEEDS_SPACE = ("put", "put_sequential", "txn", "lease_grant")
_NEEDS_TRUST = ("put", "put_sequential", "txn", "delete_range", "compact", "lease_grant", "lease_revoke")


class ClusterEvent(Enum):
    """Tells the member that applied an entry what that changed in the cluster itself."""

    CHANGED = 1  # the members, their attributes, or the cluster version
    CACHABLE = 2  # the prefixes that may be cached


Effect = LeaseEvent | ClusterEvent


class Applied(NamedTuple):
    """The result of an entry. `response` lacks its header; `revision` is the key space's after the entry; `effect` is
    for the member that applies it, not for a client."""

    origin: int
    incarnation: int
    seq: int
    revision: int
    response: Message | None
    error: Refusal | None
    changes: list[Change]
    effect: Effect | None = None


class Machine:
    """State at `applied_index`. Call `apply` for entries in order, then `flush`; reads in between see the writes."""

    def __init__(self, store: Store) -> None:
        self._pending = pending = Pending(store)
        self.store = store
        self.applied_index, self.applied_term = rows.applied(store)
        self.epoch = int.from_bytes(pending.get(Family.META, rows.EPOCH) or b"", "big")
        # Of a restored cluster: the id of the first one, and the revision of the snapshot; else 0.
        self.lineage, self.restored_from = rows.unpair(pending.get(Family.META, rows.LINEAGE) or bytes(16))
        self.digest = int.from_bytes(pending.get(Family.META, rows.DIGEST) or b"", "big")
        self.wall_ms = int.from_bytes(pending.get(Family.META, rows.WALL) or b"", "big")
        self._set_version((pending.get(Family.META, rows.VERSION) or b"").decode())
        self.space = KeySpace(pending)
        self._leases = Leases(pending, self.space)
        self.leases = self._leases.ttls  # the same dictionary
        self._members = Members(pending)
        self.members, self.removed = self._members.infos, self._members.removed
        self.proposals = ProposalDedup()
        self.clients = ClientSessions(pending)
        self.auth = AuthStore(pending)
        self._cachable = Cachable(pending)
        self.cachable = self._cachable.prefixes  # the same set
        self.alarms: set[tuple[int, int]] = set()  # (member, alarm)
        self.counts: Counter[str] = Counter()  # successful commands by kind, since this member started
        for key, _ in rows.scan(pending, rows.ALARM):
            self.alarms.add(rows.unpair(key))
        for key, value in rows.scan(pending, rows.PROPOSALS):
            self.proposals.load(rows.unnumber(key), value)

    @property
    def conf(self) -> ConfState:
        """The configuration that was made by the entry at `conf_index`."""
        return self._members.conf

    @property
    def conf_index(self) -> int:
        return self._members.conf_index

    @property
    def delays(self) -> Mapping[int, int]:
        """Seconds of lock-delay of the leases that have one."""
        return self._leases.delays

    @property
    def delayed(self) -> Mapping[int, int]:
        """Seconds of lock-delay of leases that have expired, and whose keys stay for so long."""
        return self._leases.delayed

    @property
    def remaining(self) -> Mapping[int, int]:
        """Seconds that each lease had left at its last checkpoint; absent means the full TTL."""
        return self._leases.remaining

    # ---- applying ------------------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> Applied | None:
        """Apply the next entry. None: it carries no command, or its proposal was applied before."""
        if entry.index != self.applied_index + 1:
            raise InvariantViolation(f"entry {entry.index} after {self.applied_index}")
        self.applied_index, self.applied_term = entry.index, entry.term
        self._digest(entry.data)
        if entry.conf is not None:
            # Raft uses this configuration since the entry is in the log, so it holds even if the command is refused.
            self._members.set_conf(entry.index, entry.conf)
        done = self._apply_command(entry) if entry.data else None
        if entry.conf is not None:
            self._end_alarms(self._members.forget_removed())
        return done

    def _apply_command(self, entry: Entry) -> Applied | None:
        command = _command(entry)
        if command.format > FORMAT:
            raise InvariantViolation(
                f"entry {entry.index} has command format {command.format}; this program knows up to {FORMAT}: "
                "upgrade it"
            )
        if not self.proposals.admit(command.origin, command.incarnation, command.seq, command.window_low):
            return None
        self.wall_ms = max(self.wall_ms, command.wall_ms)
        origin, incarnation, seq = command.origin, command.incarnation, command.seq
        response: Message | None = None
        error: Refusal | None = None
        effect: Effect | None = None
        kind = command.WhichOneof("op")
        by_hash = self.level >= 2
        hash = operation_hash(command) if command.session and by_hash and may_be_named(kind) else b""
        keep = False
        try:
            if hash or (command.session and not by_hash):
                kept = self._kept_answer(command, hash)
                if kept is not None:
                    effect = self._granted_again(kept)
                    return Applied(origin, incarnation, seq, kept.revision, kept.response, kept.error, [], effect)
                keep = True  # from here on a refusal, too, is kept as this command's answer
            response, effect = self._do(kind, command)
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
            self._pending.put(Family.META, rows.WALL_AT + rows.number(revision), rows.number(self.wall_ms))
            self._digest(b"".join([change.kv for change in changes]))
        return Applied(origin, incarnation, seq, revision, response, error, changes, effect)

    def _kept_answer(self, command: raft_pb2.Command, hash: bytes) -> Kept | None:
        """The answer that this command of a client session got before, or None if it is new. Raises RequestError if the
        answer is forgotten, or the user may not execute the command (any more); its number then stays unused. `hash` is
        empty at level 1."""
        session, users = command.session, self.auth.enabled
        if session not in self.leases:
            raise RequestError(SESSION_ENDED)
        if not hash:
            return self.clients.find(session, command.session_seq)
        if users:
            self.auth.require_current(Principal(command.principal, command.auth_revision))
            self.clients.check_owner(session, self.clients.owner_of(command))
            self.check_rights(command)
        kept = self.clients.find(session, command.session_seq, hash, only_hashed=users)
        if users:
            self.clients.bind(session, self.clients.owner_of(command))
        return kept

    def _granted_again(self, kept: Kept) -> LeaseEvent | None:
        """A client that gets the answer of a lease grant again counts the TTL from now, so the leader must, too."""
        if kept.kind != "lease_grant" or kept.error is not None:
            return None
        lease = cast("rpc_pb2.LeaseGrantResponse", kept.response).ID
        return LeaseEvent({lease: self.leases[lease]}, granted=False) if lease in self.leases else None

    @property
    def busy(self) -> bool:
        """Whether the store has not accepted the last batch yet: flush again before applying more."""
        return not self._pending.empty

    def flush(self) -> None:
        """Write everything applied since the last flush to the store, in one batch."""
        put = self._pending.put
        put(Family.META, rows.APPLIED, rows.pair(self.applied_index, self.applied_term))
        put(Family.META, rows.DIGEST, rows.number(self.digest))
        put(Family.META, rows.WALL, rows.number(self.wall_ms))
        for origin, row in self.proposals.take_changed():
            put(Family.META, rows.PROPOSALS + rows.number(origin), row)
        with contextlib.suppress(StoreBusy):  # `busy` reports it
            self._pending.flush()

    def _digest(self, data: bytes) -> None:
        """Update the rolling digest of what was applied: members whose digests differ at an index have diverged."""
        hashed = blake2b(self.digest.to_bytes(8, "big") + data, digest_size=8)
        self.digest = int.from_bytes(hashed.digest(), "big")

    def _do(self, kind: str | None, command: raft_pb2.Command) -> tuple[Message | None, Effect | None]:
        """Execute a command. Returns the response for the client, and the effect for the member."""
        if self.alarms:
            self._refuse_alarmed(kind, command)
        self.check_rights(command)
        if kind == "put":
            return requests.put(self.space, self.leases, command.put), None
        if kind == "txn":
            return requests.txn(self.space, self.leases, command.txn, self.level), None
        if kind == "put_sequential":
            if self.level < 2:
                raise RequestError(SEQUENCES_UNSUPPORTED)
            return requests.put_sequential(self.space, self.leases, command.put_sequential), None
        if kind == "delete_range":
            return requests.delete_range(self.space, command.delete_range), None
        if kind == "compact":
            self.space.compact(command.compact.revision)
            return rpc_pb2.CompactionResponse(), None
        if kind == "lease_grant":
            return self._grant(command)
        if kind == "lease_revoke":
            return self._revoke(command)
        if kind == "lease_checkpoint":
            return self._leases.checkpoint(command.lease_checkpoint)
        if kind == "alarm":
            return self._alarm(command.alarm), None
        if kind == "cachable":
            return self._set_cachable(command.cachable)
        if kind == "auth":
            who = Principal(command.principal, command.auth_revision)
            return self.auth.apply(command.auth, who, self.applied_index, self.level), None
        self._change_cluster(kind, command)
        return None, ClusterEvent.CHANGED

    def _change_cluster(self, kind: str | None, command: raft_pb2.Command) -> None:
        if kind == "member":
            for change in (command.member, *command.member.together):
                self._members.change(change)
        elif kind == "attributes":
            self._members.set_attributes(command.attributes)
        elif kind == "claim":
            self._members.claim(command.claim)
        elif kind == "cluster_version":
            self._raise_version(command)
        else:
            raise AssertionError(f"a command of an unknown kind: upgrade this program ({command.format=})")

    def _set_cachable(self, change: raft_pb2.CachablePrefix) -> tuple[Message, Effect | None]:
        if self.level < 2:
            raise RequestError(CACHES_UNSUPPORTED)
        changed = self._cachable.change(change)
        return holdfast_pb2.CachePrefixResponse(changed=changed), ClusterEvent.CACHABLE if changed else None

    def _grant(self, command: raft_pb2.Command) -> tuple[Message, LeaseEvent]:
        grant = command.lease_grant
        done = self._leases.grant(grant, delays=self.level >= 2)
        if grant.session and self.level >= 2 and self.auth.enabled:
            self.clients.bind(grant.id, self.clients.owner_of(command))
        return done

    def _revoke(self, command: raft_pb2.Command) -> tuple[Message, Effect | None]:
        revoke, effect = command.lease_revoke, None
        if revoke.delay_over and command.system:
            return self._leases.delay_over(revoke.id), None
        if revoke.expired and command.system:
            response, effect = rpc_pb2.LeaseRevokeResponse(), self._leases.expire(revoke.id)
        else:
            response = self._leases.revoke(revoke.id)
        self.clients.end(revoke.id)
        return response, effect

    # ---- cluster version -------------------------------------------------------------------------------------

    def _set_version(self, version: str) -> None:
        level = level_of(version)
        invariant(
            level is not None,
            f"the state is of a cluster of version {version!r}; this program knows up to {CLUSTER_VERSION}: upgrade it",
        )
        self.cluster_version, self.level = version, level or 1

    def _raise_version(self, command: raft_pb2.Command) -> None:
        """Raise the cluster version, which every member supports. It never falls."""
        version = command.cluster_version.version
        level = level_of(version)
        if not command.system or (level is not None and level <= self.level):
            raise RequestError(
                Refusal(Code.INVALID_ARGUMENT, f"holdfast: the cluster does not go to version {version!r}")
            )
        self._set_version(version)
        self._pending.put(Family.META, rows.VERSION, version.encode())
        self._end_alarms(self.removed)  # of members that were removed at a lower level

    # ---- rights and alarms ---------------------------------------------------------------------------------

    def check_rights(self, command: raft_pb2.Command, via: tuple[str, ...] = ()) -> None:
        """Raise RequestError unless the command's principal has the rights for it, by the current users and roles.
        `via`: who vouches for the principal, known to the member that proposes it. When the command is applied, users
        and roles are still the same, or it is refused."""
        if command.system or not self.auth.enabled:
            return
        kind = command.WhichOneof("op")
        who = Principal(command.principal, command.auth_revision, via)
        if kind == "put":
            checks.check_put(self.auth, who, command.put, self.space.leased)
        elif kind == "put_sequential":
            checks.check_put_sequential(self.auth, who, command.put_sequential, self.space.leased)
        elif kind == "delete_range":
            checks.check_delete(self.auth, who, command.delete_range)
        elif kind == "txn":
            checks.check_txn(self.auth, who, command.txn, self.space.leased)
        elif kind == "lease_grant":
            self.auth.require_current(who)
        elif kind == "lease_revoke":
            checks.check_lease(self.auth, who, command.lease_revoke.id, self.space.leased)
            owner = self.clients.owner(command.lease_revoke.id)
            if owner not in (None, self.clients.owner_of(command)) and not self.auth.is_admin(who):
                raise RequestError(PERMISSION_DENIED)  # ending a session deletes the answers kept for its owner
        elif kind == "cachable" or (kind == "compact" and self.level >= 2):
            self.auth.require_admin(who)
        elif via:
            raise RequestError(NO_ADMIN_THROUGH_REPLICA)  # the right is looked for elsewhere, without those who vouch
        elif kind not in _RIGHTS_ELSEWHERE:
            raise AssertionError(f"no rights are defined for commands of the kind {kind}")

    def _refuse_alarmed(self, kind: str | None, command: raft_pb2.Command) -> None:
        alarms = {alarm for _, alarm in self.alarms}
        if CORRUPT_ALARM in alarms and kind in _NEEDS_TRUST:
            raise RequestError(CORRUPT)
        if NOSPACE_ALARM in alarms and kind in _NEEDS_SPACE and (kind != "txn" or requests.puts(command.txn)):
            raise RequestError(NO_SPACE)

    def _alarm(self, request: rpc_pb2.AlarmRequest) -> Message:
        """Raise an alarm, or clear the one of exactly this member and kind. The response lists what changed."""
        alarm = (request.memberID, int(request.alarm))
        if alarm[1] not in (NOSPACE_ALARM, CORRUPT_ALARM):
            raise RequestError(
                Refusal(Code.INVALID_ARGUMENT, f"holdfast: there is no alarm {alarm[1]}: NOSPACE and CORRUPT are")
            )
        response = rpc_pb2.AlarmResponse()
        raising = request.action == request.ACTIVATE
        if raising and self.level >= 2 and alarm[0] in self.removed:
            raise RequestError(MEMBER_NOT_FOUND)
        if raising or alarm in self.alarms:
            response.alarms.add(memberID=alarm[0], alarm=request.alarm)
        if raising:
            self.alarms.add(alarm)
        else:
            self.alarms.discard(alarm)
        self._pending.put(Family.META, rows.ALARM + rows.pair(*alarm), b"" if raising else None)
        return response

    def _end_alarms(self, members: Set[int]) -> None:
        """Clear the alarms of members that were removed: nothing else would, and they stop all writes."""
        if self.level < 2:
            return
        for alarm in sorted(a for a in self.alarms if a[0] in members):
            self.alarms.discard(alarm)
            self._pending.put(Family.META, rows.ALARM + rows.pair(*alarm), None)


def _command(entry: Entry) -> raft_pb2.Command:
    decoded, entry.decoded = entry.decoded, None
    if isinstance(decoded, raft_pb2.Command):
        return decoded
    try:
        return raft_pb2.Command.FromString(entry.data)
    except DecodeError as broken:
        raise AssertionError(f"entry {entry.index} is not a command: {broken}") from broken
