"""A transaction that reads much is answered in slices, as if at once; and one that writes may not read much."""

from __future__ import annotations

import random

import pytest
from holdfast.kv import requests
from holdfast.kv import txn_scan as module
from holdfast.kv.slices import Sliced
from holdfast.kv.space import WRITTEN, KeySpace
from holdfast.kv.store import MemoryStore, Pending
from holdfast.kv.txn_check import MAX_COMPARED, MAX_READ, TOO_MUCH_COMPARED, TOO_MUCH_READ, TxnCheck
from holdfast.kv.txn_scan import TOO_MUCH_ANSWERED, TxnScan
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


def check(space: KeySpace, request: rpc_pb2.TxnRequest) -> int:
    work = TxnCheck(space, request)
    to_the_end(work)
    return work.cost


def to_the_end(work: Sliced) -> None:
    while not work.advance(1 << 20):
        pass


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


def any_compare(rng: random.Random) -> rpc_pb2.Compare:
    C = rpc_pb2.Compare
    compare = C(key=b"k/%06d" % rng.randrange(40))
    compare.result = rng.choice([C.EQUAL, C.GREATER, C.LESS, C.NOT_EQUAL])
    compare.range_end = rng.choice((b"", b"", b"k0", b"\x00", b"k/000020"))
    field = rng.choice(("version", "create_revision", "mod_revision", "lease", "value"))
    compare.target = {"version": C.VERSION, "create_revision": C.CREATE, "mod_revision": C.MOD}.get(
        field, C.LEASE if field == "lease" else C.VALUE
    )
    setattr(compare, field, b"2.%d" % rng.randrange(40) if field == "value" else rng.randrange(5))
    return compare


@pytest.mark.parametrize("seed", range(40))
def test_in_slices_it_is_answered_as_at_once_whatever_is_written_meanwhile(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", seed % 2)
    rng = random.Random(seed)
    space = filled(30, rounds=3)
    request = rpc_pb2.TxnRequest()
    compare = request.compare.add(key=b"k/", range_end=b"k0", target=rpc_pb2.Compare.MOD, result=rng.choice((0, 1)))
    compare.mod_revision = rng.choice((2, 4))
    for ops in (request.success, request.failure):
        for _ in range(3):
            ops.add().request_range.CopyFrom(any_range(rng, space.revision))
        ops.add().request_txn.success.add().request_range.CopyFrom(any_range(rng, space.revision))
    for _ in range(3):
        nested = request.failure.add().request_txn
        nested.compare.add().CopyFrom(any_compare(rng))
        nested.success.add().request_range.CopyFrom(any_range(rng, space.revision))
    request.compare.add().CopyFrom(any_compare(rng))
    wanted = requests.txn(space, (), request)
    scan = TxnScan(space, request)
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
    scan = TxnScan(space, request)
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
    check(space, few)
    with pytest.raises(RequestError) as refused:
        check(space, many)
    assert refused.value.refusal is TOO_MUCH_READ
    # What is cut by its limit, or only counted, is little, however many keys there are.
    little = rpc_pb2.TxnRequest()
    for _ in range(100):
        little.success.add().request_range.CopyFrom(everything(limit=50))
        little.success.add().request_range.CopyFrom(everything(count_only=True))
    check(space, little)


def test_one_that_writes_may_read_little_of_the_past() -> None:
    space = filled(MAX_READ // 10 + 200, rounds=2)
    request = rpc_pb2.TxnRequest()
    request.success.add().request_range.CopyFrom(everything(revision=2, limit=1))
    with pytest.raises(RequestError) as refused:
        check(space, request)
    assert refused.value.refusal is TOO_MUCH_READ


def test_compares_of_ranges_look_no_further_than_they_have_to_and_not_at_everything() -> None:
    space = filled(MAX_COMPARED // 10 + 1)
    absent, all_of_them = (rpc_pb2.TxnRequest() for _ in range(2))
    for _ in range(10):
        absent.compare.add(key=b"k/", range_end=b"k0", target=rpc_pb2.Compare.VERSION, result=rpc_pb2.Compare.EQUAL)
        compare = all_of_them.compare.add(key=b"k/", range_end=b"k0", target=rpc_pb2.Compare.VERSION)
        compare.result, compare.version = rpc_pb2.Compare.EQUAL, 1
    check(space, absent)
    with pytest.raises(RequestError) as refused:
        check(space, all_of_them)
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
        check(space, request)
    assert refused.value.refusal is TOO_MUCH_READ
    for _ in range(19):
        request.success.add().request_range.CopyFrom(everything())
    scan = TxnScan(space, request)
    with pytest.raises(RequestError) as refused:
        to_the_end(scan)
    assert refused.value.refusal is TOO_MUCH_ANSWERED


def test_compares_are_made_in_slices() -> None:
    """Two hundred transactions of 180 bytes, each with a compare of 9,990 keys, held up the loop for 46 seconds."""
    space = filled(5000)
    for writes in (False, True):
        request = rpc_pb2.TxnRequest()
        compare = request.compare.add(key=b"k/", range_end=b"k0", target=rpc_pb2.Compare.CREATE)
        compare.result = rpc_pb2.Compare.GREATER
        if writes:
            request.success.add().request_put.key = b"w"
        work: Sliced = TxnCheck(space, request) if writes else TxnScan(space, request)
        slices = 1
        before = space.looked_at
        while not work.advance(100):
            slices += 1
        assert slices >= 50
        assert space.looked_at == before  # nothing was looked at in one go


def test_branches_of_nested_transactions_are_counted_in_slices() -> None:
    """At each of forty levels the other branch reads 9,000 keys, of which none are read when it is executed."""
    space = filled(900)
    request = inner = rpc_pb2.TxnRequest()
    for _ in range(40):
        inner.failure.add().request_range.CopyFrom(everything())
        inner = inner.success.add().request_txn
    inner.success.add().request_put.key = b"w"
    work, slices = TxnCheck(space, request), 1
    while not work.advance(1000):
        slices += 1
    assert slices >= 30
    assert work.cost == 900 + WRITTEN


def test_the_cost_of_one_that_writes_is_what_executing_it_takes() -> None:
    space = filled(300)
    request = rpc_pb2.TxnRequest()
    compare = request.compare.add(key=b"k/", range_end=b"k/000200", target=rpc_pb2.Compare.VERSION)
    compare.result, compare.version = rpc_pb2.Compare.EQUAL, 1
    request.success.add().request_range.CopyFrom(everything())
    request.success.add().request_delete_range.CopyFrom(rpc_pb2.DeleteRangeRequest(key=b"k/", range_end=b"k/000050"))
    request.success.add().request_put.key = b"w"
    cost, before = check(space, request), space.looked_at
    requests.txn(space, (), request)
    assert space.looked_at - before == cost == 200 + 300 + 50 * WRITTEN + WRITTEN


def test_while_it_is_checked_keys_may_come_and_go() -> None:
    space = filled(500)
    request = rpc_pb2.TxnRequest()
    request.compare.add(key=b"k/", range_end=b"k0", target=rpc_pb2.Compare.LEASE)
    request.success.add().request_range.CopyFrom(everything())
    work, n = TxnCheck(space, request), 0
    while not work.advance(7):
        n += 1
        space.put(b"k/%06d/" % n, b"new", 0)
        space.delete(b"k/%06d" % (3 * n))
        space.commit()
    assert 900 <= work.cost <= 1100
