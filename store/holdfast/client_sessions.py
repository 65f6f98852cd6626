"""A client's command is done once, and asked for again it gets its first answer (thesis section 6.3).

A session is a lease: while that lives, the client names each command by a number of its own. Its numbers and kept
answers are part of the state and of every snapshot, so any member can answer again, and they die with the lease. The
client says from which number on it still waits; answers below are forgotten, and so are the oldest beyond a bound.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import Message

from holdfast.kv.store import Family, Pending
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.status import SESSION_FORGOTTEN, Code, RequestError

MAX_ANSWERS = 64
MAX_BYTES = 64 << 10

_ANSWER = b"answer/"
_RESPONSES: dict[str, type[Message]] = {
    "put": rpc_pb2.PutResponse,
    "txn": rpc_pb2.TxnResponse,
    "delete_range": rpc_pb2.DeleteRangeResponse,
    "compact": rpc_pb2.CompactionResponse,
    "lease_grant": rpc_pb2.LeaseGrantResponse,
    "lease_revoke": rpc_pb2.LeaseRevokeResponse,
}


class Kept(NamedTuple):
    """A first answer, given again."""

    revision: int
    response: Message | None
    error: RequestError | None


class _Session:
    __slots__ = ("answers", "bytes", "floor")

    def __init__(self) -> None:
        self.answers: dict[int, bytes] = {}  # by number, in the order they were given
        self.bytes = 0
        self.floor = 0  # numbers below were given up

    def add(self, seq: int, row: bytes) -> None:
        self.answers[seq] = row
        self.bytes += len(row)

    def forget(self, seq: int) -> None:
        self.bytes -= len(self.answers.pop(seq))
        self.floor = max(self.floor, seq + 1)


class ClientSessions:
    """The kept answers of every session, as rows of the state."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self._sessions: dict[int, _Session] = {}
        for key, row in pending.scan(Family.META, _ANSWER, _ANSWER + b"\xff" * 17):
            lease = int.from_bytes(key[len(_ANSWER) : -8], "big", signed=True)
            session = self._sessions.setdefault(lease, _Session())
            session.add(int.from_bytes(key[-8:], "big"), row)
            session.floor = max(session.floor, raft_pb2.KeptAnswer.FromString(row).floor)

    def find(self, lease: int, seq: int) -> Kept | None:
        """The answer that this command got, None if it was not done yet. Raises RequestError if nobody can tell."""
        session = self._sessions.get(lease)
        if session is None:
            return None
        row = session.answers.get(seq)
        if row is None:
            if seq < session.floor:
                raise SESSION_FORGOTTEN
            return None
        kept = raft_pb2.KeptAnswer.FromString(row)
        if kept.error_code:
            return Kept(kept.revision, None, RequestError(Code(kept.error_code), kept.error))
        return Kept(kept.revision, _RESPONSES[kept.kind].FromString(kept.response), None)

    def keep(
        self, command: raft_pb2.Command, revision: int, response: Message | None, error: RequestError | None
    ) -> None:
        """Remember what this command got, and forget what its client does not wait for any more."""
        lease, seq = command.session, command.session_seq
        session = self._sessions.setdefault(lease, _Session())
        for old in [n for n in session.answers if n < command.session_low]:
            self._forget(lease, session, old)
        session.floor = max(session.floor, command.session_low)
        kept = raft_pb2.KeptAnswer(revision=revision, kind=command.WhichOneof("op") or "")
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
        """The lease is gone, and all that was kept for it."""
        session = self._sessions.pop(lease, None)
        if session is not None:
            for seq in session.answers:
                self._pending.put(Family.META, _key(lease, seq), None)

    def _forget(self, lease: int, session: _Session, seq: int) -> None:
        session.forget(seq)
        self._pending.put(Family.META, _key(lease, seq), None)


def _key(lease: int, seq: int) -> bytes:
    return _ANSWER + lease.to_bytes(8, "big", signed=True) + seq.to_bytes(8, "big")
