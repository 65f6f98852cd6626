"""One run from its seed: a cluster under faults, then healed, then verified.

In the first phase the faults of the seed's mix happen while clients work: no operation needs to succeed, but no answer
may be wrong. In the second phase a core that has a majority is healed and has to serve; then everything is healed and
has to converge (L1).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from holdfast.edge.upstream import Followers
from holdfast.kv.rows import PUT
from holdfast.kv.store import Family
from holdfast.machine import Genesis
from holdfast.member.core import MemberCore
from holdfast.member.interface import Answer, CacheGiven, Output, PeerLost, Propose
from holdfast.proto import kv_pb2, raft_pb2, rpc_pb2
from holdfast.raft.invariant import InvariantViolation
from holdfast.raft.messages import Message
from holdfast.raft.quorum import ConfState
from holdfast.watch.hub import Delivery

from holdfast_lab.sim.caches import PREFIXES, Declarer, SimCache
from holdfast_lab.sim.checker import Checker
from holdfast_lab.sim.clients import SESSION_TTL, Client
from holdfast_lab.sim.forger import Forger
from holdfast_lab.sim.ledger import RequestLedger
from holdfast_lab.sim.linear import check_history
from holdfast_lab.sim.mix import SECOND, Mix, draw
from holdfast_lab.sim.nemesis import CHANGE_NS, Nemesis
from holdfast_lab.sim.network import Network
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.operations import Kind, Operation, Outcome
from holdfast_lab.sim.oracle import Oracle
from holdfast_lab.sim.replicas import SimReplica
from holdfast_lab.sim.violation import Violation, check
from holdfast_lab.sim.watchers import SimWatcher
from holdfast_lab.sim.world import World

LEAST_SECONDS = 60
LEAST_OPERATIONS = 300
LEAST_FAULTS = 10
LONGEST_NS = 200 * SECOND
PROBE_NS = 15 * SECOND
CONVERGE_NS = 25 * SECOND
FAILURES = (Violation, InvariantViolation, AssertionError)
_FIRST_MEMBER = 0x100


@dataclass(slots=True)
class Result:
    """What a run did; `trace` is the hash of everything that happened in it."""

    seed: int
    trace: str
    steps: int = 0
    simulated_ns: int = 0
    operations: int = 0
    acknowledged: int = 0
    faults: int = 0
    elections: int = 0
    forks: int = 0
    reached: set[str] = field(default_factory=set)


def simulate(seed: int, *, seconds: int = 0, without: Collection[str] = (), mix: Mix | None = None) -> Result:
    """Run one seed: `seconds` of faults, or 0 = 60 seconds and until enough has happened. Raises one of FAILURES if
    something is wrong."""
    return Run(seed, seconds=seconds, without=without, mix=mix).run()


class Run:
    """The parts of one run, and the calls between them."""

    def __init__(
        self,
        seed: int,
        *,
        seconds: int = 0,
        without: Collection[str] = (),
        mix: Mix | None = None,
        keep_trace: int = 400,
        history: bool = True,
    ) -> None:
        """`history`: check the history of clients at the end."""
        self.world = world = World(seed, keep_trace)
        self.mix = mix or draw(world.chance("mix"), without)
        self._seconds = seconds
        self._history = history
        self.steps = self.forks = 0
        self._probing: Operation | None = None
        self.oracle = Oracle()
        self.nodes: dict[int, Node] = {}
        self.network = Network(world, self.mix, self._deliver)
        self.ledger = RequestLedger(world, self.oracle, self._asked)
        self.checker = Checker(world, self.oracle, self.ledger, self.nodes, self._slowest())
        self._genesis = self._found()
        self.checker.conf = ConfState(voters=tuple(m.id for m in self._genesis.members))
        self.checker.members_ever = set(self.checker.conf.voters)
        for info in self._genesis.members:
            self._add(info.id, self._genesis)
        self.forger = Forger(self)
        self.nemesis = Nemesis(self, self.forger)
        for node in self.nodes.values():
            node.start()
        for _ in range(self.mix.learners):
            world.at(world.now + 3 * SECOND, self._add_learner)
        chances = [world.chance(f"client/{n}") for n in range(self.mix.clients)]
        misuse = 0.0 if self.mix.rolling else self.mix.misuse  # the previous version kept no hash of the command
        sequences = self.mix.sequences
        self._clients = [
            Client(self.ledger, n, chance, n % 3 == 0, misuse, sequences) for n, chance in enumerate(chances)
        ]
        self._watchers = [SimWatcher(world, self.oracle, n, self._up) for n in range(4)]
        followers = Followers(most_snapshots=1, chunk_rows=2)  # the next one waits, and writes happen between its parts
        self._replicas = [SimReplica(world, self.oracle, n, self._up, followers) for n in range(self.mix.replicas)]
        self._caches = self._start_caches()
        self._streams = {w.stream: w for w in self._watchers} | {r.stream: r for r in self._replicas}
        world.note(f"seed {seed} {self.mix}")

    def _start_caches(self) -> list[SimCache]:
        if not self.mix.caches:
            return []
        prefixes = PREFIXES[: 1 + self.world.chance("cachable prefixes").randrange(len(PREFIXES))]
        Declarer(self.ledger, prefixes)
        return [SimCache(self.ledger, n, prefixes[n % len(prefixes)], self.rate) for n in range(self.mix.caches)]

    def _found(self) -> Genesis:
        infos = []
        chance = self.world.chance("priorities")
        for number in range(self.mix.voters):
            info = raft_pb2.MemberInfo(id=_FIRST_MEMBER + number, name=f"m{_FIRST_MEMBER + number:x}")
            info.peer_urls.append(f"http://m{info.id:x}:2380")
            if self.mix.priorities:
                info.priority = chance.randrange(3)
            infos.append(info)
        return Genesis(tuple(infos), "0.1.0") if self.mix.rolling else Genesis(tuple(infos))

    # ---- clocks --------------------------------------------------------------------------------------------

    def rate(self, draw_: float) -> float:
        """The rate of a skewed clock. With lease reads or caches, any two clocks stay within the drift that these
        allow."""
        return 0.955 + 0.09 * draw_ if self.mix.lease_reads or self.mix.caches else 0.6 + draw_

    def _slowest(self) -> float:
        """The smallest part of a lease's TTL after which a fast clock may show that it has expired."""
        if self.mix.clock_jump:
            return 0.0
        return 1 / self.rate(1.0) if self.mix.skew else 0.999

    # ---- nodes ---------------------------------------------------------------------------------------------

    def _add(self, member: int, genesis: Genesis | None) -> Node:
        node = Node(self.world, self.mix, member, genesis, self.network.send, self, self._reached)
        self.nodes[member] = node
        return node

    def new_node(self) -> Node:
        """A new empty node, with an id that was never used."""
        node = self._add(max(self.nodes) + 1, None)
        if self.mix.skew:
            chance = self.world.chance(f"skew/{node.id}")
            node.clock.skew(self.world.now, self.rate(chance.random()))
        node.start()
        return node

    def _add_learner(self) -> None:
        member = self.new_node().id
        info = raft_pb2.MemberInfo(id=member, name=f"m{member:x}", peer_urls=[f"http://m{member:x}:2380"])
        change = raft_pb2.MemberChange(kind=raft_pb2.MemberChange.ADD_LEARNER, member=info)
        for node in self._up():
            deadline = node.clock.local(self.world.now) + 4 * SECOND
            propose = Propose(self.ledger.next_id(), raft_pb2.Command(member=change), deadline)
            self.ledger.ask(node, propose, lambda _, answer: None)
            return

    def intact(self, member: int) -> bool:
        node = self.nodes.get(member)
        return node is not None and not node.disk.lost and not node.disk.rotten and not node.state_rotten

    def _up(self) -> list[Node]:
        return [n for n in self.nodes.values() if n.up]

    def _asked(self) -> list[Node]:
        """The members to which clients send requests: those that run, or seem to run."""
        return [n for n in self.nodes.values() if not n.removed and n.core is not None and n.core.machine.members]

    def _reached(self, member: int) -> Node | None:
        return self.nodes.get(member)

    def _deliver(self, message: Message) -> None:
        node = self.nodes.get(message.to)
        if node is not None:  # a non-member has no node: drop it
            node.receive(message)

    # ---- Observer ------------------------------------------------------------------------------------------

    def started(self, node: Node) -> None:
        self.checker.restarted(node)

    def stepped(self, node: Node, core: MemberCore, out: Output) -> None:
        self.steps += 1
        raft = core.raft
        self.world.note(
            f"{node.id:x} {raft.role.value} {raft.term} last {raft.log.last} commit {raft.commit} "
            f"applied {core.machine.applied_index} {core.machine.digest & 0xFFFF:x}"
        )
        self.checker.stepped(node, core, out)
        if self.mix.caches:
            self._note_caches(core)
        if self.mix.forge:
            self.forger.stepped(node, out.refused)
        elif out.refused:
            self.checker.refused(node, out.refused)
        if out.conf_changed:
            self._notice_removed()

    def _note_caches(self, core: MemberCore) -> None:
        if core.caches.waited:
            self.world.sometimes("command waited for a cache")
        if core.caches.waited_as_new_leader:
            self.world.sometimes("new leader waited for caches")
        if core.caches.ran_out:
            self.world.sometimes("cache lease ran out")

    def _notice_removed(self) -> None:
        conf = self.checker.conf
        if conf.joint:
            return
        for member in sorted(self.checker.members_ever - set(conf.members())):
            node = self.nodes[member]
            if not node.removed:
                node.removed = True
                self.world.note(f"{node.id:x} is not a member any more")
                self.world.sometimes("member removed")
                # It keeps sending messages for a while, because it does not know that it was removed.
                self.world.at(self.world.now + 8 * SECOND, node.crash)

    def sends(self, node: Node, message: Message) -> None:
        self.checker.sends(node, message)
        if self.mix.forge:
            self.forger.hear(message)

    def answered(self, node: Node, answer: Answer) -> None:
        self.ledger.answered(node, answer)

    def delivered(self, node: Node, delivery: Delivery) -> None:
        self._streams[delivery.stream].delivered(node, delivery)

    def cached(self, node: Node, given: CacheGiven) -> None:
        for cache in self._caches:
            cache.told(node, given)

    def gone(self, node: Node) -> None:
        self.ledger.gone(node)
        for cache in self._caches:
            cache.gone(node)
        self.forger.gone(node)
        for follower in self._streams.values():
            follower.gone(node)
        if self.mix.hints:
            for other in self.nodes.values():
                if other.up:
                    self.checker.hinted(other.id)
                    other.give(PeerLost(node.id))

    # ---- the run -------------------------------------------------------------------------------------------

    def run(self) -> Result:
        world = self.world
        end = self._seconds * SECOND
        world.run_until(end)
        while not self._seconds and end < LONGEST_NS and not self._enough():
            end += 5 * SECOND
            world.run_until(end)
        self.nemesis.stop()
        for client in self._clients:
            client.stopping = True
        if self.mix.change:
            # A pending change could take effect after the core was chosen, and need other members for its quorum.
            world.run_until(world.now + 2 * CHANGE_NS)  # as measured by the slowest clock
        self._heal_core()
        self._heal_all()
        self._check_end()
        return self._result()

    def _enough(self) -> bool:
        return len(self.ledger.history) >= LEAST_OPERATIONS and self.nemesis.faults >= LEAST_FAULTS

    def _result(self) -> Result:
        history = self.ledger.history
        return Result(
            self.world.seed,
            self.world.trace(),
            steps=self.steps,
            simulated_ns=self.world.now,
            operations=len(history),
            acknowledged=sum(o.outcome is Outcome.DONE for o in history),
            faults=self.nemesis.faults,
            elections=self.checker.elections,
            forks=self.forks,
            reached=self.world.reached,
        )

    # ---- healing -------------------------------------------------------------------------------------------

    def _confs(self) -> list[ConfState]:
        """Every configuration that may still take effect."""
        found = [self.checker.conf]
        for node in self.nodes.values():
            if node.disk.lost or node.removed:
                continue
            _, log = node.disk.open()
            logs = [log] if node.core is None else [log, node.core.raft.log]
            found += [e.conf for one in logs for e in one.since(one.first) if e.conf is not None]
        return found

    def _core(self) -> set[int]:
        """A smallest set of members that must be enough to serve."""
        chance = self.world.chance("heal")
        confs = self._confs()
        core = {m for conf in confs for m in conf.members() if self.intact(m)}
        for member in sorted(core, key=lambda _: chance.random()):
            smaller = core - {member}
            if all(conf.quorum(lambda m: m in smaller) for conf in confs):  # noqa: B023  used at once
                core = smaller
        return core

    def _heal_core(self) -> None:
        """Heal the core. The other members stay as they are: down, cut off, or sending messages."""
        world, network = self.world, self.network
        for node in self.nodes.values():
            node.read_all()
        core = self._core()
        world.note(f"heal {sorted(core)}")
        network.heal()
        network.cut = {(a, b) for a in self.nodes for b in self.nodes if (a in core) != (b in core)}
        network.calm = True
        for member in sorted(core):
            self._well(self.nodes[member])
        self._await(PROBE_NS, lambda: self._probed(core), f"a healed majority {sorted(core)} does not serve")

    def _well(self, node: Node) -> None:
        node.start()
        node.mend()
        if node.clock.rate != node.clock.usual:
            node.clock.change(self.world.now, node.clock.usual)
            node.reschedule()

    def _heal_all(self) -> None:
        self.network.heal()
        for node in self.nodes.values():
            # A member whose adding entry was truncated belongs to no cluster, even if its own state says otherwise.
            node.removed = node.removed or node.id not in self.checker.conf.members()
            if not node.removed and not node.disk.rotten:
                self._well(node)
        for follower in self._streams.values():
            follower.hurry()
        self._probing = None
        self._await(CONVERGE_NS, self._converged, "members do not converge")
        self._await(CONVERGE_NS, self._leases_over, "leases that nobody renews do not end")

    def _await(self, within: int, done: Callable[[], bool], otherwise: str) -> None:
        end = self.world.now + within
        while not done():
            if self.world.now >= end:
                raise Violation("L1", f"{otherwise} within {within / 1e9:g} s")
            self.world.run_until(self.world.now + SECOND // 4)

    def _probed(self, core: set[int]) -> bool:
        """The core answers a write. When the outcome of one is unknown, another write is sent."""
        if self._probing is not None:
            if self._probing.outcome is Outcome.DONE:
                return True
            if self._probing.outcome is Outcome.OPEN:
                return False
        up = [self.nodes[m] for m in sorted(core) if self.nodes[m].up and not self.nodes[m].paused]
        asked = [n for n in up if n.id in self.checker.conf.voters] or up
        if asked:
            self._probing = self._probe(asked[len(self.ledger.history) % len(asked)])
        return False

    def _probe(self, node: Node) -> Operation:
        ledger = self.ledger
        id = ledger.next_id()
        operation = Operation(id, Kind.PUT, b"z/probe", value=b"probe %d" % id, invoked=self.world.now)
        ledger.history.append(operation)

        def answered(node: Node, answer: Answer) -> None:
            if answer.error is not None:
                operation.outcome = Outcome.UNKNOWN
                return
            assert isinstance(answer.response, rpc_pb2.PutResponse)
            operation.outcome, operation.returned, operation.revision = (
                Outcome.DONE,
                self.world.now,
                answer.revision,
            )
            kv = answer.response.prev_kv
            if answer.response.HasField("prev_kv"):
                operation.result = (kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)

        put = rpc_pb2.PutRequest(key=operation.key, value=operation.value, prev_kv=True)
        deadline = node.clock.local(self.world.now) + 5 * SECOND
        ledger.ask(node, Propose(id, raft_pb2.Command(put=put), deadline), answered)
        return operation

    def _members_up(self) -> list[MemberCore]:
        members = self.checker.conf.members()
        cores = [self.nodes[m].core for m in members if self.nodes[m].up]
        return [core for core in cores if core is not None]

    def _converged(self) -> bool:
        if not self._probed(set(self.checker.conf.members())):
            return False
        cores = self._members_up()
        leaders = [core for core in cores if core.is_leader]
        return (
            len(leaders) == 1
            and not leaders[0].raft.conf.joint
            and leaders[0].raft.conf == self.checker.conf
            and all(core.leader == leaders[0].id for core in cores)
            and len({(core.machine.applied_index, core.machine.digest) for core in cores}) == 1
        )

    def _leases_over(self) -> bool:
        """Every lease that no client renews ends (those of client sessions have longer TTLs than we wait)."""
        known = self.ledger.leases
        left = [
            lease
            for core in self._members_up()
            for lease in core.machine.leases
            if lease in known and known[lease].ttl != SESSION_TTL
        ]
        return not left

    # ---- the end -------------------------------------------------------------------------------------------

    def _check_end(self) -> None:
        for follower in self._streams.values():
            follower.hurry()  # its member may have been removed during healing
        self.world.run_until(self.world.now + 3 * SECOND)
        for watcher in self._watchers:
            watcher.check_end()
        for replica in self._replicas:
            replica.check_end()
        rows = [
            (core.id, core.machine.applied_index, [list(core.machine.store.scan(f, b"", None)) for f in (Family.CUR,)])
            for core in self._members_up()
        ]
        for id, index, state in rows[1:]:
            check(index != rows[0][1] or state == rows[0][2], "I5", f"{id:x} and {rows[0][0]:x} differ at {index}")
        if self._history:
            self.forks = check_history(self.ledger.history, self._done_at)

    def _done_at(self, revision: int) -> dict[bytes, bytes | None]:
        if revision > self.oracle.revision:
            return {}
        changes = self.oracle.events[self.oracle.position(revision - 1) : self.oracle.position(revision)]
        return {c.key: kv_pb2.KeyValue.FromString(c.kv).value if c.type == PUT else None for c in changes}
