"""What is wrong with a KV request can be said before anything is proposed (etcd's v3rpc checks)."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.kv.ranges import bounds, within
from holdfast.kv.scan import check_sort
from holdfast.proto import rpc_pb2
from holdfast.status import (
    DUPLICATE_KEY,
    EMPTY_KEY,
    KEY_NOT_FOUND,
    LEASE_PROVIDED,
    TOO_MANY_OPS,
    VALUE_PROVIDED,
)

MAX_TXN_OPS = 128


def check_range(request: rpc_pb2.RangeRequest) -> None:
    if not request.key:
        raise EMPTY_KEY
    check_sort(request)


def check_put(request: rpc_pb2.PutRequest) -> None:
    if not request.key:
        raise EMPTY_KEY
    if request.ignore_value and request.value:
        raise VALUE_PROVIDED
    if request.ignore_lease and request.lease:
        raise LEASE_PROVIDED


def check_delete(request: rpc_pb2.DeleteRangeRequest) -> None:
    if not request.key:
        raise EMPTY_KEY


def check_txn(request: rpc_pb2.TxnRequest, limit: int = MAX_TXN_OPS) -> None:
    _check_operations(request, limit)
    _check_duplicates(request.success)
    _check_duplicates(request.failure)


def _check_operations(request: rpc_pb2.TxnRequest, limit: int) -> None:
    widest = max(len(request.compare), len(request.success), len(request.failure))
    if widest > limit:
        raise TOO_MANY_OPS
    for compare in request.compare:
        if not compare.key:
            raise EMPTY_KEY
    for op in (*request.success, *request.failure):
        _check_op(op, limit - widest)


def _check_op(op: rpc_pb2.RequestOp, limit: int) -> None:
    kind = op.WhichOneof("request")
    if kind == "request_range":
        check_range(op.request_range)
    elif kind == "request_put":
        check_put(op.request_put)
    elif kind == "request_delete_range":
        check_delete(op.request_delete_range)
    elif kind == "request_txn":
        _check_operations(op.request_txn, limit)
    else:
        raise KEY_NOT_FOUND


Touched = tuple[set[bytes], list[tuple[bytes, bytes | None]]]


def _check_duplicates(ops: Iterable[rpc_pb2.RequestOp]) -> Touched:
    """No key is put twice, or put and deleted, on one way through. Returns what is put and what is deleted."""
    puts: set[bytes] = set()
    deletes: list[tuple[bytes, bytes | None]] = []
    nested: list[rpc_pb2.TxnRequest] = []
    for op in ops:
        kind = op.WhichOneof("request")
        if kind == "request_put":
            if op.request_put.key in puts:
                raise DUPLICATE_KEY
            puts.add(op.request_put.key)
        elif kind == "request_delete_range" and op.request_delete_range.range_end != b"\x00":
            # A range without an end is no interval to etcd here, and so conflicts with nothing; it is done in its turn.
            deletes.append(bounds(op.request_delete_range.key, op.request_delete_range.range_end))
        elif kind == "request_txn":
            nested.append(op.request_txn)
    _refuse_overlap(puts, deletes)
    for txn in nested:
        # Then and else exclude each other, so they may touch the same keys; neither may touch ours.
        ways = [_check_duplicates(txn.success), _check_duplicates(txn.failure)]
        for way_puts, way_deletes in ways:
            if puts & way_puts:
                raise DUPLICATE_KEY
            _refuse_overlap(way_puts, deletes)
            _refuse_overlap(puts, way_deletes)
        for way_puts, way_deletes in ways:
            puts |= way_puts
            deletes += way_deletes
    return puts, deletes


def _refuse_overlap(puts: set[bytes], deletes: list[tuple[bytes, bytes | None]]) -> None:
    for key in puts:
        for start, end in deletes:
            if within(key, start, end):
                raise DUPLICATE_KEY
