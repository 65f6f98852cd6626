"""What a node reports is in the cluster in the end, and nothing older ever takes the place of something newer: whatever
is lost, comes twice, or late, and however often the node loses its power."""

from __future__ import annotations

import re
from random import Random

import pytest
from holdfast.edge.notes import Notes
from holdfast.edge.outbox import Outbox
from holdfast.kv import requests
from holdfast.kv.space import KeySpace
from holdfast.kv.store import MemoryStore, Pending
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.reported import (
    MAX_KEYS,
    MAX_VALUE,
    Known,
    Place,
    check_batches,
    check_entry,
    newest,
    packs,
    place_key,
    transaction,
)
from holdfast.status import RequestError

KEYS = ("a", "b", "c/d")


def entry(key: str, value: bytes = b"", *, deleted: bool = False) -> holdfast_pb2.ReportedEntry:
    return holdfast_pb2.ReportedEntry(key=key, value=value, deleted=deleted)


def notes_in(store: MemoryStore) -> Notes:
    pending = Pending(store)
    return Notes(lambda: [pending])


class Cluster:
    def __init__(self) -> None:
        self.space = KeySpace(Pending(MemoryStore()))

    def value(self, key: bytes) -> bytes | None:
        kvs = requests.range_now(self.space, rpc_pb2.RangeRequest(key=key)).kvs
        return kvs[0].value if kvs else None

    def known(self, node: str) -> Known:
        kvs = requests.range_now(self.space, rpc_pb2.RangeRequest(key=place_key(node))).kvs
        return Known(Place.read(kvs[0].value), kvs[0].mod_revision) if kvs else Known(Place(0, 0), 0)

    def take(self, *batches: holdfast_pb2.ReportedBatch, known: dict[str, Known] | None = None) -> bool:
        """Returns whether they are in."""
        txn = transaction(newest(batches), known or {b.node: self.known(b.node) for b in batches})
        if txn is None:
            return True
        succeeded = requests.txn(self.space, (), txn).succeeded
        self.space.commit()
        return succeeded


class Node:
    """One node, its disk, the batches under way, and the cluster. Values grow."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.cluster = Cluster()
        self.store = MemoryStore()
        self.synced = self.store.snapshot()
        self.starts = 0
        self.number = 0
        self.expected: dict[str, int] = dict.fromkeys(KEYS, 0)  # what the cluster has in the end; 0: nothing
        self.seen: dict[str, int] = dict.fromkeys(KEYS, 0)
        self.under_way: list[holdfast_pb2.ReportedBatch] = []
        self.looked: list[tuple[holdfast_pb2.ReportedBatch, dict[str, Known]]] = []
        self.end()

    def report(self) -> None:
        self.number += 1
        key = self.chance.choice(KEYS)
        self.outbox.put(entry(key, b"%d" % self.number))
        self.expected[key] = self.number

    def send(self) -> None:
        batch = self.outbox.batch()
        if batch is not None:
            self.synced = self.store.snapshot()  # durable first
            copy = holdfast_pb2.ReportedBatch()
            copy.CopyFrom(batch)
            self.under_way = [*self.under_way, copy][-6:]

    def arrive(self) -> None:
        """One of them, whichever; it may come again."""
        if self.under_way:
            batch = self.chance.choice(self.under_way)
            assert self.cluster.take(batch)
            if self.chance.random() < 0.5 and batch.incarnation == self.outbox.incarnation:
                self.outbox.delivered(batch)

    def look(self) -> None:
        """A member looks what is in, and proposes later."""
        if self.under_way:
            self.looked.append((self.chance.choice(self.under_way), {"n": self.cluster.known("n")}))

    def propose(self) -> None:
        if self.looked:
            batch, known = self.looked.pop(0)
            self.cluster.take(batch, known=known)

    def end(self) -> None:
        """kill -9, and a start."""
        self.starts += 1
        self.outbox = Outbox(notes_in(self.store), "n", self.starts)

    def lose_power(self) -> None:
        self.store = self.synced.snapshot()
        self.end()
        waiting = self.outbox.batch() or holdfast_pb2.ReportedBatch()
        kept = {e.key: int(e.value) for e in waiting.entries}
        # Of what was sent, the cluster may have it, or get it yet.
        sent = {e.key: int(e.value) for batch in self.under_way for e in batch.entries}
        self.expected = {key: kept.get(key, max(self.value(key), sent.get(key, 0))) for key in KEYS}

    def value(self, key: str) -> int:
        return int(self.cluster.value(place_key("n") + b"/" + key.encode()) or b"0")

    def check(self) -> None:
        for key in KEYS:
            now = self.value(key)
            assert now >= self.seen[key], f"{key} went back from {self.seen[key]} to {now}"
            self.seen[key] = now

    def finish(self) -> None:
        """In the end all that waits is delivered."""
        for batch in (*self.under_way, self.outbox.batch()):
            if batch is not None:
                assert self.cluster.take(batch)
                self.check()
        assert {key: self.value(key) for key in KEYS} == self.expected


@pytest.mark.parametrize("seed", range(200))
def test_the_newest_report_is_in_the_cluster_in_the_end_and_nothing_goes_back(seed: int) -> None:
    chance = Random(seed)
    node = Node(chance)
    steps = (node.report, node.send, node.arrive, node.look, node.propose, node.end, node.lose_power)
    for _ in range(80):
        (step,) = chance.choices(steps, (6, 5, 5, 3, 3, 1, 1))
        step()
        node.check()
    node.finish()


def test_what_is_reported_while_a_batch_is_under_way_waits() -> None:
    store = MemoryStore()
    outbox = Outbox(notes_in(store), "n", 7)
    outbox.put(entry("a", b"1"))
    outbox.put(entry("b", b"1"))
    batch = outbox.batch()
    assert batch is not None
    outbox.put(entry("a", b"2"))
    outbox.delivered(batch)
    left = outbox.batch()
    assert left is not None
    assert [(e.key, e.value) for e in left.entries] == [("a", b"2")]
    again = Outbox(notes_in(store), "n", 8).batch()
    assert again is not None
    assert (again.incarnation, [(e.key, e.value) for e in again.entries]) == (8, [("a", b"2")])


def test_what_is_not_reported_any_more_goes() -> None:
    cluster, outbox = Cluster(), Outbox(notes_in(MemoryStore()), "n", 1)
    for told in (entry("a", b"1"), entry("a", deleted=True)):
        outbox.put(told)
        batch = outbox.batch()
        assert batch is not None
        assert cluster.take(batch)
        outbox.delivered(batch)
    assert cluster.value(b"/reported/n/a") is None
    assert cluster.value(b"/reported/n") == b"1.2"


def test_batches_share_transactions_that_are_not_too_large() -> None:
    batches = [
        holdfast_pb2.ReportedBatch(node=f"n{n}", seq=1, entries=[entry(f"k{k}") for k in range(40)]) for n in range(7)
    ]
    packed = list(packs(batches))
    assert [batch.node for pack in packed for batch in pack] == [batch.node for batch in batches]
    for pack in packed:
        txn = transaction(pack, {batch.node: Known(Place(0, 0), 0) for batch in pack})
        assert txn is not None
        assert len(txn.success) <= 128
    assert len(packed) == 4


def test_what_waits_is_bounded() -> None:
    outbox = Outbox(notes_in(MemoryStore()), "n", 1)
    for n in range(MAX_KEYS):
        outbox.put(entry(f"k{n}"))
    with pytest.raises(RequestError, match="wait to be delivered"):
        outbox.put(entry("more"))
    outbox.put(entry("k0", b"newer"))


@pytest.mark.parametrize(
    "bad", [entry(""), entry("/a"), entry("a b"), entry("a\n"), entry("x" * 201), entry("a", bytes(MAX_VALUE + 1))]
)
def test_what_is_no_report(bad: holdfast_pb2.ReportedEntry) -> None:
    with pytest.raises(RequestError, match="a report is invalid"):
        check_entry(bad)


def test_a_batch_has_one_report_of_a_key() -> None:
    """A transaction that puts a key twice is refused, with all that is in it."""
    batch = holdfast_pb2.ReportedBatch(node="n", entries=[entry("a", b"1"), entry("a", b"2")])
    with pytest.raises(RequestError, match="several reports of one key"):
        check_batches(holdfast_pb2.DeliverRequest(batches=[batch]))


@pytest.mark.parametrize("node", ["", "a/b", "a b", "x" * 254, "a\x00"])
def test_what_is_no_node(node: str) -> None:
    with pytest.raises(RequestError, match=re.escape("a report is invalid: the node")):
        check_batches(holdfast_pb2.DeliverRequest(batches=[holdfast_pb2.ReportedBatch(node=node)]))
