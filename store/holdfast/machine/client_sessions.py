"""A client's command is executed once; when it is sent again, it gets its first answer (thesis section 6.3).

A session is a lease: while it lives, the client numbers its commands. Numbers and kept answers are part of the state
and of every snapshot, so any member can answer again; they are deleted with the lease. The client tells the lowest
number that it still waits for; answers below are forgotten, and so are the oldest beyond a bound.

While auth is on, a session belongs to one user: the one who opened it or, if it was opened while auth was off, the
first who sends a command in it. A kept answer is given again only to the same command, compared by a hash of the
operation.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from google.protobuf.message import Message

from holdfast.kv.store import Family, Pending
from holdfast.proto import holdfast_pb2, raft_pb2, rpc_pb2
from holdfast.status import (
    SESSION_FOREIGN,
    SESSION_FORGOTTEN,
    SESSION_OTHER_COMMAND,
    Code,
    Refusal,
    RequestError,
)

MAX_ANSWERS = 64
MAX_BYTES = 64 << 10

_ANSWER = b"answer/"
_OWNER = b"owner/"
_RESPONSES: dict[str, type[Message]] = {
    "put": rpc_pb2.PutResponse,
    "put_sequential": holdfast_pb2.PutSequentialResponse,
    "txn": rpc_pb2.TxnResponse,
    "delete_range": rpc_pb2.DeleteRangeResponse,
    "compact": rpc_pb2.CompactionResponse,
    "lease_grant": rpc_pb2.LeaseGrantResponse,
    "lease_revoke": rpc_pb2.LeaseRevokeResponse,
}


def may_be_named(kind: str | None) -> bool:
    """Whether commands of this kind may belong to a session, because their answers can be kept."""
    return kind in _RESPONSES


def operation_hash(command: raft_pb2.Command) -> bytes:
    """A hash of what the client asked for, without the proposal's name, its time, or a lease id that a member chose."""
    kind = command.WhichOneof("op") or ""
    operation: Message = getattr(command, kind)
    if isinstance(operation, raft_pb2.LeaseGrant) and operation.minted:
        operation = raft_pb2.LeaseGrant(ttl_seconds=operation.ttl_seconds, delay_seconds=operation.delay_seconds)
    data = operation.SerializeToString(deterministic=True)
    return blake2b(data, digest_size=16, person=kind.encode()).digest()


class Kept(NamedTuple):
    """A first answer, given again."""

    kind: str  # of the command
    revision: int
    response: Message | None
    error: Refusal | None


class _Session:
    __slots__ = ("answers", "bytes", "floor")

    def __init__(self) -> None:
        self.answers: dict[int, bytes] = {}  # by number, in the order in which they were kept
        self.bytes = 0
        self.floor = 0  # answers below this number are forgotten

    def add(self, seq: int, row: bytes) -> None:
        self.answers[seq] = row
        self.bytes += len(row)

    def forget(self, seq: int) -> None:
        self.bytes -= len(self.answers.pop(seq))
        self.floor = max(self.floor, seq + 1)


class ClientSessions:
    """The kept answers and the owner of every session, kept as rows of the state."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self._sessions: dict[int, _Session] = {}
        for key, row in pending.scan(Family.META, _ANSWER, _ANSWER + b"\xff" * 17):
            lease = int.from_bytes(key[len(_ANSWER) : -8], "big", signed=True)
            session = self._sessions.setdefault(lease, _Session())
            session.add(int.from_bytes(key[-8:], "big"), row)
            session.floor = max(session.floor, raft_pb2.KeptAnswer.FromString(row).floor)
        self._owners: dict[int, str] = {}
        for key, row in pending.scan(Family.META, _OWNER, _OWNER + b"\xff" * 9):
            self._owners[int.from_bytes(key[len(_OWNER) :], "big", signed=True)] = row.decode()

    # ---- owners --------------------------------------------------------------------------------------------

    @staticmethod
    def owner_of(command: raft_pb2.Command) -> str:
        """Who owns what this command makes. Through replicas a user has sessions of its own: these vouch for who it is,
        and must not get hold of those that it made itself."""
        return f"{command.principal}\n{command.via}" if command.via else command.principal

    def owner(self, lease: int) -> str | None:
        """The user that the session belongs to; None if it has no owner yet."""
        return self._owners.get(lease)

    def check_owner(self, lease: int, user: str) -> None:
        """Raise RequestError if the session belongs to another user."""
        if self._owners.get(lease, user) != user:
            raise RequestError(SESSION_FOREIGN)

    def bind(self, lease: int, user: str) -> None:
        """Make `user` the owner of the session, unless it has one."""
        if lease not in self._owners:
            self._owners[lease] = user
            self._pending.put(Family.META, _owner_key(lease), user.encode())

    # ---- answers -------------------------------------------------------------------------------------------

    def find(self, lease: int, seq: int, hash: bytes | None = None, *, only_hashed: bool = False) -> Kept | None:
        """The answer that this command got, or None if it was not executed yet. Raises RequestError if the answer is
        forgotten, or was given to another command. No `hash`: do not compare, as before answers had hashes.
        `only_hashed`: treat an answer without a hash, kept by an older program, as forgotten, because its owner is
        unknown."""
        session = self._sessions.get(lease)
        if session is None:
            return None
        row = session.answers.get(seq)
        if row is None:
            if seq < session.floor:
                raise RequestError(SESSION_FORGOTTEN)
            return None
        kept = raft_pb2.KeptAnswer.FromString(row)
        if hash is not None and kept.hash and kept.hash != hash:
            raise RequestError(SESSION_OTHER_COMMAND)
        if (only_hashed and not kept.hash) or kept.kind not in _RESPONSES:
            raise RequestError(SESSION_FORGOTTEN)
        if kept.error_code:
            return Kept(kept.kind, kept.revision, None, Refusal(Code(kept.error_code), kept.error))
        return Kept(kept.kind, kept.revision, _RESPONSES[kept.kind].FromString(kept.response), None)

    def keep(
        self,
        command: raft_pb2.Command,
        revision: int,
        response: Message | None,
        error: Refusal | None,
        hash: bytes = b"",
    ) -> None:
        """Keep the answer of this command, and forget those that its client does not wait for any more."""
        lease, seq = command.session, command.session_seq
        session = self._sessions.setdefault(lease, _Session())
        for old in [n for n in session.answers if n < command.session_low]:
            self._forget(lease, session, old)
        session.floor = max(session.floor, command.session_low)
        kept = raft_pb2.KeptAnswer(revision=revision, kind=command.WhichOneof("op") or "", hash=hash)
        if error is not None:
            kept.error_code, kept.error = int(error.code), error.message
        elif response is not None:
            kept.response = response.SerializeToString(deterministic=True)
        size = kept.ByteSize()
        while session.answers and (len(session.answers) >= MAX_ANSWERS or session.bytes + size > MAX_BYTES):
            self._forget(lease, session, next(iter(session.answers)))
        kept.floor = session.floor
        row = kept.SerializeToString(deterministic=True)
        session.add(seq, row)
        self._pending.put(Family.META, _key(lease, seq), row)

    def end(self, lease: int) -> None:
        """The lease was revoked: delete the session's owner and answers."""
        if self._owners.pop(lease, None) is not None:
            self._pending.put(Family.META, _owner_key(lease), None)
        session = self._sessions.pop(lease, None)
        if session is not None:
            for seq in session.answers:
                self._pending.put(Family.META, _key(lease, seq), None)

    def _forget(self, lease: int, session: _Session, seq: int) -> None:
        session.forget(seq)
        self._pending.put(Family.META, _key(lease, seq), None)


def _owner_key(lease: int) -> bytes:
    return _OWNER + lease.to_bytes(8, "big", signed=True)


def _key(lease: int, seq: int) -> bytes:
    return _ANSWER + lease.to_bytes(8, "big", signed=True) + seq.to_bytes(8, "big")
