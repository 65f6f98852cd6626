"""What a simulated replica reports of its node: by the outbox of replicas, over relays, into the members' state.

Batches are lost, come late, twice and by several ways, and so do the answers.

I23. What the cluster has under a key of a node is never older than what it has had. In the end it is what the node
     reported last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from holdfast.edge.notes import Notes
from holdfast.edge.outbox import Outbox
from holdfast.kv import requests
from holdfast.kv.space import KeySpace
from holdfast.member.interface import Answer, Propose, Read
from holdfast.proto import holdfast_pb2, kv_pb2, raft_pb2, rpc_pb2
from holdfast.reported import Known, Place, newest, packs, place_key, transaction

from holdfast_lab.sim.ledger import RequestLedger
from holdfast_lab.sim.mix import MS, SECOND
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.replicas import Followed
from holdfast_lab.sim.violation import check

KEYS = ("a", "b", "c")
INTERVAL_NS = SECOND
PATIENCE_NS = 5 * SECOND
LATE_NS = 15 * SECOND
TRIES = 4

Batches = list[holdfast_pb2.ReportedBatch]
Delivered = Callable[[bool], None]  # whether the cluster has them


class Truth:
    """What the cluster has had of each reported key: the newest value, and its revision."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[int, int]] = {}

    def seen(self, space: KeySpace, node: str) -> None:
        """What a member has now."""
        for name in KEYS:
            key = place_key(node) + b"/" + name.encode()
            kv = _at(space, key)
            if kv is None:
                continue
            revision, value = kv.mod_revision, int(kv.value)
            at, known = self._known.get(key, (0, 0))
            if revision > at:
                check(value >= known, "I23", f"{key!r} was {known} at revision {at}, and is {value} at {revision}")
                self._known[key] = revision, value


class SimReports:
    """The reports of one replica. `follows`: what it follows now, and its own reports if that is a replica. `sync`
    makes durable what the replica has written."""

    def __init__(
        self,
        ledger: RequestLedger,
        chance: Random,
        node: str,
        truth: Truth,
        *,
        follows: Callable[[], tuple[Followed | None, SimReports | None]],
        sync: Callable[[], None],
    ) -> None:
        self._world = ledger.world
        self._ledger = ledger
        self._chance = chance
        self._node = node
        self._truth = truth
        self._follows = follows
        self._sync = sync
        self._starts = 0
        self._number = 0  # of the last report, by the program that makes them
        self._last: dict[str, int] = {}
        self._below: list[tuple[Batches, Delivered]] = []
        self._outbox: Outbox | None = None
        self.hurried = False

    def started(self, notes: Notes, *, power_lost: bool = False) -> None:
        """The replica has started. Who waits for an answer gets none. With the power, reports may be lost."""
        first = self._outbox is None
        self._starts += 1
        self._below = []
        self._outbox = Outbox(notes, self._node, self._starts)
        if power_lost:
            batch = self._outbox.batch()
            self._last = {entry.key: int(entry.value) for entry in batch.entries} if batch is not None else {}
        if first:
            self._world.at(self._world.now + self._chance.randrange(INTERVAL_NS), self._work)

    def _work(self) -> None:
        if not self.hurried and self._chance.random() < 0.5:
            self._report()
        self._deliver()
        self._world.at(self._world.now + self._chance.randrange(INTERVAL_NS // 2, 2 * INTERVAL_NS), self._work)

    def _report(self) -> None:
        assert self._outbox is not None
        self._number += 1
        key = self._chance.choice(KEYS)
        self._last[key] = self._number
        self._outbox.put(holdfast_pb2.ReportedEntry(key=key, value=str(self._number).encode()))

    def _deliver(self) -> None:
        outbox, below = self._outbox, self._below
        assert outbox is not None
        self._below = []
        own = outbox.batch()
        if own is not None:
            self._make_durable()
        if own is None and not below:
            return

        def answered(has: bool) -> None:
            if own is not None and has and outbox is self._outbox:
                outbox.delivered(own)
            for _, delivered in below:
                delivered(has)

        batches = [*([own] if own is not None else []), *(batch for batches, _ in below for batch in batches)]
        self._send(newest(batches), answered)

    def _make_durable(self) -> None:
        self._sync()

    def _send(self, batches: Batches, answered: Delivered) -> None:
        if self._chance.random() < 0.1 and not self.hurried:
            self._world.sometimes("reports come late and twice")
            copies = [holdfast_pb2.ReportedBatch.FromString(batch.SerializeToString()) for batch in batches]
            late = self._chance.randrange(LATE_NS)
            self._world.at(self._world.now + late, self._arrive, copies, lambda _: None)
        if self._chance.random() < 0.1 and not self.hurried:
            answered = _lost
        self._world.at(self._world.now + 5 * MS, self._arrive, batches, answered)

    def _arrive(self, batches: Batches, answered: Delivered) -> None:
        """At what is followed now."""
        node, relay = self._follows()
        if relay is not None:
            self._world.sometimes("reports go over a replica")
            relay._below.append((batches, answered))
        elif isinstance(node, Node) and node.core is not None and not node.removed:
            _Entering(self._ledger, node, batches, answered, self._truth)

    def check_end(self, space: KeySpace) -> None:
        """All of it is in the cluster that a member with this state belongs to."""
        assert self._outbox is not None
        self._truth.seen(space, self._node)
        check(self._outbox.empty, "I23", f"the reports of {self._node} are not delivered in the end")
        for name, number in self._last.items():
            kv = _at(space, place_key(self._node) + b"/" + name.encode())
            value = 0 if kv is None else int(kv.value)
            check(value == number, "I23", f"{self._node} reported {name}={number} last, and the cluster has {value}")


def _lost(has: bool) -> None:
    """The answer does not arrive."""


class _Entering:
    """What a member does with batches: one transaction after the other, each tried again if another was in between."""

    def __init__(self, ledger: RequestLedger, node: Node, batches: Batches, answered: Delivered, truth: Truth) -> None:
        self._ledger = ledger
        self._node = node
        self._answered = answered
        self._truth = truth
        self._packs = list(packs(batches))
        self._tries = 0
        self._look()

    def _look(self) -> None:
        if not self._packs:
            self._answered(True)
            return
        self._tries += 1
        if self._tries <= TRIES:
            self._ledger.ask(self._node, Read(self._ledger.next_id(), self._deadline()), self._enter)

    def _deadline(self) -> int:
        return self._node.clock.local(self._ledger.world.now) + PATIENCE_NS

    def _enter(self, node: Node, answer: Answer) -> None:
        if answer.error is not None or node.core is None:
            return
        space, batches = node.core.machine.space, self._packs[0]
        self._see(batches)
        txn = transaction(batches, {batch.node: _known(space, batch.node) for batch in batches})
        if txn is None:
            self._entered()
            return
        command = raft_pb2.Command(txn=txn)
        self._ledger.ask(node, Propose(self._ledger.next_id(), command, self._deadline()), self._proposed)

    def _proposed(self, node: Node, answer: Answer) -> None:
        if answer.error is not None or not isinstance(answer.response, rpc_pb2.TxnResponse):
            return
        self._see(self._packs[0])
        if answer.response.succeeded:
            self._entered()
        else:
            self._look()

    def _entered(self) -> None:
        self._packs.pop(0)
        self._tries = 0
        self._look()

    def _see(self, batches: Iterable[holdfast_pb2.ReportedBatch]) -> None:
        if self._node.core is not None:
            for batch in batches:
                self._truth.seen(self._node.core.machine.space, batch.node)


def _at(space: KeySpace, key: bytes) -> kv_pb2.KeyValue | None:
    found = requests.range_now(space, rpc_pb2.RangeRequest(key=key)).kvs
    return found[0] if found else None


def _known(space: KeySpace, node: str) -> Known:
    kv = _at(space, place_key(node))
    return Known(Place(0, 0), 0) if kv is None else Known(Place.read(kv.value), kv.mod_revision)
