"""A simulated cluster: real cores, a network that loses and reorders, disks that lose what was not synced.

Everything follows from the seed: there is one queue of events, ordered by time and then by number, and one generator
for each kind of choice, so that a change in one does not shift the others.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

from holdfast.kv.store import MemoryStore
from holdfast.machine import Genesis, applied
from holdfast.member import codec
from holdfast.member.core import MemberCore
from holdfast.member.interface import (
    Appended,
    Flushed,
    Input,
    Output,
    PeerMessage,
    Propose,
    Read,
    SnapshotOffered,
    SnapshotSent,
    Transfer,
)
from holdfast.member.recovery import Replay, fit
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.messages import Message
from holdfast.raft.types import DurableAppend, Settings
from holdfast.sim.checker import Checker, check

MS = 1_000_000
SECOND = 1000 * MS


@dataclass(slots=True)
class Faults:
    """Probabilities per message, and per simulated second for the rest."""

    drop: float = 0.05
    duplicate: float = 0.02
    slow: float = 0.05
    crash: float = 0.1
    partition: float = 0.1
    transfer: float = 0.05
    compact: float = 0.3


class Node:
    """A member with its disk. What is in `durable` and `state` survives a crash."""

    def __init__(self, member: int, genesis: Genesis) -> None:
        self.id = member
        self.state = MemoryStore()
        genesis.write(self.state)
        self.durable = Replay([DurableAppend(0, None, 0, (), base=(1, 1))])
        self.incarnation = 0
        self.core: MemberCore | None = None
        self.store: MemoryStore | None = None
        self.unsynced: list[DurableAppend] = []
        self.inbox: list[Input] = []
        self.writing = False
        self.wake_at: int | None = None
        self.was_leader_in = 0


@dataclass(slots=True)
class Operation:
    """What a client asked and what it was told."""

    kind: str
    key: bytes
    value: bytes
    acknowledged_before: int  # the newest revision acknowledged to anyone when this began
    answered: bool = False


@dataclass(slots=True)
class Result:
    seed: int
    trace: str
    steps: int
    simulated_ns: int
    writes: int
    reads: int
    crashes: int
    elections: int


@dataclass(slots=True)
class Simulation:
    seed: int
    members: int = 3
    faults: Faults = field(default_factory=Faults)

    def run(self, seconds: int = 10) -> Result:
        return _Run(self.seed, self.members, self.faults).run(seconds)


class _Run:
    def __init__(self, seed: int, members: int, faults: Faults) -> None:
        self.seed = seed
        self.faults = faults
        self.network = random.Random(f"{seed}/network")
        self.disk = random.Random(f"{seed}/disk")
        self.chaos = random.Random(f"{seed}/chaos")
        self.clients = random.Random(f"{seed}/clients")
        self.now = 0
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.counter = 0
        self.checker = Checker()
        self.trace = blake2b(digest_size=16)
        self.steps = self.writes = self.reads = self.crashes = self.elections = 0
        ids = [0x100 + n for n in range(members)]
        infos = tuple(raft_pb2.MemberInfo(id=i, name=f"m{i:x}") for i in ids)
        self.nodes = {i: Node(i, Genesis(infos, "0.1.0")) for i in ids}
        self.cut: set[tuple[int, int]] = set()
        self.healing = False
        self.operations: dict[int, Operation] = {}
        self.acknowledged: dict[bytes, bytes] = {}  # key -> value that the client was told is there
        self.acknowledged_revision = 0
        self.next_id = 0
        self.probes = 0
        self.probe_until = 0
        for node in self.nodes.values():
            self.start(node)

    # ---- time ----------------------------------------------------------------------------------------------

    def at(self, when: int, what: Callable[[], None]) -> None:
        self.counter += 1
        heapq.heappush(self.queue, (max(when, self.now), self.counter, what))

    def run_until(self, end: int) -> None:
        while self.queue and self.queue[0][0] <= end:
            self.now, _, what = heapq.heappop(self.queue)
            what()
        self.now = end

    def run(self, seconds: int) -> Result:
        for second in range(seconds):
            self.at(second * SECOND, self.make_trouble)
        for _ in range(seconds * 8):
            self.at(self.clients.randrange(seconds * SECOND), self.client_acts)
        self.run_until(seconds * SECOND)
        self.converge()
        return Result(
            self.seed,
            self.trace.hexdigest(),
            self.steps,
            self.now,
            self.writes,
            self.reads,
            self.crashes,
            self.elections,
        )

    # ---- nodes ---------------------------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        node.incarnation += 1
        node.store = node.state.snapshot()
        replay = node.durable
        log_copy = Replay()
        log_copy.log.reset(replay.log.base_index, replay.log.base_term)
        log_copy.log.append(replay.log.slice(replay.log.first, replay.log.last + 1, 1 << 60))
        index, term = applied(node.store)
        if fit(log_copy.log, index, term):
            node.durable.log.reset(index, term)
        node.core = MemberCore(
            node.id,
            incarnation=node.incarnation,
            now_ns=self.now,
            random=random.Random(f"{self.seed}/node/{node.id}/{node.incarnation}"),
            store=node.store,
            log=log_copy.log,
            hard_state=replay.hard_state,
            settings=Settings(),
            apply_budget=7,
        )
        node.inbox, node.unsynced, node.writing, node.wake_at = [], [], False, None
        self.checker.restarted(node.id, replay.hard_state)
        self.schedule(node, self.now)

    def crash(self, node: Node) -> None:
        """What was not synced may be there or not; a write is lost from some record on."""
        if self.healing:
            return  # planned before the end of the trouble
        self.crashes += 1
        for record in node.unsynced[: self.disk.randrange(len(node.unsynced) + 1)]:
            node.durable.feed(record)
        node.core = None
        node.inbox = []
        self.note(f"crash {node.id:x}")
        self.at(self.now + 50 * MS + self.chaos.randrange(2 * SECOND), lambda: self.restart(node))

    def restart(self, node: Node) -> None:
        if node.core is None:
            self.note(f"start {node.id:x}")
            self.start(node)

    def give(self, node: Node, item: Input) -> None:
        if node.core is not None:
            node.inbox.append(item)
            self.schedule(node, self.now)

    def schedule(self, node: Node, when: int) -> None:
        if node.wake_at is None or when < node.wake_at:
            node.wake_at = when
            core = node.core
            self.at(when, lambda: self.wake(node, core))

    def wake(self, node: Node, core: MemberCore | None) -> None:
        if core is None or node.core is not core or node.wake_at is None or node.wake_at > self.now:
            return
        node.wake_at = None
        inputs, node.inbox = node.inbox, []
        self.steps += 1
        out = core.step(self.now, inputs, wall_ms=self.now // MS)
        self.note(f"{node.id:x} {core.term} {core.raft.commit} {core.machine.applied_index} {core.machine.digest:x}")
        self.checker.stepped(core)
        if core.is_leader and node.was_leader_in != core.term:
            node.was_leader_in = core.term
            self.elections += 1
            self.checker.leads(core)
        if self.steps % 1000 == 0:
            self.checker.logs_match([n.core for n in self.nodes.values() if n.core is not None])
        self.carry_out(node, core, out)
        self.schedule(node, self.now if out.more else core.deadline_ns)

    def carry_out(self, node: Node, core: MemberCore, out: Output) -> None:
        if out.append is not None:
            node.unsynced.append(out.append)
            self.sync(node)
        for message in out.messages:
            self.checker.sends(message, node.durable)
            self.send(message)
        for answer in out.answers:
            self.answered(answer.id, answer.error is None, answer.revision, core)
        for member in out.snapshots:
            self.send_snapshot(node, core, member)

    # ---- the disk ------------------------------------------------------------------------------------------

    def sync(self, node: Node) -> None:
        """One sync at a time; it covers all that was written when it began."""
        if node.writing or not node.unsynced:
            return
        node.writing = True
        core, batch = node.core, list(node.unsynced)
        took = 50 * MS if self.disk.random() < 0.02 else MS // 4 + self.disk.randrange(2 * MS)

        def done() -> None:
            if node.core is not core or core is None:
                return
            node.writing = False
            for record in batch:
                node.durable.feed(record)
            del node.unsynced[: len(batch)]
            self.give(node, Appended(batch[-1].seq))
            self.sync(node)

        self.at(self.now + took, done)

    def flush_state(self, node: Node) -> None:
        """The state in memory reaches the disk, so the log may be cut; both as production does it."""
        core, store = node.core, node.store
        if core is None or store is None or node.unsynced:
            return
        node.state = store.snapshot()
        self.give(node, Flushed(core.machine.applied_index))
        core.flushed_index = core.machine.applied_index
        core.compact_log(keep=self.disk.randrange(20), max_bytes=1 << 20)
        base = core.raft.log.base_index
        if base > node.durable.log.base_index:
            node.durable.log.compact(base)

    # ---- the network ---------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        faults = self.faults
        if (message.frm, message.to) in self.cut:
            return
        if not self.healing and self.network.random() < faults.drop:
            return
        if self.network.random() < 0.01:  # what travels must survive the wire
            decoded = codec.decode(
                raft_pb2.PeerMessage.FromString(codec.encode(message).SerializeToString()), message.to, message.frm
            )
            assert decoded is not None
            message = decoded
        copies = 2 if not self.healing and self.network.random() < faults.duplicate else 1
        for _ in range(copies):
            delay = MS // 5 + self.network.randrange(2 * MS)
            if not self.healing and self.network.random() < faults.slow:
                delay += self.network.randrange(400 * MS)
            self.at(self.now + delay, lambda: self.give(self.nodes[message.to], PeerMessage(message)))

    def send_snapshot(self, node: Node, core: MemberCore, to: int) -> None:
        assert node.store is not None
        copy = node.store.snapshot()
        index, term, frm_term = core.machine.applied_index, core.machine.applied_term, core.term
        lost = not self.healing and ((node.id, to) in self.cut or self.network.random() < 0.3)

        def arrive() -> None:
            target = self.nodes[to]
            if lost or target.core is None:
                self.give(node, SnapshotSent(to, False))
                return

            def install() -> MemoryStore:
                target.state = copy
                target.store = copy.snapshot()
                return target.store

            self.give(target, SnapshotOffered(index, term, node.id, frm_term, install))
            self.give(node, SnapshotSent(to, True))

        self.at(self.now + 20 * MS + self.network.randrange(200 * MS), arrive)

    # ---- trouble -------------------------------------------------------------------------------------------

    def make_trouble(self) -> None:
        chance = self.chaos.random
        for node in self.nodes.values():
            when = self.now + self.chaos.randrange(SECOND)
            if chance() < self.faults.crash:
                self.at(when, lambda n=node: self.crash(n) if n.core is not None else None)  # type: ignore[misc]
            if chance() < self.faults.compact:
                self.at(when, lambda n=node: self.flush_state(n))  # type: ignore[misc]
            if chance() < self.faults.transfer:
                self.at(when, lambda n=node: self.give(n, Transfer(0)))  # type: ignore[misc]
        if chance() < self.faults.partition:
            ids = list(self.nodes)
            one, other = self.chaos.sample(ids, 2)
            alone = chance() < 0.5
            for peer in ids if alone else [other]:
                if chance() < 0.8:
                    self.cut.add((one, peer))
                if chance() < 0.8:
                    self.cut.add((peer, one))
            self.at(self.now + self.chaos.randrange(3 * SECOND), self.cut.clear)

    # ---- clients -------------------------------------------------------------------------------------------

    def client_acts(self) -> None:
        node = self.nodes[self.clients.choice(list(self.nodes))]
        if node.core is None:
            return
        self.next_id += 1
        deadline = self.now + 5 * SECOND
        key = b"k%d" % self.clients.randrange(8)
        if self.clients.random() < 0.4:
            self.operations[self.next_id] = Operation("read", key, b"", self.acknowledged_revision)
            self.give(node, Read(self.next_id, deadline))
            return
        value = b"%d" % self.next_id
        self.operations[self.next_id] = Operation("write", key, value, self.acknowledged_revision)
        put = rpc_pb2.PutRequest(key=key + b"/" + value, value=value)
        self.give(node, Propose(self.next_id, raft_pb2.Command(put=put), deadline))

    def answered(self, id: int, ok: bool, revision: int, core: MemberCore) -> None:
        operation = self.operations.get(id)
        if operation is not None and not ok and id < 0:
            self.write_probe()
        if operation is None or not ok:
            return
        check(not operation.answered, f"operation {id} was answered twice")
        operation.answered = True
        if operation.kind == "write":
            self.writes += 1
            self.acknowledged[operation.key + b"/" + operation.value] = operation.value
            self.acknowledged_revision = max(self.acknowledged_revision, revision)
        else:
            self.reads += 1
            seen = core.machine.space.revision
            check(
                seen >= operation.acknowledged_before,
                f"a linearizable read saw revision {seen}, {operation.acknowledged_before} was acknowledged before",
            )

    # ---- the end -------------------------------------------------------------------------------------------

    def converge(self) -> None:
        """Heal everything: a leader, a write and equal states within ten election timeouts."""
        self.healing = True
        self.cut.clear()
        for node in self.nodes.values():
            if node.core is None:
                self.start(node)
        self.probe_until = self.now + 20 * SECOND
        self.write_probe()
        self.run_until(self.probe_until)
        probes = [o for id, o in self.operations.items() if id < 0]
        check(any(o.answered for o in probes), "liveness: a write to a healed cluster was not answered")
        cores = [n.core for n in self.nodes.values() if n.core is not None]
        self.checker.logs_match(cores)
        states = {(c.machine.applied_index, c.machine.digest) for c in cores}
        check(len(states) == 1, f"liveness: members did not converge: {states}")
        for core in cores:
            for key, value in self.acknowledged.items():
                row = core.machine.space.get(key)
                check(row is not None and value in row.kv, f"an acknowledged write of {key!r} is lost at {core.id:x}")
            written = core.machine.space.count(b"", None)
            check(written == core.machine.space.revision - 1, "a write was applied twice or half")

    def write_probe(self) -> None:
        """A client that tries again when it is told that the outcome is unknown (each time another key)."""
        self.probes += 1
        id, value = -self.probes, b"%d" % self.probes
        self.operations[id] = Operation("write", b"last", value, self.acknowledged_revision)
        put = rpc_pb2.PutRequest(key=b"last/" + value, value=value)
        node = next(iter(self.nodes.values()))
        self.give(node, Propose(id, raft_pb2.Command(put=put), self.now + 60 * SECOND))

    def note(self, line: str) -> None:
        self.trace.update(f"{self.now} {line}\n".encode())
