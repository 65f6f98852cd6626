"""Executes Put, DeleteRange and Txn on the key space, with etcd's rules and responses (the API adds headers).

A transaction is first decided (all compares, nested ones too, against the state before it), then checked in full,
then executed, so that a request that fails changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from holdfast.keyrange import bounds
from holdfast.kv.rows import Current
from holdfast.kv.scan import check_sort
from holdfast.kv.space import KeySpace
from holdfast.levels import LEVEL
from holdfast.proto import holdfast_pb2, kv_pb2, rpc_pb2
from holdfast.status import COMPACTED, KEY_NOT_FOUND, LEASE_NOT_FOUND, Code, Refusal, RequestError

_Path = Iterator[bool]
_Read = Callable[[rpc_pb2.RangeRequest, rpc_pb2.RangeResponse], None]
_R = rpc_pb2.Compare
LOOK = 1000  # rows
SEQUENCE_DIGITS = 20  # a revision has at most 19: keys sort by their numbers
_CMP: dict[int, Callable[[Any, Any], bool]] = {
    _R.EQUAL: lambda a, b: a == b,
    _R.GREATER: lambda a, b: a > b,
    _R.LESS: lambda a, b: a < b,
    _R.NOT_EQUAL: lambda a, b: a != b,
}


def put(space: KeySpace, leases: Collection[int], request: rpc_pb2.PutRequest) -> rpc_pb2.PutResponse:
    _check_put(space, leases, request)
    return _put(space, request)


def put_sequential(
    space: KeySpace, leases: Collection[int], request: holdfast_pb2.PutSequentialRequest
) -> holdfast_pb2.PutSequentialResponse:
    _check_lease(leases, request)
    key = request.prefix + b"%0*d" % (SEQUENCE_DIGITS, space.revision + 1)
    if space.get(key) is not None:
        text = f"holdfast: the key {key!r} exists, and was not made by PutSequential"
        raise RequestError(Refusal(Code.FAILED_PRECONDITION, text))
    space.put(key, request.value, request.lease)
    return holdfast_pb2.PutSequentialResponse(key=key)


def delete_range(space: KeySpace, request: rpc_pb2.DeleteRangeRequest) -> rpc_pb2.DeleteRangeResponse:
    response = rpc_pb2.DeleteRangeResponse()
    start, end = bounds(request.key, request.range_end)
    for key in space.keys(start, end):
        before = space.delete(key)
        assert before is not None, f"{key!r} is among the live keys and has no row"
        response.deleted += 1
        if request.prev_kv:
            response.prev_kvs.append(kv_pb2.KeyValue.FromString(before.kv))
    return response


def txn(
    space: KeySpace, leases: Collection[int], request: rpc_pb2.TxnRequest, level: int = LEVEL
) -> rpc_pb2.TxnResponse:
    """`level`: of the cluster's behaviour."""
    response = rpc_pb2.TxnResponse()
    path: list[bool] = []
    _decide(space, request, path)
    _check(space, leases, request, iter(path), level, space.reading_revision)

    def read(request: rpc_pb2.RangeRequest, into: rpc_pb2.RangeResponse) -> None:
        into.CopyFrom(range_now(space, request))
        into.header.revision = space.reading_revision

    _execute(space, request, iter(path), response, read)
    return response


def answer_reads(
    space: KeySpace,
    request: rpc_pb2.TxnRequest,
    path: list[bool],
    revision: int,
    response: rpc_pb2.TxnResponse,
    read: _Read,
) -> None:
    """Answer a read-only transaction as of `revision`, whose compares had the outcomes `path`; `read` answers the
    ranges, in order. Raises RequestError."""
    _check(space, (), request, iter(path), LEVEL, revision)
    _execute(space, request, iter(path), response, read)


def changes(request: rpc_pb2.TxnRequest) -> bool:
    """Whether a branch of this transaction, or of one nested in it, writes or deletes keys."""
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind in ("request_put", "request_delete_range") or (kind == "request_txn" and changes(op.request_txn)):
            return True
    return False


def puts(request: rpc_pb2.TxnRequest) -> bool:
    """Whether a branch of this transaction, or of one nested in it, writes a key."""
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind == "request_put" or (kind == "request_txn" and puts(op.request_txn)):
            return True
    return False


def in_key_order(request: rpc_pb2.RangeRequest) -> bool:
    """Whether a Range neither sorts nor filters, so that it need not read more keys than its limit."""
    sorted_ = request.sort_order != request.NONE and (request.sort_target, request.sort_order) != (
        request.KEY,
        request.ASCEND,
    )
    filters = request.min_mod_revision, request.max_mod_revision, request.min_create_revision
    return not (sorted_ or any(filters) or request.max_create_revision)


def range_now(space: KeySpace, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
    """Answer a Range within the running transaction."""
    scan = space.scan(request)
    while not (left := scan.advance(LOOK)):
        space.looked_at += LOOK
    space.looked_at += LOOK - left
    kvs, more, count = scan.result()
    response = rpc_pb2.RangeResponse(more=more, count=count)
    response.kvs.extend(kv_pb2.KeyValue.FromString(kv) for kv in kvs)
    return response


def _put(space: KeySpace, request: rpc_pb2.PutRequest) -> rpc_pb2.PutResponse:
    value, lease = request.value, request.lease
    if request.ignore_value or request.ignore_lease:
        now = space.get(request.key)
        assert now is not None, "checked before"
        if request.ignore_value:
            value = kv_pb2.KeyValue.FromString(now.kv).value
        if request.ignore_lease:
            lease = now.lease
    before = space.put(request.key, value, lease)
    response = rpc_pb2.PutResponse()
    if request.prev_kv and before is not None:
        response.prev_kv.ParseFromString(before.kv)
    return response


def _check_put(space: KeySpace, leases: Collection[int], request: rpc_pb2.PutRequest) -> None:
    _check_lease(leases, request)
    _check_key(space, request)


def _check_lease(leases: Collection[int], request: rpc_pb2.PutRequest | holdfast_pb2.PutSequentialRequest) -> None:
    if request.lease and request.lease not in leases:
        raise RequestError(LEASE_NOT_FOUND)


def _check_key(space: KeySpace, request: rpc_pb2.PutRequest) -> None:
    if (request.ignore_value or request.ignore_lease) and space.get(request.key) is None:
        raise RequestError(KEY_NOT_FOUND)


# ---- compares --------------------------------------------------------------------------------------------------


def _decide(space: KeySpace, request: rpc_pb2.TxnRequest, path: list[bool]) -> None:
    """Append the outcome of this transaction's compares and of those nested in the chosen branch, in order."""
    outcome = all(_holds(space, compare) for compare in request.compare)
    path.append(outcome)
    for op in request.success if outcome else request.failure:
        if op.WhichOneof("request") == "request_txn":
            _decide(space, op.request_txn, path)


def _holds(space: KeySpace, compare: rpc_pb2.Compare) -> bool:
    if not compare.range_end:
        return holds(compare, space.get(compare.key))
    compared, all_hold = _compare_all(space, compare)
    return all_hold if compared else holds(compare, None)


def cost(row: Current | None) -> int:
    """The cost of reading a row: 1, plus 1 for each KiB of it."""
    return 1 if row is None else 1 + (len(row.kv) >> 10)


def _compare_all(space: KeySpace, compare: rpc_pb2.Compare) -> tuple[int, bool]:
    """How many keys were examined, and whether the compare holds for all of them."""
    compared = 0
    for key in space.iterate(*bounds(compare.key, compare.range_end)):
        compared += 1
        row = space.get(key)
        space.looked_at += cost(row)
        if not holds(compare, row):
            return compared, False
    return compared, True


def holds(compare: rpc_pb2.Compare, row: Current | None) -> bool:
    """Whether a compare holds for this row; None: the key does not exist."""
    compares = _CMP.get(compare.result)
    if compares is None:
        return True
    target = compare.target
    if target == _R.VALUE:
        # A missing key has no value, so the compare fails for every operator, even NOT_EQUAL.
        return row is not None and compares(kv_pb2.KeyValue.FromString(row.kv).value, compare.value)
    if target == _R.VERSION:
        return compares(row.version if row else 0, compare.version)
    if target == _R.CREATE:
        return compares(row.create if row else 0, compare.create_revision)
    if target == _R.MOD:
        return compares(row.mod if row else 0, compare.mod_revision)
    if target == _R.LEASE:
        return compares(row.lease if row else 0, compare.lease)
    return True


# ---- checks and execution --------------------------------------------------------------------------------------


def _check(
    space: KeySpace, leases: Collection[int], request: rpc_pb2.TxnRequest, path: _Path, level: int, now: int
) -> None:
    """`now`: the revision that the transaction reads at."""
    for op in request.success if next(path) else request.failure:
        kind = op.WhichOneof("request")
        if kind == "request_put":
            if level >= 2:  # within a transaction etcd checks the key first
                _check_key(space, op.request_put)
                _check_lease(leases, op.request_put)
            else:
                _check_put(space, leases, op.request_put)
        elif kind == "request_range":
            check_sort(op.request_range)
            revision = op.request_range.revision
            if revision < 0 and revision < space.compacted:
                raise RequestError(
                    COMPACTED
                )  # as etcd does in a transaction only; elsewhere a negative revision means the newest
            space.check_revision(revision, now)
        elif kind == "request_txn":
            _check(space, leases, op.request_txn, path, level, now)


def _execute(
    space: KeySpace, request: rpc_pb2.TxnRequest, path: _Path, response: rpc_pb2.TxnResponse, read: _Read
) -> None:
    """Fill in `response` in place, so that a nested response is not copied at each level."""
    response.succeeded = next(path)
    for op in request.success if response.succeeded else request.failure:
        kind = op.WhichOneof("request")
        answer = response.responses.add()
        if kind == "request_range":
            read(op.request_range, answer.response_range)
        elif kind == "request_put":
            answer.response_put.CopyFrom(_put(space, op.request_put))
            answer.response_put.header.revision = space.reading_revision
        elif kind == "request_delete_range":
            answer.response_delete_range.CopyFrom(delete_range(space, op.request_delete_range))
            answer.response_delete_range.header.revision = space.reading_revision
        elif kind == "request_txn":
            answer.response_txn.header.SetInParent()  # etcd sends an empty header here
            _execute(space, op.request_txn, path, answer.response_txn, read)
