"""Clients that cache consistently: none may show an old value from its copy while it believes that its lease lasts."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from holdfast.client.copy_lease import CopyLease
from holdfast.keyrange import within
from holdfast.machine.cachable import prefix_range
from holdfast.member.interface import Answer, CacheGiven, HoldCache, Propose, ReleaseCache
from holdfast.proto import holdfast_pb2, raft_pb2

from holdfast_lab.sim.ledger import RequestLedger
from holdfast_lab.sim.mix import MS, SECOND
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.violation import check

PREFIXES = (b"k3", b"k/", b"k1", b"z/")
PATIENCE_NS = 4 * SECOND


class Declarer:
    """Declares prefixes as cachable, and takes some back for a while."""

    def __init__(self, ledger: RequestLedger, prefixes: tuple[bytes, ...]) -> None:
        self._ledger = ledger
        self._world = ledger.world
        self._chance = self._world.chance("cachable")
        for prefix in prefixes:
            self._world.at(self._world.now + self._chance.randrange(3 * SECOND), self._declare, prefix, True)

    def _declare(self, prefix: bytes, allowed: bool) -> None:
        world = self._world

        def answered(_: Node, answer: Answer) -> None:
            if answer.error is not None and allowed:
                world.at(world.now + SECOND, self._declare, prefix, True)
            elif self._chance.random() < 0.6:
                pause = self._chance.randrange(2 * SECOND if not allowed else 15 * SECOND)
                world.at(world.now + pause, self._declare, prefix, not allowed)

        nodes = self._ledger.nodes()
        if not nodes:
            world.at(world.now + SECOND, self._declare, prefix, allowed)
            return
        node = self._chance.choice(nodes)
        change = raft_pb2.Command(cachable=raft_pb2.CachablePrefix(prefix=prefix, allowed=allowed))
        deadline = node.clock.local(world.now) + PATIENCE_NS
        self._ledger.ask(node, Propose(self._ledger.next_id(), change, deadline), answered)


class SimCache:
    """One client with a copy of a prefix. Messages take a while, in order; the client may be frozen, and its clock be
    slower than the members'."""

    def __init__(self, ledger: RequestLedger, number: int, prefix: bytes, rate: Callable[[float], float]) -> None:
        self._ledger = ledger
        self._world = ledger.world
        self._nodes = ledger.nodes
        self._chance: Random = self._world.chance(f"cache/{number}")
        self._rate = rate(self._chance.random())
        self._prefix = prefix
        self._range = prefix_range(prefix)
        self._copy = 0  # the revision of the copy
        self._node: Node | None = None
        self._stream = 0
        self._lease = CopyLease(b"", b"")
        self._frozen_until = 0
        self._last_sent = self._last_told = 0  # times at which the newest messages arrive, each way
        self._world.at(self._world.now + self._chance.randrange(4 * SECOND), self._connect)
        self._world.at(self._world.now + SECOND, self._live)

    def _now(self) -> float:
        return self._world.now * self._rate / 1e9

    # ---- the connection ------------------------------------------------------------------------------------

    def _connect(self) -> None:
        nodes = self._nodes()
        if self._node is not None or not nodes:
            self._world.at(self._world.now + 300 * MS, self._connect)
            return
        leaders = [n for n in nodes if n.core is not None and n.core.is_leader]
        self._node = self._chance.choice(leaders if leaders and self._chance.random() < 0.7 else nodes)
        self._stream = self._ledger.next_id()
        start, end = self._range
        self._lease = CopyLease(start, end or b"\x00")
        self._renew(self._stream)

    def _renew(self, stream: int) -> None:
        """Ask for more time, again and again."""
        if stream != self._stream or self._node is None:
            return
        if self._frozen_until > self._world.now:
            self._world.at(self._frozen_until, self._renew, stream)
            return
        self._send(self._lease.ask(self._now()))
        self._world.at(self._world.now + 600 * MS, self._renew, stream)

    def _send(self, request: holdfast_pb2.CacheHoldRequest) -> None:
        node = self._node
        if node is None:
            return  # the connection is lost, which the client has not noticed yet
        item = HoldCache(self._stream, request.key, request.range_end, request.number, request.acknowledged)
        self._last_sent = max(self._last_sent + 1, self._world.now + self._delay())
        self._world.at(self._last_sent, self._arrive, node, node.core, item)

    def _arrive(self, node: Node, core: object, item: HoldCache | ReleaseCache) -> None:
        if node.core is core:  # otherwise the connection is lost
            node.give(item)

    def _delay(self) -> int:
        slow = self._chance.random() < 0.05
        return MS + int(self._chance.random() * (1500 * MS if slow else 20 * MS))

    def told(self, node: Node, given: CacheGiven) -> None:
        """A member sends this to one of the clients."""
        if given.id == self._stream:
            self._last_told = max(self._last_told + 1, self._world.now + self._delay())
            self._world.at(self._last_told, self._take, given)

    def _take(self, given: CacheGiven) -> None:
        if given.id != self._stream:
            return
        if self._frozen_until > self._world.now:
            self._world.at(self._frozen_until, self._take, given)
            return
        self._read()
        if given.refused is not None:
            self._leave()
            return
        response = holdfast_pb2.CacheHoldResponse(
            number=given.number,
            lease_ms=given.lease_ms,
            revision=given.revision,
            invalidations=given.invalidations,
        )
        if self._lease.take(response):
            self._world.sometimes("copy invalidated")
            self._send(self._lease.ask(self._now()))
        elif given.number:
            self._world.sometimes("cache lease given")

    def _leave(self) -> None:
        self._lease.end()
        self._node, self._stream = None, 0
        self._world.at(self._world.now + self._chance.randrange(2 * SECOND), self._connect)

    def gone(self, node: Node) -> None:
        """The member's process has ended. The client may notice that late, and its lease lasts until then."""
        if node is self._node:
            self._node = None
            self._world.at(self._world.now + self._chance.randrange(3 * SECOND), self._lost, self._stream)

    def _lost(self, stream: int) -> None:
        if stream == self._stream:
            self._leave()

    # ---- life ----------------------------------------------------------------------------------------------

    def _live(self) -> None:
        if self._frozen_until <= self._world.now:
            self._read()
            self._follow()
            draw = self._chance.random()
            if draw < 0.01:
                self._frozen_until = self._world.now + self._chance.randrange(5 * SECOND)
                self._world.at(self._frozen_until, self._read)
            elif draw < 0.015 and self._node is not None:
                self._close()
        self._world.at(self._world.now + MS + self._chance.randrange(150 * MS), self._live)

    def _close(self) -> None:
        """End the stream: mostly in words, and sometimes the connection is just lost."""
        node, done = self._node, self._chance.random() < 0.7
        assert node is not None
        self._last_sent = max(self._last_sent + 1, self._world.now + self._delay())
        self._world.at(self._last_sent, self._arrive, node, node.core, ReleaseCache(self._stream, done))
        if done:
            self._lease.end()
            self._leave()
        else:
            self._node = None
            self._world.at(self._world.now + self._chance.randrange(3 * SECOND), self._lost, self._stream)

    def _follow(self) -> None:
        """The copy follows the watch of some member."""
        nodes = self._nodes()
        if nodes and self._chance.random() < 0.8:
            core = self._chance.choice(nodes).core
            assert core is not None
            self._copy = max(self._copy, core.machine.space.revision)

    def _read(self) -> None:
        """Read from the copy, if the lease allows it: nobody may have applied a change of it that the copy lacks."""
        lease, oracle = self._lease, self._ledger.oracle
        if self._frozen_until > self._world.now or not lease.current(self._copy, self._now()):
            return
        self._world.sometimes("read from a copy")
        missed = [c for c in oracle.events[oracle.position(self._copy) :] if within(c.key, *self._range)]
        check(
            not missed,
            "I18",
            f"a copy of {self._prefix!r} at revision {self._copy} is read under a lease of {lease.revision}, although "
            f"{missed[:1]} was applied",
        )
