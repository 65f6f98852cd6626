"""The key space against a model that keeps every version in a dictionary."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import hypothesis.strategies as st
import pytest
from holdfast.keyrange import bounds, prefix_end, within
from holdfast.kv import requests, rows
from holdfast.kv import scan as scan_module
from holdfast.kv.pruning import HistoryPruner
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, MemoryStore, Pending
from holdfast.proto import kv_pb2, rpc_pb2
from holdfast.status import COMPACTED, FUTURE_REVISION, KEY_NOT_FOUND, LEASE_NOT_FOUND, Refusal, RequestError
from holdfast.storage.state import RocksStore
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

KEYS = [b"a", b"a\x00", b"a\x00\xff", b"ab", b"b", b"b/1", b"b/2", b"\xff", b"\xff\xff"]
keys = st.sampled_from(KEYS)
values = st.binary(max_size=3)


def read(space: KeySpace, **fields: object) -> rpc_pb2.RangeResponse:
    return requests.range_now(space, rpc_pb2.RangeRequest(**fields))  # type: ignore[arg-type]


class SpaceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.pending = Pending(self.store)
        self.space = KeySpace(self.pending)
        self.at: dict[int, dict[bytes, tuple[bytes, int, int, int]]] = {1: {}}  # value, create, mod, version

    def commit(self, new: dict[bytes, tuple[bytes, int, int, int]]) -> None:
        changes = self.space.commit()
        self.pending.flush()
        if changes:
            self.at[self.space.revision] = new
        assert self.space.revision == max(self.at)

    def now(self) -> dict[bytes, tuple[bytes, int, int, int]]:
        return dict(self.at[max(self.at)])

    @rule(key=keys, value=values)
    def put(self, key: bytes, value: bytes) -> None:
        model, revision = self.now(), max(self.at) + 1
        _, create, _, version = model.get(key, (b"", revision, 0, 0))
        model[key] = (value, create, revision, version + 1)
        requests.put(self.space, (), rpc_pb2.PutRequest(key=key, value=value))
        self.commit(model)

    @rule(key=keys, end=st.one_of(st.just(b""), st.just(b"\x00"), keys))
    def delete(self, key: bytes, end: bytes) -> None:
        low, high = bounds(key, end)
        model = self.now()
        gone = [k for k in model if within(k, low, high)]
        response = requests.delete_range(self.space, rpc_pb2.DeleteRangeRequest(key=key, range_end=end, prev_kv=True))
        assert [kv.key for kv in response.prev_kvs] == sorted(gone)
        for k in gone:
            del model[k]
        self.commit(model)

    @rule(pairs=st.dictionaries(keys, values, min_size=1, max_size=4))
    def txn(self, pairs: dict[bytes, bytes]) -> None:
        model, revision = self.now(), max(self.at) + 1
        request = rpc_pb2.TxnRequest()
        for key, value in pairs.items():
            request.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=key, value=value))
            _, create, _, version = model.get(key, (b"", revision, 0, 0))
            model[key] = (value, create, revision, version + 1)
        requests.txn(self.space, (), request)
        self.commit(model)

    @precondition(lambda self: max(self.at) > 3)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        revision = data.draw(st.integers(2, max(self.at)))
        if revision <= self.space.compacted:
            with pytest.raises(RequestError):
                self.space.compact(revision)
            return
        self.space.compact(revision)
        self.pending.flush()
        scrubber = HistoryPruner(self.space, self.store)
        while (removals := scrubber.advance(2)) is not None:
            self.store.apply(removals)
        self.at = {r: m for r, m in self.at.items() if r >= revision}

    @rule()
    def restart(self) -> None:
        self.pending = Pending(self.store)
        self.space = KeySpace(self.pending)

    @rule(key=keys, end=st.one_of(st.just(b""), st.just(b"\x00"), keys), limit=st.integers(0, 3), data=st.data())
    def range(self, key: bytes, end: bytes, limit: int, data: st.DataObject) -> None:
        revision = data.draw(st.sampled_from(sorted(self.at)))
        low, high = bounds(key, end)
        model = sorted((k, v) for k, v in self.at[revision].items() if within(k, low, high))
        found = read(self.space, key=key, range_end=end, revision=revision, limit=limit)
        wanted = model[:limit] if limit else model
        assert [(kv.key, (kv.value, kv.create_revision, kv.mod_revision, kv.version)) for kv in found.kvs] == wanted
        assert found.count == len(model)
        assert found.more == (limit > 0 and len(model) > limit)
        assert read(self.space, key=key, range_end=end, revision=revision, count_only=True).count == len(model)

    @rule()
    def history_explains_every_revision(self) -> None:
        """Applying the changes from the oldest readable revision on gives each later state; prev is what was before."""
        start = max(self.space.compacted, 1)
        state = {k: v[0] for k, v in self.at[start].items()} if start in self.at else {}
        history = self.space.history(start + 1, self.space.revision)
        for revision, changes in groupby(history, lambda found: found[0].revision):
            for change, _, version in changes:
                before = state.get(change.key)
                previous = self.space.previous(change.key, version)
                assert (kv_pb2.KeyValue.FromString(previous).value if previous is not None else None) == before
                assert change.create == (change.type == rows.PUT and before is None)
                if change.type == rows.PUT:
                    state[change.key] = kv_pb2.KeyValue.FromString(change.kv).value
                else:
                    del state[change.key]
            assert state == {k: v[0] for k, v in self.at[revision].items()}

    @invariant()
    def compacted_and_future_are_refused(self) -> None:
        with pytest.raises(RequestError) as future:
            read(self.space, key=b"a", revision=max(self.at) + 1)
        assert future.value.refusal is FUTURE_REVISION
        if self.space.compacted > 1:
            with pytest.raises(RequestError) as past:
                read(self.space, key=b"a", revision=self.space.compacted - 1)
            assert past.value.refusal is COMPACTED


SpaceMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSpace = SpaceMachine.TestCase


def fresh() -> tuple[KeySpace, Pending]:
    pending = Pending(MemoryStore())
    return KeySpace(pending), pending


def hashed(space: KeySpace, slice: int) -> tuple[int, int, int]:
    scan = space.hash(0)
    while not scan.advance(slice):
        pass
    return scan.result(), scan.compacted, scan.revision


def test_hash_is_the_same_before_and_after_scrubbing_and_however_it_is_sliced() -> None:
    space, pending = fresh()
    for n in range(30):
        requests.put(space, (), rpc_pb2.PutRequest(key=b"k%d" % (n % 4), value=b"%d" % n))
        space.commit()
        if n % 7 == 0:
            requests.delete_range(space, rpc_pb2.DeleteRangeRequest(key=b"k1"))
            space.commit()
    pending.flush()
    space.compact(20)
    pending.flush()
    before = hashed(space, 1000)
    assert hashed(space, 1) == hashed(space, 7) == before
    scrubber = HistoryPruner(space, pending.store)
    removed = 0
    while (removals := scrubber.advance(3)) is not None:
        removed += len(removals)
        pending.store.apply(removals)
    assert removed > 0
    assert hashed(space, 5) == before


def test_a_hash_is_of_its_revision_whatever_is_written_while_it_is_made(tmp_path: Path) -> None:
    pending = Pending(RocksStore(tmp_path))
    space = KeySpace(pending)

    def put(n: int) -> None:
        requests.put(space, (), rpc_pb2.PutRequest(key=b"k%d" % (n % 5), value=b"%d" % n))
        space.commit()
        pending.flush()

    for n in range(40):
        put(n)
    space.compact(20)
    pending.flush()
    scan = space.hash(0)
    while not scan.advance(3):
        put(n := n + 1)
    again = space.hash(scan.revision)
    assert scan.revision == 41 < space.revision
    assert again.advance(1000)
    assert again.result() == scan.result()


@pytest.mark.parametrize("passed_over", [1, 2, 5, 1000])
def test_history_is_read_right_however_it_is_sought(passed_over: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "PASSED_OVER", passed_over)
    space, pending = fresh()
    at: dict[int, dict[bytes, bytes]] = {1: {}}
    names = [b"a", b"a\x00", b"a\x00\xff", b"b", b"\x00", b"\xff"]
    chance = random.Random(1)
    for n in range(300):
        key = chance.choice(names[:2] if chance.random() < 0.7 else names)
        state = dict(at[space.revision])
        if chance.random() < 0.2:
            requests.delete_range(space, rpc_pb2.DeleteRangeRequest(key=key))
            state.pop(key, None)
        else:
            requests.put(space, (), rpc_pb2.PutRequest(key=key, value=b"%d" % n))
            state[key] = b"%d" % n
        space.commit()
        pending.flush()
        at[space.revision] = state
    for revision, state in at.items():
        for start, end in ((b"\x00", b"\x00"), (b"a", b"b"), (b"a", b""), (b"a\x00", b"\x00")):
            low, high = bounds(start, end)
            scan = space.scan(rpc_pb2.RangeRequest(key=start, range_end=end, revision=revision))
            while not scan.advance(3):
                pass
            found = [kv_pb2.KeyValue.FromString(kv) for kv in scan.result()[0]]
            expected = sorted((k, v) for k, v in state.items() if k >= low and (high is None or k < high))
            assert [(kv.key, kv.value) for kv in found] == expected, (revision, start, end)
    for key in names:
        newest = None
        for revision in range(1, space.revision + 1):
            if at[revision].get(key) != at.get(revision - 1, {}).get(key):
                newest = revision
            found_at = scan_module.newest_at(pending, key, revision)
            assert (found_at[0] if found_at else None) == newest


class Counting:
    """A reader that counts the rows that are looked at."""

    def __init__(self, reader: Pending) -> None:
        self._reader = reader
        self.rows = 0

    def get(self, family: Family, key: bytes) -> bytes | None:
        self.rows += 1
        return self._reader.get(family, key)

    def scan(self, family: Family, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        for row in self._reader.scan(family, start, end):
            self.rows += 1
            yield row


def test_what_the_past_costs_does_not_grow_with_what_came_after() -> None:
    space, pending = fresh()
    for n in range(2000):
        requests.put(space, (), rpc_pb2.PutRequest(key=b"k%d" % (n % 2), value=b"%d" % n))
        space.commit()
    pending.flush()
    counting = Counting(pending)
    assert scan_module.newest_at(counting, b"k0", 1000) == (1000, 0)
    assert counting.rows == 1
    counting.rows = 0
    request = rpc_pb2.RangeRequest(key=b"k", range_end=b"l", revision=1000)
    scan = scan_module.RangeScan(counting, request, revision=1000, count=None)
    assert scan.advance(1000)
    assert len(scan.result()[0]) == 2
    assert counting.rows < 60


def test_a_refused_txn_leaves_no_trace() -> None:
    space, _ = fresh()
    request = rpc_pb2.TxnRequest()
    request.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=b"a", value=b"1"))
    request.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=b"b", value=b"1", lease=99))
    with pytest.raises(RequestError) as refused:
        requests.txn(space, {1}, request)
    assert refused.value.refusal is LEASE_NOT_FOUND
    assert space.commit() == []
    assert space.get(b"a") is None


def test_a_missing_key_has_no_value_to_compare() -> None:
    space, _ = fresh()
    for result in (0, 1, 2, 3):
        request = rpc_pb2.TxnRequest()
        request.compare.add(key=b"no", target=rpc_pb2.Compare.VALUE, value=b"x").result = result  # type: ignore[assignment]
        assert not requests.txn(space, (), request).succeeded


def test_later_operations_of_a_txn_see_earlier_ones() -> None:
    space, _ = fresh()
    request = rpc_pb2.TxnRequest()
    request.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=b"a", value=b"1"))
    request.success.add().request_range.CopyFrom(rpc_pb2.RangeRequest(key=b"a"))
    request.success.add().request_delete_range.CopyFrom(rpc_pb2.DeleteRangeRequest(key=b"b"))
    response = requests.txn(space, (), request)
    assert response.responses[1].response_range.kvs[0].value == b"1"
    assert [r.response_range.header.revision or r.response_put.header.revision for r in response.responses[:2]] == [
        2,
        2,
    ]
    assert len(space.commit()) == 1
    assert space.revision == 2


def test_prefix_end() -> None:
    assert prefix_end(b"a") == b"b"
    assert prefix_end(b"a\xff") == b"b"
    assert prefix_end(b"\xff") == b"\x00"


def test_sorting_and_filters() -> None:
    space, _ = fresh()
    for key, value in ((b"a", b"3"), (b"b", b"1"), (b"c", b"2"), (b"a", b"4")):
        requests.put(space, (), rpc_pb2.PutRequest(key=key, value=value))
        space.commit()
    r = rpc_pb2.RangeRequest

    def names(**fields: object) -> list[bytes]:
        return [kv.key for kv in read(space, key=b"\x00", range_end=b"\x00", **fields).kvs]

    assert names(sort_order=r.DESCEND, sort_target=r.KEY) == [b"c", b"b", b"a"]
    assert names(sort_order=r.ASCEND, sort_target=r.VALUE) == [b"b", b"c", b"a"]
    assert names(sort_order=r.DESCEND, sort_target=r.MOD, limit=1) == [b"a"]
    assert names(sort_order=r.ASCEND, sort_target=r.VERSION) == [b"b", b"c", b"a"]
    assert names(min_mod_revision=4) == [b"a", b"c"]
    assert names(max_create_revision=3) == [b"a", b"b"]
    assert names(min_mod_revision=4, limit=1) == [b"a"]
    # NONE with another target than the key: cut in key order first, then sorted.
    assert names(sort_order=r.NONE, sort_target=r.VALUE, limit=2) == [b"b", b"a"]


@pytest.mark.parametrize(("level", "refusal"), [(1, LEASE_NOT_FOUND), (2, KEY_NOT_FOUND)])
def test_of_two_faults_of_a_put_a_transaction_tells_the_key_first(level: int, refusal: Refusal) -> None:
    """As etcd does; a put by itself tells of the lease, and so did transactions of level 1."""
    pending = Pending(MemoryStore())
    request = rpc_pb2.TxnRequest()
    put = request.success.add().request_put
    put.key, put.lease, put.ignore_value = b"none", 7, True
    with pytest.raises(RequestError) as refused:
        requests.txn(KeySpace(pending), (), request, level)
    assert refused.value.refusal == refusal
    with pytest.raises(RequestError) as refused:
        requests.put(KeySpace(pending), (), put)
    assert refused.value.refusal == LEASE_NOT_FOUND
