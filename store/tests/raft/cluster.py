"""A few Raft cores and their messages, driven step by step: each test says what is written, what arrives and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdfast.member.recovery import Replay
from holdfast.raft.core import Raft
from holdfast.raft.log import Log
from holdfast.raft.messages import Message
from holdfast.raft.quorum import ConfState
from holdfast.raft.types import DurableAppend, HardState, Settings

MS = 1_000_000
SECOND = 1000 * MS
ELECTION = SECOND


class InTurn:
    """Election timeouts without randomness: a member with a lower id waits less."""

    def __init__(self, member: int) -> None:
        self._member = member

    def randrange(self, stop: int, /) -> int:
        return stop * (self._member % 16) // 16


class Cluster:
    """Members by id. Nothing happens by itself: `deliver` mail, `sync` writes, `tick` clocks, or `settle` all of it.

    As in production, the log begins after the founding at index 1, term 1.
    """

    def __init__(
        self,
        voters: Iterable[int],
        learners: Iterable[int] = (),
        settings: Settings | None = None,
    ) -> None:
        self.now = 0
        self.settings = settings or Settings()
        self.conf = ConfState(tuple(voters), learners=tuple(learners))
        self.nodes: dict[int, Raft] = {}
        self.disks: dict[int, Replay] = {}
        self.writes: dict[int, list[DurableAppend]] = {}
        self.mail: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        self.reads: dict[int, int] = {}  # read id -> index
        self.reads_lost: list[int] = []
        self.snapshots: list[tuple[int, int]] = []  # (from, to)
        for member in self.conf.members():
            self.disks[member] = Replay([DurableAppend(0, HardState(term=1), 0, (), base=(1, 1))])
            self.start(member)
        if self.settings.lease_reads:  # promises of an earlier life are over
            self.now = ELECTION
            for raft in self.nodes.values():
                raft.tick(self.now)

    def add(self, member: int) -> None:
        """One more, with an empty volume."""
        self.disks[member] = Replay([DurableAppend(0, None, 0, ())])
        self.start(member, ConfState())

    def start(self, member: int, conf: ConfState | None = None, applied: int | None = None) -> Raft:
        disk = self.disks[member]
        log = Log(disk.log.base_index, disk.log.base_term, disk.log.since(disk.log.first))
        self.writes[member] = []
        self.nodes[member] = Raft(
            member,
            now=self.now,
            random=InTurn(member),
            log=log,
            conf=self.conf if conf is None else conf,
            conf_index=0 if conf == ConfState() else 1,
            applied=log.base_index if applied is None else applied,
            hard_state=disk.hard_state,
            settings=self.settings,
        )
        return self.nodes[member]

    def crash(self, member: int) -> None:
        """What was not synced is gone, and so is the mail to it."""
        self.writes.pop(member)
        self.nodes.pop(member)
        self.mail = [m for m in self.mail if m.to != member]

    # ---- moving ---------------------------------------------------------------------------------------------

    def turn(self, member: int) -> None:
        ready = self.nodes[member].ready()
        if ready.append is not None:
            self.writes[member].append(ready.append)
        self.mail += [m for m in ready.messages if (m.frm, m.to) not in self.cut]
        self.reads.update(dict(ready.reads))
        self.reads_lost += ready.reads_lost
        self.snapshots += [(member, to) for to in ready.snapshots]

    def do(self, member: int, what: Callable[[Raft], object]) -> object:
        """Something that happens to a member, and its turn after it."""
        done = what(self.nodes[member])
        self.turn(member)
        return done

    def sync(self, member: int, count: int | None = None) -> None:
        """The oldest `count` writes (or all) reach the disk."""
        writes = self.writes[member]
        done = writes[: len(writes) if count is None else count]
        del writes[: len(done)]
        for write in done:
            self.disks[member].feed(write)
        if done:
            self.do(member, lambda raft: raft.appended(done[-1].seq))

    def deliver(self, want: Callable[[Message], bool] = lambda _: True) -> int:
        """Deliver the mail that is wanted and under way now. Returns how much that was."""
        chosen = [m for m in self.mail if want(m)]
        self.mail = [m for m in self.mail if not want(m)]
        for message in chosen:
            if message.to in self.nodes and (message.frm, message.to) not in self.cut:
                self.do(message.to, lambda raft, m=message: raft.step(m))  # type: ignore[misc]
        return len(chosen)

    def drop(self, want: Callable[[Message], bool] = lambda _: True) -> list[Message]:
        """Lose the mail that is wanted; returned, so that it may arrive late."""
        lost = [m for m in self.mail if want(m)]
        self.mail = [m for m in self.mail if not want(m)]
        return lost

    def settle(self, *members: int) -> None:
        """Write and deliver until nothing is under way (among `members`, or all)."""
        who = set(members or self.nodes)
        for _ in range(1000):
            moved = 0
            for member in sorted(who & set(self.nodes)):
                moved += len(self.writes[member])
                self.sync(member)
            moved += self.deliver(lambda m: m.to in who and m.frm in who)
            if not moved:
                return
        raise AssertionError("it does not settle")

    def pass_time(self, ns: int, *members: int) -> None:
        """Let time pass for these members (or all), in steps of 10 ms, everything settling meanwhile."""
        for _ in range(0, ns, 10 * MS):
            self.now += 10 * MS
            for member in members or sorted(self.nodes):
                self.do(member, lambda raft: raft.tick(self.now))
            self.settle(*members)

    # ---- shorthands -----------------------------------------------------------------------------------------

    def elect(self, member: int, *among: int) -> Raft:
        self.do(member, lambda raft: raft.campaign())
        self.settle(*among)
        assert self.nodes[member].is_leader, f"{member} was not elected"
        return self.nodes[member]

    def propose(self, member: int, data: bytes, conf: ConfState | None = None) -> int:
        index = self.do(member, lambda raft: raft.propose(data, conf))
        assert isinstance(index, int)
        return index

    def change(self, member: int, voters: Iterable[int], learners: Iterable[int] = ()) -> int:
        return self.propose(member, b"change", self.nodes[member].conf.changed(voters, learners))

    def read(self, member: int, id: int) -> None:
        self.do(member, lambda raft: raft.read(id))

    def isolate(self, *side: int) -> None:
        """Cut these off from the others, both ways."""
        others = set(self.nodes) - set(side)
        self.cut |= {link for a in side for b in others for link in ((a, b), (b, a))}
        self.mail = [m for m in self.mail if (m.frm, m.to) not in self.cut]

    def heal(self) -> None:
        self.cut.clear()

    def log(self, member: int) -> list[tuple[int, bytes]]:
        """(term, data) of what is in a member's log."""
        log = self.nodes[member].log
        return [(e.term, e.data) for e in log.since(log.first)]

    @property
    def leaders(self) -> list[int]:
        return [m for m, raft in self.nodes.items() if raft.is_leader]


def to(member: int) -> Callable[[Message], bool]:
    return lambda m: m.to == member


def kind(*types: type[Message]) -> Callable[[Message], bool]:
    return lambda m: isinstance(m, types)
