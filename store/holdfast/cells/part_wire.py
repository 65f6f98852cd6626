"""The requests of transactions between cells as transactions of a cell: what the functions of `cells.participant` say.

/cells/sessions/SESSION          a coordinator is alive; the key is bound to its lease in this cell
/cells/transactions/TXN          the part while the outcome is open; then the outcome, and whose transaction it was
/cells/intents/KEY               the transaction that holds the key
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from holdfast.cells.participant import Answer, Outcome
from holdfast.cells.wire import SELF, AnotherIdentity
from holdfast.client.txn import Key, Op, Ops
from holdfast.proto import cells_pb2, rpc_pb2

SESSIONS = b"/cells/sessions/"
TRANSACTIONS = b"/cells/transactions/"
INTENTS = b"/cells/intents/"
_OUTCOMES = {outcome.value.encode(): outcome for outcome in Outcome}


class Held(NamedTuple):
    """Another transaction holds a key of the part."""

    key: bytes
    txn: str


class Prepared(NamedTuple):
    answer: Answer
    held: Held | None = None


def session_key(session: str) -> bytes:
    return SESSIONS + session.encode()


def mark_key(txn: str) -> bytes:
    return TRANSACTIONS + txn.encode()


def key_of(op: Op) -> bytes:
    """The key that a put or a deletion is about."""
    return op.request_put.key or op.request_delete_range.key


def written_twice(ops: Iterable[Op]) -> bytes | None:
    """A key that more than one of these writes, which a cell refuses."""
    keys: set[bytes] = set()
    for op in ops:
        if key_of(op) in keys:
            return key_of(op)
        keys.add(key_of(op))
    return None


def keys_of(part: cells_pb2.TransactionPart) -> list[bytes]:
    keys = {compare.key for compare in part.compares}
    keys |= {key_of(op) for op in part.writes}
    return sorted(keys)


def prepare(identity: bytes, part: cells_pb2.TransactionPart) -> rpc_pb2.TxnRequest:
    keys = keys_of(part)
    return rpc_pb2.TxnRequest(
        compare=[
            Key(SELF).value == identity,
            Key(mark_key(part.txn)).version == 0,
            Key(session_key(part.session)).version > 0,
            *(Key(INTENTS + key).version == 0 for key in keys),
            *part.compares,
        ],
        success=[
            Ops.put(mark_key(part.txn), part.SerializeToString()),
            *(Ops.put(INTENTS + key, part.txn) for key in keys),
        ],
        failure=[
            Ops.get(SELF),
            Ops.get(mark_key(part.txn)),
            Ops.get(session_key(part.session)),
            *(Ops.get(INTENTS + key) for key in keys),
        ],
    )


def prepared(
    identity: bytes, part: cells_pb2.TransactionPart, answer: rpc_pb2.TxnResponse
) -> Prepared | AnotherIdentity:
    if answer.succeeded:
        return Prepared(Answer.PREPARED)
    there, mark, session, *intents = (_value(response) for response in answer.responses)
    if there != identity:
        return AnotherIdentity(there or b"")
    if mark is not None:
        outcome = is_outcome(mark)
        return Prepared(Answer.PREPARED if outcome is None else Answer[outcome.name])
    if session is None:
        return Prepared(Answer.SESSION_ENDED)
    for key, held in zip(keys_of(part), intents, strict=True):
        if held is not None:
            return Prepared(Answer.HELD, Held(key, held.decode()))
    return Prepared(Answer.DIFFERS)


def look(txn: str) -> rpc_pb2.TxnRequest:
    """Read the mark, and change nothing."""
    return rpc_pb2.TxnRequest(success=[Ops.get(mark_key(txn))])


def resolve(part: bytes, txn: str, outcome: Outcome, sessions: Mapping[str, str]) -> rpc_pb2.TxnRequest:
    """`part`: the mark as it is in this cell; empty if there is none. If it is another one, the answer has that.
    `sessions`: of the coordinator, in each cell that has a part."""
    mark = mark_key(txn)
    as_known = Key(mark).value == part if part else Key(mark).version == 0
    held = cells_pb2.TransactionPart.FromString(part)
    done = [*(Ops.delete(INTENTS + key) for key in keys_of(held))]
    if outcome is Outcome.COMMITTED:
        done += held.writes
    if part or outcome is Outcome.ABORTED:
        done.append(Ops.put(mark, outcome_mark(outcome, sessions)))
    return rpc_pb2.TxnRequest(compare=[as_known], success=done, failure=[Ops.get(mark)])


def forget(identity: bytes, names: Iterable[str]) -> rpc_pb2.TxnRequest:
    """Remove the marks of transactions that are over."""
    gone = [Ops.delete(mark_key(txn)) for txn in names]
    return rpc_pb2.TxnRequest(compare=[Key(SELF).value == identity], success=gone)


def mark_in(answer: rpc_pb2.TxnResponse) -> bytes:
    """Of `look`, or of `resolve` if that did not succeed; empty if there is none."""
    return _value(answer.responses[0]) or b""


def outcome_mark(outcome: Outcome, sessions: Mapping[str, str]) -> bytes:
    found = cells_pb2.TransactionOutcome(cells=sessions, sessions=sessions.values())
    return outcome.value.encode() + b" " + found.SerializeToString()


def is_outcome(mark: bytes) -> Outcome | None:
    """None: it is a part, so the outcome is open."""
    return _OUTCOMES.get(mark.partition(b" ")[0])


def sessions_in(mark: bytes) -> dict[str, str]:
    """The sessions of the coordinator in the cells that have a part, from a part or an outcome."""
    if is_outcome(mark) is None:
        part = cells_pb2.TransactionPart.FromString(mark)
        return dict(zip(part.cells, part.sessions, strict=True))
    found = cells_pb2.TransactionOutcome.FromString(mark.partition(b" ")[2])
    return dict(zip(found.cells, found.sessions, strict=True))


def _value(response: rpc_pb2.ResponseOp) -> bytes | None:
    kvs = response.response_range.kvs
    return kvs[0].value if kvs else None


def writes(ops: list[Op]) -> list[Op]:
    """Raises ValueError unless each puts or deletes one key outside /cells/."""
    for op in ops:
        kind = op.WhichOneof("request")
        if kind not in ("request_put", "request_delete_range") or op.request_delete_range.range_end:
            raise ValueError("between cells a transaction puts or deletes single keys")
        key = key_of(op)
        if not key or key.startswith(b"/cells/"):
            raise ValueError(f"{key!r} cannot be written by a transaction between cells")
    return ops
