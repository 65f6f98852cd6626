"""Injects faults, each class at its own rate and with its own random generator.

The faults are survivable by design: it never destroys so many disks that the configuration in force has no majority,
and never destroys one while that configuration is changing. So the cluster must recover when it is healed.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from holdfast.member.interface import PeerLost, Propose, Transfer
from holdfast.proto import raft_pb2
from holdfast.raft.messages import TimeoutNow

from holdfast_lab.sim.cluster import Cluster
from holdfast_lab.sim.forger import Forger
from holdfast_lab.sim.mix import MS, SECOND
from holdfast_lab.sim.node import Node

_Change = raft_pb2.MemberChange
SETTLE_NS = 6 * SECOND  # between faults of disks and changes of the membership
MAX_MEMBERS = 7
CHANGE_NS = 4 * SECOND  # how long a change of the membership is retried


class Nemesis:
    """The faults of one run, until `stop`."""

    def __init__(self, cluster: Cluster, forger: Forger) -> None:
        self._cluster = cluster
        self._forger = forger
        self._world = cluster.world
        self._mix = cluster.mix
        self.faults = 0
        self.stopped = False
        self._changed_at = -SETTLE_NS
        self._destroyed_at = -SETTLE_NS
        for name, action in self._actions().items():
            rate: float = getattr(self._mix, name)
            if rate > 0:
                self._plan(self._world.chance(f"nemesis/{name}"), rate, action)
        if self._mix.skew:
            self._skew()

    def _actions(self) -> dict[str, Callable[[Random], bool]]:
        return {
            "partition": self._partition,
            "one_way": self._one_way,
            "isolate": self._isolate,
            "chain": self._chain,
            "clog": self._clog,
            "swizzle": self._swizzle,
            "reset": self._reset,
            "sync_error": self._sync_error,
            "rot": self._rot,
            "full": self._full,
            "lose_disk": self._lose_disk,
            "flush": self._flush,
            "crash": self._crash,
            "crash_all": self._crash_all,
            "crash_loop": self._crash_loop,
            "pause": self._pause,
            "clock_jump": self._clock_jump,
            "wall_jump": self._wall_jump,
            "transfer": self._transfer,
            "change": self._change,
            "silence": self._silence,
            "late_answers": self._late_answers,
            "forge": self._forger.act,
            "state_rot": self._rot_state,
        }

    def _plan(self, chance: Random, rate: float, action: Callable[[Random], bool]) -> None:
        when = self._world.now + int(chance.expovariate(rate) * SECOND)
        self._world.at(when, self._act, chance, rate, action)

    def _act(self, chance: Random, rate: float, action: Callable[[Random], bool]) -> None:
        if self.stopped:
            return
        if action(chance) and action not in (self._flush, self._forger.act):
            self.faults += 1
        self._plan(chance, rate, action)

    def stop(self) -> None:
        self.stopped = True

    def _some(self, chance: Random) -> Node | None:
        up = [n for n in self._cluster.nodes.values() if n.up]
        return chance.choice(up) if up else None

    def _members(self) -> list[int]:
        return [id for id, node in self._cluster.nodes.items() if not node.removed]

    # ---- network -------------------------------------------------------------------------------------------

    def _cut(self, links: set[tuple[int, int]], chance: Random, longest: int = 6 * SECOND) -> bool:
        if not links:
            return False
        network = self._cluster.network
        network.cut |= links
        self._world.note(f"cut {sorted(links)}")
        if any(n.core is not None and n.core.raft.conf.joint for n in self._cluster.nodes.values()):
            self._world.sometimes("partition in a joint configuration")
        until = self._world.now + 300 * MS + int(chance.random() ** 2 * longest)
        self._world.at(until, self._mend, links)
        return True

    def _mend(self, links: set[tuple[int, int]]) -> None:
        if not self.stopped:  # after `stop`, cuts are part of healing and must stay
            self._cluster.network.cut -= links

    def _partition(self, chance: Random) -> bool:
        ids = self._members()
        side = {i for i in ids if chance.random() < 0.5}
        return self._cut({(a, b) for a in ids for b in ids if (a in side) != (b in side)}, chance)

    def _one_way(self, chance: Random) -> bool:
        """One member can send and not receive, or the other way round."""
        node, ids = self._leader_or_some(chance), self._members()
        if node is None:
            return False
        one, deaf = node.id, chance.random() < 0.5
        return self._cut({(b, one) if deaf else (one, b) for b in ids if b != one and chance.random() < 0.8}, chance)

    def _isolate(self, chance: Random) -> bool:
        node = self._leader_or_some(chance)
        if node is None:
            return False
        return self._cut(
            {link for b in self._members() if b != node.id for link in ((node.id, b), (b, node.id))}, chance
        )

    def _silence(self, chance: Random) -> bool:
        """One follower cannot receive, or cannot send, or both, for so long that the others fill their windows and
        compact what it lacks. No connection closes, so no member gets a hint."""
        followers = [n.id for n in self._cluster.nodes.values() if n.core is not None and not n.core.is_leader]
        if not followers:
            return False
        one = chance.choice(followers)
        others = [m for m in self._members() if m != one]
        towards, back = {(m, one) for m in others}, {(one, m) for m in others}
        links = chance.choice((towards, back, towards | back, towards | back))
        return self._cut(links, chance, longest=30 * SECOND)

    def _chain(self, chance: Random) -> bool:
        """A hears B, B hears C, A does not hear C: no member is cut off, but they see different sets of members."""
        ids = self._members()
        chance.shuffle(ids)
        far = {(a, b) for n, a in enumerate(ids) for m, b in enumerate(ids) if abs(n - m) > 1}
        return self._cut(far, chance)

    def _clog(self, chance: Random) -> bool:
        ids = self._members()
        if len(ids) < 2:
            return False
        one, other = chance.sample(ids, 2)
        self._cluster.network.clog((one, other))
        self._world.at(self._world.now + int(chance.random() * 3 * SECOND), self._cluster.network.unclog, (one, other))
        return True

    def _swizzle(self, chance: Random) -> bool:
        """Stop one member's links one by one, each way, then let them go on in another order (FoundationDB's best
        finder of faults): old messages arrive when the state of the cluster has changed."""
        node = self._leader_or_some(chance)
        if node is None:
            return False
        network, world = self._cluster.network, self._world
        links = [link for m in self._members() if m != node.id for link in ((m, node.id), (node.id, m))]
        chance.shuffle(links)
        for link in links:
            world.at(world.now + chance.randrange(SECOND), network.clog, link)
        chance.shuffle(links)
        for link in links:
            world.at(world.now + SECOND + chance.randrange(3 * SECOND), network.unclog, link)
        return True

    def _leader_or_some(self, chance: Random) -> Node | None:
        leaders = [n for n in self._cluster.nodes.values() if n.core is not None and n.core.is_leader]
        return chance.choice(leaders) if leaders and chance.random() < 0.7 else self._some(chance)

    def _reset(self, chance: Random) -> bool:
        ids = self._members()
        if len(ids) < 2:
            return False
        one, other = chance.sample(ids, 2)
        self._cluster.network.break_link((one, other))
        self._cluster.network.break_link((other, one))
        if self._mix.hints:
            self._cluster.nodes[one].give(PeerLost(other))
            self._cluster.nodes[other].give(PeerLost(one))
        return True

    # ---- disks ---------------------------------------------------------------------------------------------

    def _sync_error(self, chance: Random) -> bool:
        node = self._some(chance)
        if node is None:
            return False
        node.fail_next_sync()
        self._world.at(self._world.now + SECOND + chance.randrange(3 * SECOND), node.start)
        return True

    def _spare(self, chance: Random) -> Node | None:
        """A member whose disk can be destroyed without the loss of the cluster."""
        run = self._cluster
        conf = run.checker.conf
        now = self._world.now
        settled = all(
            n.core is None or n.removed or (n.core.raft.conf == conf and not conf.joint) for n in run.nodes.values()
        )
        if not settled or now < self._changed_at + SETTLE_NS or not conf.voters:
            return None
        intact = [m for m in conf.voters if run.intact(m)]
        if 2 * (len(intact) - 1) <= len(conf.voters):
            return None
        self._destroyed_at = now
        return run.nodes[chance.choice(intact)]

    def _rot(self, chance: Random) -> bool:
        node = self._spare(chance)
        if node is None or node.disk.records < 3:
            return False
        node.disk.rotten = True
        self._world.note(f"rot in the log of {node.id:x}")
        return True

    def _rot_state(self, chance: Random) -> bool:
        """Rot is found when a damaged row is read, at the next start, or by the patrol, which reads all rows."""
        node = self._spare(chance)
        if node is None or not node.rot_state(chance):
            return False
        self._world.note(f"rot in the state of {node.id:x}")
        return True

    def _lose_disk(self, chance: Random) -> bool:
        node = self._spare(chance)
        if node is None:
            return False
        node.lose_disk()
        return True

    def _full(self, chance: Random) -> bool:
        node = self._some(chance)
        if node is None:
            return False
        node.full(True)
        self._world.sometimes("disk full")
        self._world.at(self._world.now + SECOND + chance.randrange(6 * SECOND), node.full, False)
        return True

    def _flush(self, chance: Random) -> bool:
        for node in self._cluster.nodes.values():
            if chance.random() < 0.7:
                node.flush_state()
        return True

    # ---- processes and clocks ------------------------------------------------------------------------------

    def _kill(self, node: Node, chance: Random, least: int = 50 * MS) -> None:
        node.crash(after_sync=chance.random() < 0.3)
        self._world.at(self._world.now + least + int(chance.random() ** 2 * 3 * SECOND), node.start)

    def _crash(self, chance: Random) -> bool:
        node = self._some(chance)
        if node is None:
            return False
        self._kill(node, chance)
        return True

    def _crash_all(self, chance: Random) -> bool:
        for node in list(self._cluster.nodes.values()):
            if node.up:
                self._kill(node, chance)
        self._world.sometimes("whole cluster restarted")
        return True

    def _crash_loop(self, chance: Random) -> bool:
        node = self._some(chance)
        if node is None:
            return False
        for _ in range(2 + chance.randrange(4)):
            self._world.at(self._world.now + chance.randrange(3 * SECOND), self._crash_again, node)
            self._world.at(self._world.now + chance.randrange(3 * SECOND), node.start)
        self._world.at(self._world.now + 3 * SECOND, node.start)
        self._kill(node, chance)
        return True

    def _crash_again(self, node: Node) -> None:
        if not self.stopped:
            node.crash()

    def _pause(self, chance: Random) -> bool:
        node = self._some(chance)
        if node is None:
            return False
        node.pause(self._world.now + 50 * MS + int(chance.random() ** 2 * 5 * SECOND))
        return True

    def _skew(self) -> None:
        chance = self._world.chance("nemesis/skew")
        for node in self._cluster.nodes.values():
            node.clock.skew(self._world.now, self._cluster.rate(chance.random()))
            node.reschedule()

    def _clock_jump(self, chance: Random) -> bool:
        """A clock jumps ahead (a monotonic clock never goes back), or stands still for a while."""
        node = self._some(chance)
        if node is None:
            return False
        if chance.random() < 0.3:
            node.clock.change(self._world.now, 1)
            self._world.at(self._world.now + chance.randrange(2 * SECOND), self._go_on, node)
        else:
            node.clock.change(self._world.now, node.clock.usual, jump=chance.randrange(4 * SECOND))
        node.reschedule()
        return True

    def _go_on(self, node: Node) -> None:
        node.clock.change(self._world.now, node.clock.usual)
        node.reschedule()

    def _wall_jump(self, chance: Random) -> bool:
        node = self._some(chance)
        if node is None:
            return False
        node.wall_offset_ms = chance.randrange(-100_000, 100_000)
        return True

    # ---- leadership and membership -------------------------------------------------------------------------

    def _transfer(self, chance: Random) -> bool:
        leaders = [n for n in self._cluster.nodes.values() if n.core is not None and n.core.is_leader]
        if not leaders:
            return False
        node = chance.choice(leaders)
        assert node.core is not None
        node.give(Transfer(chance.choice((0, *node.core.raft.conf.voters))))
        self._world.sometimes("leadership handed over")
        if self._mix.one_way and chance.random() < 0.5:
            # It can start the transfer, but cannot hear of the result.
            self._world.at(self._world.now + MS, self._deafen, node, chance)
        return True

    def _late_answers(self, chance: Random) -> bool:
        """Messages to the leader are delayed while it transfers leadership, and arrive when another member leads:
        answers to earlier requests, while clients still send it requests."""
        leaders = [n for n in self._cluster.nodes.values() if n.core is not None and n.core.is_leader]
        if not leaders:
            return False
        node, network, world = chance.choice(leaders), self._cluster.network, self._world
        others = [m for m in self._members() if m != node.id]
        if not others:
            return False
        for other in others:
            network.clog((other, node.id))
            world.at(world.now + 300 * MS + chance.randrange(600 * MS), network.unclog, (other, node.id))
        world.at(world.now + chance.randrange(150 * MS), self._hand_over, node, chance.choice(others))
        return True

    def _hand_over(self, node: Node, to: int) -> None:
        """Transfer leadership, also to a successor that may lack entries: it wins only if its log is complete."""
        if node.core is not None and node.core.is_leader and to in node.core.raft.conf.voters:
            node.give(Transfer(to))
            self._cluster.network.send(TimeoutNow(to, node.id, node.core.term))

    def _deafen(self, node: Node, chance: Random) -> None:
        if not self.stopped:
            self._cut({(m, node.id) for m in self._members() if m != node.id}, chance)

    def _change(self, chance: Random) -> bool:
        node = self._some(chance)
        if node is None or self._world.now < self._destroyed_at + SETTLE_NS:
            return False
        change = self._choose(chance)
        if change is None:
            return False
        self._changed_at = self._world.now
        self._world.note(f"change {' '.join(str(change).split())}")
        ledger = self._cluster.ledger
        id = ledger.next_id()
        deadline = node.clock.local(self._world.now) + CHANGE_NS
        ledger.ask(node, Propose(id, raft_pb2.Command(member=change), deadline), lambda _, answer: None)
        return True

    def _choose(self, chance: Random) -> _Change | None:
        run = self._cluster
        conf = run.checker.conf
        voters, learners = list(conf.voters), list(conf.learners)
        if not voters or conf.joint:
            return None
        dead = [m for m in conf.members() if not run.intact(m)]
        if dead:
            change = _step(_Change.REMOVE, chance.choice(dead))
            if len(conf.members()) <= MAX_MEMBERS:
                change.together.append(self._newcomer())
            self._world.sometimes("dead member replaced")
            return change
        draw = chance.random()
        if learners and draw < 0.45:
            change = _step(_Change.PROMOTE, chance.choice(learners))
            if len(voters) > 1 and draw < 0.15:
                kind = _Change.REMOVE if draw < 0.08 else _Change.DEMOTE
                change.together.append(_step(kind, chance.choice(voters)))
                self._world.sometimes("several members changed at once")
            return change
        if draw < 0.65 and len(conf.members()) < MAX_MEMBERS:
            return self._newcomer()
        if draw < 0.8 and len(voters) > 1:
            return _step(_Change.DEMOTE, chance.choice(voters))
        if len(voters) > 1:
            change = _step(_Change.REMOVE, chance.choice([*voters, *learners]))
            if len(voters) > 3 and draw < 0.9:
                other = chance.choice([v for v in voters if v != change.member.id])
                change.together.append(_step(_Change.REMOVE, other))
                self._world.sometimes("several members changed at once")
            return change
        return self._newcomer()

    def _newcomer(self) -> _Change:
        return _step(_Change.ADD_LEARNER, self._cluster.new_node().id)


def _step(kind: _Change.Kind, member: int) -> _Change:
    info = raft_pb2.MemberInfo(id=member, name=f"m{member:x}")
    if kind == _Change.ADD_LEARNER:
        info.peer_urls.append(f"http://m{member:x}:2380")
    return _Change(kind=kind, member=info)
