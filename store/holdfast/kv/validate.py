"""Checks KV requests before they are proposed, without the state (etcd's v3rpc checks)."""

from __future__ import annotations

from holdfast.kv.overlap import touches_twice
from holdfast.kv.scan import check_sort
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.status import (
    DUPLICATE_KEY,
    EMPTY_KEY,
    KEY_NOT_FOUND,
    LEASE_PROVIDED,
    TOO_MANY_OPS,
    VALUE_PROVIDED,
    RequestError,
)

MAX_TXN_OPS = 128
WHOLE = 8


def check_range(request: rpc_pb2.RangeRequest) -> None:
    if not request.key:
        raise RequestError(EMPTY_KEY)
    check_sort(request)


def check_put(request: rpc_pb2.PutRequest) -> None:
    if not request.key:
        raise RequestError(EMPTY_KEY)
    if request.ignore_value and request.value:
        raise RequestError(VALUE_PROVIDED)
    if request.ignore_lease and request.lease:
        raise RequestError(LEASE_PROVIDED)


def check_put_sequential(request: holdfast_pb2.PutSequentialRequest) -> None:
    if not request.prefix:
        raise RequestError(EMPTY_KEY)


def check_delete(request: rpc_pb2.DeleteRangeRequest) -> None:
    if not request.key:
        raise RequestError(EMPTY_KEY)


def check_txn(request: rpc_pb2.TxnRequest, limit: int = MAX_TXN_OPS) -> None:
    """`limit`: the most operations of one transaction, summed along each path of nested transactions, as in etcd. That
    bounds the depth of the tree but not its size, so the whole tree may have at most `WHOLE` times as many."""
    _check_operations(request, limit, WHOLE * limit)
    if touches_twice(request.success) or touches_twice(request.failure):
        raise RequestError(DUPLICATE_KEY)


def _check_operations(request: rpc_pb2.TxnRequest, limit: int, room: int) -> int:
    """Returns how much of `room` is left."""
    widest = max(len(request.compare), len(request.success), len(request.failure))
    room -= len(request.compare) + len(request.success) + len(request.failure)
    if widest > limit or room < 0:
        raise RequestError(TOO_MANY_OPS)
    for compare in request.compare:
        if not compare.key:
            raise RequestError(EMPTY_KEY)
    for op in (*request.success, *request.failure):
        room = _check_op(op, limit - widest, room)
    return room


def _check_op(op: rpc_pb2.RequestOp, limit: int, room: int) -> int:
    kind = op.WhichOneof("request")
    if kind == "request_range":
        check_range(op.request_range)
    elif kind == "request_put":
        check_put(op.request_put)
    elif kind == "request_delete_range":
        check_delete(op.request_delete_range)
    elif kind == "request_txn":
        return _check_operations(op.request_txn, limit, room)
    else:
        raise RequestError(KEY_NOT_FOUND)
    return room
