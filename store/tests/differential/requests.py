"""Random requests, also wrong ones, over few keys so that they meet.

Revisions are drawn as how long ago they were, and made real by `resolve` when a request is sent: what is drawn must not
depend on what the servers said, or hypothesis cannot make a failing example small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import hypothesis.strategies as st
from google.protobuf.message import Message
from holdfast.proto import auth_pb2, rpc_pb2
from hypothesis.strategies import SearchStrategy

M = TypeVar("M", bound=Message)

KEYS = [b"a", b"a\x00", b"ab", b"b", b"b/1", b"b/2", b"c", b"\xff"]
LEASES = [0, 101, 102, 103]
USERS = ["root", "ann", "bob"]
ROLES = ["root", "r1", "r2"]
PASSWORD = "p"

key = st.sampled_from([*KEYS, b""]).map(lambda k: k) | st.sampled_from(KEYS)
end = st.sampled_from([b"", b"", b"", b"\x00", b"b", b"b/", b"b0", b"c", b"a", b"\xff"])
value = st.sampled_from([b"", b"x", b"y", b"z" * 20])
flag = st.booleans()
rare = st.integers(0, 7).map(lambda n: n == 0)


# 0 and -1 stand for themselves, 1 for the future, 2 for now, more for that much ago.
revisions: SearchStrategy[int] = st.sampled_from([0, 0, 0, 2, 1, -1]) | st.integers(2, 14)
_NAMES = (
    *("revision", "start_revision", "mod_revision", "create_revision"),
    *(f"{edge}_{what}_revision" for edge in ("min", "max") for what in ("mod", "create")),
)


def resolve(request: M, now: int) -> M:
    """`request` with real revisions."""
    new = type(request)()
    new.CopyFrom(request)
    _resolve(new, now)
    return new


def _resolve(message: Message, now: int) -> None:
    for field, value in message.ListFields():
        if field.name in _NAMES and value > 0:
            setattr(message, field.name, max(1, now + 2 - value))
        elif field.message_type is not None:
            for inner in value if isinstance(value, Sequence) or not isinstance(value, Message) else [value]:
                _resolve(inner, now)


@st.composite
def ranges(draw: st.DrawFn) -> rpc_pb2.RangeRequest:
    request = rpc_pb2.RangeRequest(key=draw(key), range_end=draw(end), revision=draw(revisions))
    if draw(flag):
        request.limit = draw(st.integers(-1, 4))
        request.sort_order = draw(st.sampled_from([0, 1, 2, 0, 1, 2, 3]))  # type: ignore[assignment]
        request.sort_target = draw(st.sampled_from([0, 1, 2, 3, 4, 0, 5]))  # type: ignore[assignment]
    if draw(rare):
        request.min_mod_revision = draw(revisions)
        request.max_create_revision = draw(revisions)
    if draw(rare):
        request.max_mod_revision = draw(revisions)
        request.min_create_revision = draw(revisions)
    request.serializable = draw(flag)
    request.keys_only = draw(rare)
    request.count_only = draw(rare)
    return request


@st.composite
def puts(draw: st.DrawFn) -> rpc_pb2.PutRequest:
    return rpc_pb2.PutRequest(
        key=draw(key),
        value=draw(value),
        lease=draw(st.sampled_from([*LEASES, 0, 0, 999])),
        prev_kv=draw(flag),
        ignore_value=draw(rare),
        ignore_lease=draw(rare),
    )


@st.composite
def deletes(draw: st.DrawFn) -> rpc_pb2.DeleteRangeRequest:
    return rpc_pb2.DeleteRangeRequest(key=draw(key), range_end=draw(end), prev_kv=draw(flag))


@st.composite
def compares(draw: st.DrawFn) -> rpc_pb2.Compare:
    target = draw(st.integers(0, 4))
    compare = rpc_pb2.Compare(
        result=draw(st.integers(0, 3)),  # type: ignore[arg-type]
        target=target,  # type: ignore[arg-type]
        key=draw(key),
        range_end=draw(end) if draw(rare) else b"",
    )
    number = draw(st.integers(0, 14))
    if draw(rare):
        return compare  # no value to compare with
    if target == rpc_pb2.Compare.VALUE:
        compare.value = draw(value)
    elif target == rpc_pb2.Compare.LEASE:
        compare.lease = draw(st.sampled_from(LEASES))
    elif target == rpc_pb2.Compare.VERSION:
        compare.version = number
    elif target == rpc_pb2.Compare.CREATE:
        compare.create_revision = number
    else:
        compare.mod_revision = number
    return compare


@st.composite
def operations(draw: st.DrawFn, depth: int) -> rpc_pb2.RequestOp:
    kind = draw(st.integers(0, 10))
    if kind <= 3:
        return rpc_pb2.RequestOp(request_put=draw(puts()))
    if kind <= 6:
        return rpc_pb2.RequestOp(request_range=draw(ranges()))
    if kind <= 8:
        return rpc_pb2.RequestOp(request_delete_range=draw(deletes()))
    if kind == 9 and depth:
        return rpc_pb2.RequestOp(request_txn=draw(txns(depth - 1)))
    return rpc_pb2.RequestOp() if draw(rare) else rpc_pb2.RequestOp(request_put=draw(puts()))


@st.composite
def txns(draw: st.DrawFn, depth: int = 2) -> rpc_pb2.TxnRequest:
    return rpc_pb2.TxnRequest(
        compare=draw(st.lists(compares(), max_size=2)),
        success=draw(st.lists(operations(depth), max_size=3)),
        failure=draw(st.lists(operations(depth), max_size=3)),
    )


@st.composite
def read_txns(draw: st.DrawFn) -> rpc_pb2.TxnRequest:
    """What never reaches the log."""
    ops = st.lists(ranges().map(lambda r: rpc_pb2.RequestOp(request_range=r)), max_size=3)
    return rpc_pb2.TxnRequest(compare=draw(st.lists(compares(), max_size=2)), success=draw(ops), failure=draw(ops))


@st.composite
def watch_creates(draw: st.DrawFn) -> rpc_pb2.WatchCreateRequest:
    return rpc_pb2.WatchCreateRequest(
        key=draw(key),
        range_end=draw(end),
        start_revision=draw(revisions),
        filters=draw(st.lists(st.sampled_from([0, 1]), max_size=1)),  # type: ignore[arg-type]
        prev_kv=draw(flag),
        watch_id=draw(st.sampled_from([0, 0, 0, 5, 7])),
        fragment=draw(flag),
    )


@st.composite
def permissions(draw: st.DrawFn) -> auth_pb2.Permission:
    return auth_pb2.Permission(
        permType=draw(st.integers(0, 2)),  # type: ignore[arg-type]
        key=draw(key),
        range_end=draw(end),
    )
