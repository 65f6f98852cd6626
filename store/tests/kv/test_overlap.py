"""Keys touched twice by one transaction: the same answers as by comparing each with each, without doing so."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from holdfast.keyrange import bounds, within
from holdfast.kv.overlap import touches_twice
from holdfast.proto import rpc_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

Touched = tuple[set[bytes], list[tuple[bytes, bytes | None]]]


class Twice(Exception):
    pass


def each_with_each(ops: Iterable[rpc_pb2.RequestOp]) -> Touched:
    """As etcd's checkIntervals has it. Raises Twice."""
    puts: set[bytes] = set()
    deletes: list[tuple[bytes, bytes | None]] = []
    nested = []
    for op in ops:
        kind = op.WhichOneof("request")
        if kind == "request_put":
            if op.request_put.key in puts:
                raise Twice
            puts.add(op.request_put.key)
        elif kind == "request_delete_range" and op.request_delete_range.range_end != b"\x00":
            deletes.append(bounds(op.request_delete_range.key, op.request_delete_range.range_end))
        elif kind == "request_txn":
            nested.append(op.request_txn)
    refuse(puts, deletes)
    for txn in nested:
        ways = [each_with_each(txn.success), each_with_each(txn.failure)]
        for way_puts, way_deletes in ways:
            if puts & way_puts:
                raise Twice
            refuse(way_puts, deletes)
            refuse(puts, way_deletes)
        for way_puts, way_deletes in ways:
            puts |= way_puts
            deletes += way_deletes
    return puts, deletes


def refuse(puts: set[bytes], deletes: list[tuple[bytes, bytes | None]]) -> None:
    if any(within(key, start, end) for key in puts for start, end in deletes):
        raise Twice


def put(key: bytes) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key))


def delete(key: bytes, end: bytes) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key, range_end=end))


def txn(success: list[rpc_pb2.RequestOp], failure: list[rpc_pb2.RequestOp]) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_txn=rpc_pb2.TxnRequest(success=success, failure=failure))


_keys = st.binary(min_size=1, max_size=2).map(lambda b: bytes(x % 12 for x in b))
_simple = st.one_of(_keys.map(put), st.builds(delete, _keys, st.one_of(st.just(b""), st.just(b"\x00"), _keys)))
_ops = st.recursive(
    st.lists(_simple, max_size=3),
    lambda inner: st.lists(st.one_of(_simple, st.builds(txn, inner, inner)), max_size=4),
    max_leaves=12,
)


@given(_ops)
@settings(max_examples=500, deadline=None)
def test_as_each_with_each(ops: list[rpc_pb2.RequestOp]) -> None:
    try:
        each_with_each(ops)
    except Twice:
        assert touches_twice(ops)
    else:
        assert not touches_twice(ops)


def test_its_work_grows_with_the_request_and_not_with_its_square() -> None:
    def steps(size: int) -> int:
        """Calls, of Python and of C, that it takes to compare so many puts with so many deletes."""
        groups = 60
        ops = [
            txn(
                [put(b"p%03d/%05d" % (group, n)) for n in range(size // groups)],
                [delete(b"d%03d/%05d" % (group, n), b"") for n in range(size // groups)],
            )
            for group in range(groups)
        ]
        ops += [txn([delete(b"p%03d/%05d!" % (n, n), b"p%03d/%05d!!" % (n, n))], []) for n in range(60)]
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            assert not touches_twice(ops)
        finally:
            sys.setprofile(None)
        return calls

    small, large = steps(1200), steps(12_000)
    assert large < 15 * small
    assert large < 12_000 * 60
