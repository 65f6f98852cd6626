"""A session of a simulated process: the `Space` that recipes run over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from holdfast.client.errors import OutcomeUnknown, Refused, Unavailable, refusal
from holdfast.kv.rows import DELETE
from holdfast.member.interface import Answer, KeepAlive, Propose
from holdfast.proto import kv_pb2, raft_pb2, rpc_pb2
from holdfast.recipes.liveness import Liveness, State
from holdfast.recipes.space import SessionLost, Wanted
from holdfast.status import (
    LEASE_NOT_FOUND,
    SESSION_ENDED,
    STOPPED,
    TIMEOUT,
    TIMEOUT_LEADER_FAILED,
    Code,
    Refusal,
)
from holdfast.watch.hub import Delivery, Events, Progress
from holdfast.watch.watcher import Watcher

from holdfast_lab.sim.apps.process import Process
from holdfast_lab.sim.apps.tasks import Waiting
from holdfast_lab.sim.ledger import RequestLedger
from holdfast_lab.sim.mix import MS, SECOND
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.violation import check

GRACE_SECONDS = 6.0
ATTEMPT_NS = 1500 * MS
CALL_NS = 5 * SECOND
_STATUS = {status.value[0]: status for status in grpc.StatusCode}
_UNKNOWN = (TIMEOUT, TIMEOUT_LEADER_FAILED, STOPPED)


class SimSpace:
    """One session of one process, until it is closed. `numbered`: its writes have numbers, as with holdfast's client
    sessions; else a lost answer means an unknown outcome, as with etcd."""

    def __init__(
        self, process: Process, ledger: RequestLedger, streams: dict[int, Any], number: int, *, numbered: bool
    ) -> None:
        self.process = process
        self.lock_delay = 0
        self.closed = False  # by the process itself, so there is no delay
        self._ledger = ledger
        self._world = ledger.world
        self._streams = streams
        self._number = number
        self._numbered = numbered
        self._lease = 0
        self._liveness: Liveness | None = None
        self._told = State.SAFE
        self._seq = 0
        self._outstanding: set[int] = set()
        self._waits: dict[Waiting[Any], None] = {}  # a set in a fixed order
        self._until_safe: list[Waiting[None]] = []
        self._connected: Node | None = None

    # ---- the session ---------------------------------------------------------------------------------------

    async def open(self, ttl: int, lock_delay: int = 0) -> None:
        """Grant the lease. Raises a ClientError."""
        self.lock_delay = lock_delay
        asked = self.now()
        id = 0x10000 * (self._number + 1) + self._ledger.next_id()
        grant = raft_pb2.LeaseGrant(id=id, ttl_seconds=ttl, delay_seconds=lock_delay)
        answer = await self._ask(raft_pb2.Command(lease_grant=grant), None)
        assert isinstance(answer.response, rpc_pb2.LeaseGrantResponse)
        self._lease = answer.response.ID
        self._liveness = Liveness(asked, answer.response.TTL, GRACE_SECONDS)
        self._told = State.SAFE
        self._renew_later(ttl * SECOND // 3)
        self._look()

    def _renew_later(self, nanoseconds: int) -> None:
        self.process.at(nanoseconds, self._renew)

    def _renew(self) -> None:
        """Ask for a renewal, and again soon if no answer comes."""
        if self.state() is State.EXPIRED:
            return
        node = self._node()
        if node is not None:
            id, asked = self._ledger.next_id(), self.now()
            deadline = node.clock.local(self._world.now) + CALL_NS

            self._send(node, KeepAlive(id, self._lease, False, deadline), lambda answer: self._renewed(asked, answer))
            self._connected = None  # the next one may go elsewhere
        self._renew_later(SECOND)

    def _renewed(self, asked: float, answer: Answer) -> None:
        if answer.error is None and self._liveness is not None:
            self._liveness.renewed(self.now(), asked, answer.ttl)
            self._notice()

    def _look(self) -> None:
        self._notice()
        if self._told is not State.EXPIRED:
            self.process.at(200 * MS, self._look)

    def _notice(self) -> None:
        state = self.state()
        if state is self._told:
            return
        self._told = state
        self._world.sometimes(f"session {state.value}" if state is not State.SAFE else "session safe again")
        if state is State.EXPIRED:
            for wait in list(self._waits):
                wait.fail(self._lost())
        elif state is State.SAFE:
            for wait in self._until_safe:
                wait.set(None)
            self._until_safe.clear()

    def _lost(self) -> SessionLost:
        return SessionLost(f"the session {self._lease:x} has expired")

    def close(self) -> None:
        """Revoke the lease, at best effort."""
        self.closed = True
        if self._liveness is not None:
            self._liveness.end()
        self._notice()
        node = self._node()
        if node is not None and self._lease:
            command = raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=self._lease))
            deadline = node.clock.local(self._world.now) + CALL_NS
            self._ledger.ask(node, Propose(self._ledger.next_id(), command, deadline), self._closed)

    def _closed(self, _: Node, answer: Answer) -> None:
        """R9: what is closed is free at once."""
        if answer.error is None:
            oracle = self._ledger.oracle
            rows = oracle.range(b"r/", b"r0", oracle.revision)
            left = [kv.key for row in rows if (kv := kv_pb2.KeyValue.FromString(row)).lease == self._lease]
            check(not left, "R9", f"the session {self._lease:x} was closed, and {left} are left")

    # ---- Space ---------------------------------------------------------------------------------------------

    @property
    def lease(self) -> int:
        return self._lease

    @property
    def epoch(self) -> int:
        return 0

    def state(self) -> State:
        if self.process.killed or self._liveness is None:
            return State.EXPIRED
        return self._liveness.state(self.now())

    def nonce(self) -> str:
        return f"{self._ledger.next_id()}"

    @property
    def safe_until_ns(self) -> int:
        """When the lease may end, by the world's time; the server does not end it earlier."""
        return self.process.when(self._liveness.safe_until) if self._liveness is not None else 0

    def now(self) -> float:
        return self.process.now_ns() / SECOND

    def _node(self) -> Node | None:
        if self._connected is None or not self._connected.up or self.process.chance.random() < 0.1:
            nodes = self._ledger.nodes()
            self._connected = self.process.chance.choice(nodes) if nodes else None
        return self._connected

    async def _wait(self, wait: Waiting[Any], until: float | None = None) -> Any:
        """Raises SessionLost once the session has expired, TimeoutError at `until`."""
        if self._lease and self.state() is State.EXPIRED:
            raise self._lost()
        if until is not None:
            left = int((until - self.now()) * SECOND)
            self.process.at(max(0, left), lambda: wait.fail(TimeoutError()))
        self._waits[wait] = None
        try:
            return await wait
        finally:
            self._waits.pop(wait, None)

    async def txn(
        self, request: rpc_pb2.TxnRequest, until: float | None = None, *, barrier: bool = False
    ) -> rpc_pb2.TxnResponse:
        command = raft_pb2.Command(txn=request)
        seq = 0
        if self._numbered:
            self._seq += 1
            seq = self._seq
            self._outstanding.add(seq)
        try:
            while barrier and self._numbered and min(self._outstanding) < seq:
                await self.pause(until)
            if self._numbered:
                command.session, command.session_seq = self._lease, seq
                command.session_low = min(self._outstanding)
            answer = await self._ask(command, until)
        finally:
            self._outstanding.discard(seq)
        assert isinstance(answer.response, rpc_pb2.TxnResponse)
        found = rpc_pb2.TxnResponse()
        found.CopyFrom(answer.response)
        found.header.revision = answer.revision
        return found

    async def _ask(self, command: raft_pb2.Command, until: float | None) -> Answer:
        """Ask one member after the other, like the client. Raises Unavailable, OutcomeUnknown or Refused."""
        end = self.now() + CALL_NS / SECOND
        sent = False
        while self.now() < end:
            node = self._node()
            if node is None:
                await self.pause(until)
                continue
            answer = await self._attempt(node, command, until)
            error = answer.error
            if error is None:
                return answer
            if error in _UNKNOWN:
                sent = True
                self._connected = None
                if not command.session:
                    raise OutcomeUnknown(error.message)
            elif error == SESSION_ENDED:
                if sent:
                    raise OutcomeUnknown(error.message)
                command.session = command.session_seq = command.session_low = 0
            elif error.code is Code.UNAVAILABLE:
                self._connected = None
                await self.pause(until)
            elif sent and error != LEASE_NOT_FOUND:
                raise OutcomeUnknown(error.message)
            else:
                raise _refused(error)
        raise OutcomeUnknown("no answer") if sent else Unavailable("no member answers")

    async def _attempt(self, node: Node, command: raft_pb2.Command, until: float | None) -> Answer:
        copy = raft_pb2.Command()
        copy.CopyFrom(command)
        id, wait = self._ledger.next_id(), Waiting[Answer]()
        deadline = node.clock.local(self._world.now) + CALL_NS

        def missed() -> None:
            if not wait.done:
                self._ledger.drop(id)
                wait.set(Answer(id, TIMEOUT))

        self._send(node, Propose(id, copy, deadline), wait.set)
        self.process.at(ATTEMPT_NS, missed)
        found: Answer = await self._wait(wait, until)
        return found

    def _send(self, node: Node, item: Propose | KeepAlive, answered: Callable[[Answer], None]) -> None:
        """Over a network that delays what goes out and what comes back; a process that was killed sends on what is on
        its way."""
        process, world, life = self.process, self._world, node.incarnation

        def back(_: Node, answer: Answer) -> None:
            if process.cut:
                return
            world.at(world.now + process.delay_ns(), process.arrives, lambda: answered(answer))

        def out() -> None:
            if node.core is None or node.incarnation != life:
                back(node, Answer(item.id, STOPPED))
            else:
                self._ledger.ask(node, item, back)

        if not process.cut:
            world.at(world.now + process.delay_ns(), out)

    async def change(self, wanted: Sequence[Wanted], revision: int, until: float | None = None) -> None:
        watch = _Watch(self, wanted, revision)
        try:
            await self._wait(watch.happened, until)
        finally:
            watch.close()

    async def safe(self, until: float | None = None) -> None:
        wait = Waiting[None]()
        self._notice()  # only what was noticed is announced to be over
        if self._told is State.SAFE:
            return
        self._until_safe.append(wait)
        await self._wait(wait, until)

    async def pause(self, until: float | None = None) -> None:
        wait = Waiting[None]()
        self.process.at(int((0.05 + 0.1 * self.process.chance.random()) * SECOND), lambda: wait.set(None))
        await self._wait(wait, until)

    @property
    def numbered(self) -> bool:
        return self._numbered

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.process.run(work)

    def tend(self, work: Coroutine[Any, Any, None]) -> None:
        self.process.run(work)

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        yield  # the contest asks `held` itself, before each use


def _refused(error: Refusal) -> Refused:
    return refusal(_STATUS[error.code.value], error.message, error)


class _Watch:
    """A watch on one member after the other, until something wanted happens."""

    def __init__(self, space: SimSpace, wanted: Sequence[Wanted], revision: int) -> None:
        self.space = space
        self.happened = Waiting[None]()
        self.stream = -space._ledger.next_id()
        self._wanted = wanted
        self._revision = revision
        self._node: Node | None = None
        self._open = True
        space._streams[self.stream] = self
        self._connect()

    def _connect(self) -> None:
        space = self.space
        if not self._open or self._node is not None:
            return
        node = space._node()
        if node is None or node.hub is None or space.process.cut:
            space._connected = None
            space.process.at(200 * MS, self._connect)
            return
        self._node = node
        ranges = tuple((w.key, w.end or w.key + b"\x00") for w in self._wanted)
        node.hub.open(self.stream)
        only_deletes = all(w.deletes for w in self._wanted)
        node.hub.add(self.stream, Watcher(0, ranges, self._revision, no_put=only_deletes))
        node.poke()

    def delivered(self, node: Node, delivery: Delivery) -> None:
        if isinstance(delivery, Progress):
            return
        if isinstance(delivery, Events) and not any(self._wants(c.key, c.type == DELETE) for c in delivery.changes):
            return
        space = self.space
        if space.process.cut:
            self.leave()
            return
        arrives = space.process.arrives
        space._world.at(space._world.now + space.process.delay_ns(), arrives, lambda: self.happened.set(None))

    def _wants(self, key: bytes, deleted: bool) -> bool:
        return any((deleted or not w.deletes) and w.key <= key < (w.end or w.key + b"\x00") for w in self._wanted)

    def leave(self) -> None:
        """The connection broke."""
        node = self._node
        if node is not None and node.hub is not None:
            node.hub.close(self.stream)
            self.gone(node)

    def gone(self, node: Node) -> None:
        if node is self._node:
            self._node = None
            self.space._world.sometimes("watch resumed")
            self.space._connected = None
            self.space.process.at(int(self.space.process.chance.random() * SECOND), self._connect)

    def hurry(self) -> None:
        node = self._node
        if node is not None and node.removed and node.hub is not None:
            node.hub.close(self.stream)
            self.gone(node)

    def close(self) -> None:
        self._open = False
        self.space._streams.pop(self.stream, None)
        if self._node is not None and self._node.hub is not None:
            self._node.hub.close(self.stream)
