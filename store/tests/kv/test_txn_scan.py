"""A transaction that reads much is answered in slices, as if at once; and one that writes may not read much."""

from __future__ import annotations

import random

import pytest
from holdfast.kv import requests
from holdfast.kv.space import KeySpace
from holdfast.kv.store import MemoryStore, Pending
from holdfast.kv.txn_scan import (
    MAX_COMPARED,
    MAX_READ,
    TOO_MUCH_ANSWERED,
    TOO_MUCH_COMPARED,
    TOO_MUCH_READ,
    TxnScan,
    check_compares,
    check_reads,
)
from holdfast.proto import rpc_pb2
from holdfast.status import RequestError

R = rpc_pb2.RangeRequest


def filled(keys: int, rounds: int = 1) -> KeySpace:
    pending = Pending(MemoryStore())
    space = KeySpace(pending)
    for n in range(rounds):
        for key in range(keys):
            space.put(b"k/%06d" % key, b"%d.%d" % (n, key), 0)
        space.commit()
    pending.flush()
    return space


def everything(**fields: object) -> rpc_pb2.RangeRequest:
    return R(key=b"k/", range_end=b"k0", **fields)  # type: ignore[arg-type]


def any_range(rng: random.Random, revisions: int) -> rpc_pb2.RangeRequest:
    return everything(
        limit=rng.choice((0, 0, 1, 7)),
        revision=rng.choice((-1, 0, 0, *range(1, revisions + 1))),
        sort_order=rng.choice(R.SortOrder.values()),
        sort_target=rng.choice(R.SortTarget.values()),
        keys_only=rng.random() < 0.2,
        count_only=rng.random() < 0.2,
        min_mod_revision=rng.choice((0, 0, 3)),
    )


@pytest.mark.parametrize("seed", range(20))
def test_in_slices_it_is_answered_as_at_once_whatever_is_written_meanwhile(seed: int) -> None:
    rng = random.Random(seed)
    space = filled(30, rounds=3)
    request = rpc_pb2.TxnRequest()
    compare = request.compare.add(key=b"k/", range_end=b"k0", target=rpc_pb2.Compare.MOD, result=rng.choice((0, 1)))
    compare.mod_revision = rng.choice((2, 4))
    for ops in (request.success, request.failure):
        for _ in range(3):
            ops.add().request_range.CopyFrom(any_range(rng, space.revision))
        ops.add().request_txn.success.add().request_range.CopyFrom(any_range(rng, space.revision))
    wanted = requests.txn(space, (), request)
    scan = TxnScan(space, (), request)
    while not scan.advance(5):
        space.put(b"k/%06d" % rng.randrange(60), b"later", 0)
        requests.delete_range(space, rpc_pb2.DeleteRangeRequest(key=b"k/%06d" % rng.randrange(30)))
        space.commit()
    assert scan.response == wanted


def test_a_slice_looks_at_no_more_rows_than_it_may() -> None:
    """A hundred sorted ranges of 30,000 keys, two kilobytes, held up the loop for 15 seconds."""
    space = filled(1000)
    request = rpc_pb2.TxnRequest()
    for _ in range(10):
        request.success.add().request_range.CopyFrom(everything(limit=1, sort_order=R.DESCEND, sort_target=R.MOD))
    scan = TxnScan(space, (), request)
    slices = 1
    while not scan.advance(100):
        slices += 1
    assert slices >= 100


def test_one_that_writes_may_not_read_much() -> None:
    space = filled(MAX_READ // 10 + 1)
    few, many = (rpc_pb2.TxnRequest() for _ in range(2))
    for txn, ranges in ((few, 9), (many, 10)):
        txn.failure.add().request_put.key = b"w"
        nested = txn.failure.add().request_txn
        for _ in range(ranges):
            nested.success.add().request_range.CopyFrom(everything(limit=1, sort_order=R.DESCEND, sort_target=R.MOD))
    check_reads(space, few)
    with pytest.raises(RequestError) as refused:
        check_reads(space, many)
    assert refused.value.refusal is TOO_MUCH_READ
    # What is cut by its limit, or only counted, is little, however many keys there are.
    little = rpc_pb2.TxnRequest()
    for _ in range(100):
        little.success.add().request_range.CopyFrom(everything(limit=50))
        little.success.add().request_range.CopyFrom(everything(count_only=True))
    check_reads(space, little)


def test_one_that_writes_may_read_little_of_the_past() -> None:
    space = filled(MAX_READ // 10 + 200, rounds=2)
    request = rpc_pb2.TxnRequest()
    request.success.add().request_range.CopyFrom(everything(revision=2, limit=1))
    with pytest.raises(RequestError) as refused:
        check_reads(space, request)
    assert refused.value.refusal is TOO_MUCH_READ


def test_compares_of_ranges_look_no_further_than_they_have_to_and_not_at_everything() -> None:
    space = filled(MAX_COMPARED // 10 + 1)
    absent, all_of_them = (rpc_pb2.TxnRequest() for _ in range(2))
    for _ in range(10):
        absent.compare.add(key=b"k/", range_end=b"k0", target=rpc_pb2.Compare.VERSION, result=rpc_pb2.Compare.EQUAL)
        compare = all_of_them.compare.add(key=b"k/", range_end=b"k0", target=rpc_pb2.Compare.VERSION)
        compare.result, compare.version = rpc_pb2.Compare.EQUAL, 1
    check_compares(space, absent)
    with pytest.raises(RequestError) as refused:
        check_compares(space, all_of_them)
    assert refused.value.refusal is TOO_MUCH_COMPARED


def test_the_size_of_rows_counts_too() -> None:
    """Two kilobytes that ask a hundred times for a thousand large values would fill the memory of every member."""
    pending = Pending(MemoryStore())
    space = KeySpace(pending)
    for key in range(20):
        space.put(b"k/%06d" % key, bytes(1 << 20), 0)
    space.commit()
    request = rpc_pb2.TxnRequest()
    request.success.add().request_range.CopyFrom(everything())
    with pytest.raises(RequestError) as refused:
        check_reads(space, request)
    assert refused.value.refusal is TOO_MUCH_READ
    for _ in range(19):
        request.success.add().request_range.CopyFrom(everything())
    scan = TxnScan(space, (), request)
    with pytest.raises(RequestError) as refused:
        _advance_to_the_end(scan)
    assert refused.value.refusal is TOO_MUCH_ANSWERED


def _advance_to_the_end(scan: TxnScan) -> None:
    while not scan.advance(1 << 20):
        pass
