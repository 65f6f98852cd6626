"""A simulated process: a member's core and watch hub, driven as `member.driver` drives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from holdfast.kv.store import MemoryStore, StateDamaged
from holdfast.levels import LEVEL
from holdfast.machine import Genesis
from holdfast.member.core import MemberCore
from holdfast.member.interface import (
    Answer,
    Appended,
    CacheGiven,
    CountedOn,
    DiskFull,
    Flushed,
    Input,
    Output,
    PeerMessage,
    SnapshotOffered,
    SnapshotSent,
)
from holdfast.raft.messages import Message
from holdfast.raft.types import Settings
from holdfast.served.keyspace import Pruning, ServedSpace
from holdfast.served.scans import Scans
from holdfast.watch.hub import Delivery, Hub

from holdfast_lab.sim.disk import Disk
from holdfast_lab.sim.mix import MS, Mix
from holdfast_lab.sim.rot import RottenStore, is_rotten, rot
from holdfast_lab.sim.violation import Violation
from holdfast_lab.sim.world import World

KEEP_BYTES = 1 << 16
PRUNE_ROWS = 20
APPLY_BUDGET = 7


class Observer(Protocol):
    """Gets notified of everything that a node does."""

    def started(self, node: Node) -> None: ...

    def stepped(self, node: Node, core: MemberCore, out: Output) -> None: ...

    def sends(self, node: Node, message: Message) -> None: ...

    def answered(self, node: Node, answer: Answer) -> None: ...

    def delivered(self, node: Node, delivery: Delivery) -> None: ...

    def cached(self, node: Node, given: CacheGiven) -> None: ...

    def gone(self, node: Node) -> None: ...


@dataclass(slots=True)
class Clock:
    """A node's own clock: it may run fast or slow, jump ahead, or stand still; it never goes back."""

    offset: int = 0
    rate: int = 1 << 20  # ticks of this clock per tick of the world's clock, times 2**20
    since: int = 0
    usual: int = 1 << 20  # its rate unless it stands still

    def local(self, now: int) -> int:
        return self.offset + ((now - self.since) * self.rate >> 20)

    def when(self, local: int) -> int:
        """The world's time at which this clock will show `local`."""
        return self.since + ((local - self.offset) << 20) // self.rate + 1

    def change(self, now: int, rate: int, jump: int = 0) -> None:
        self.offset, self.since, self.rate = self.local(now) + jump, now, rate

    def skew(self, now: int, factor: float) -> None:
        """Run this much faster or slower from now on."""
        self.usual = int((1 << 20) * factor)
        self.change(now, self.usual)


class Node:
    """One member with its disk. `core` is None while it is down."""

    def __init__(
        self,
        world: World,
        mix: Mix,
        member: int,
        genesis: Genesis | None,
        send: Callable[[Message], None],
        observer: Observer,
        reach: Callable[[int], Node | None],
    ) -> None:
        self.world = world
        self.mix = mix
        self.id = member
        self.disk = Disk(world.chance(f"disk/{member}"), genesis)
        self.clock = Clock()
        self.wall_offset_ms = 0
        self.core: MemberCore | None = None
        self.served: ServedSpace | None = None
        self.store = MemoryStore()
        self.incarnation = 0
        self.paused = False
        self.founder = genesis is not None
        self.removed = False  # removed from the cluster; it may still send messages
        self._send = send
        self._observer = observer
        self._reach = reach
        self._chance = world.chance(f"node/{member}")
        self._inbox: list[Input] = []
        self._writing = False
        self._wake_at: int | None = None
        self._pruning = False
        self._sync_fails = False
        self._life = 0  # number of its start; events planned for an earlier start are void

    @property
    def up(self) -> bool:
        return self.core is not None

    @property
    def hub(self) -> Hub | None:
        return None if self.served is None else self.served.hub

    # ---- life and death ------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.core is not None or self.disk.lost:
            return
        if self.disk.rotten:
            self.disk.lost = True
            self.world.note(f"{self.id:x} does not start: its log is damaged where it was durable")
            self.world.sometimes("rot found at start")
            return
        self.incarnation += 1
        self._life += 1
        try:
            core = self.core = self._open()
        except StateDamaged:
            self.world.sometimes("state rot found at start")
            self._give_up_state()
            return
        scans = Scans(lambda work: self.world.at(self.world.now, work), _nothing)
        self.served = ServedSpace(core.machine.space, scans)
        self._inbox, self._writing, self._wake_at, self.paused = [], False, None, False
        self._sync_fails = False
        self._pruning = False
        log = core.raft.log
        self.world.note(f"start {self.id:x} term {core.term} log {log.first}..{log.last}")
        self._observer.started(self)
        self._schedule(self.world.now)

    def _open(self) -> MemberCore:
        self.store, log = self.disk.open()
        self._watch_store()
        checkpoints = 2_000_000_000 if self.mix.checkpoints else 0
        settings = Settings(
            lease_reads=self.mix.lease_reads,
            lease_checkpoint_ns=checkpoints,
            max_inflight_messages=self.mix.window,
            max_message_bytes=self.mix.message_bytes,
        )
        return MemberCore(
            self.id,
            incarnation=self.incarnation,
            now_ns=self.clock.local(self.world.now),
            random=self.world.chance(f"core/{self.id}/{self.incarnation}"),
            store=self.store,
            log=log,
            hard_state=self.disk.durable.hard_state,
            settings=settings,
            apply_budget=APPLY_BUDGET,
            max_learners=4,
            keep_entries=self.mix.keep_entries,
            keep_bytes=KEEP_BYTES,
            level=LEVEL - 1 if self.mix.rolling and self.incarnation == 1 and self.founder else LEVEL,
        )

    def crash(self, after_sync: bool = False) -> None:
        """kill -9, or a power cut. `after_sync`: what was written is durable, but no message was sent."""
        if self.core is None:
            return
        if self.disk.unsynced:
            self.world.sometimes("crash with unsynced records")
        if self.disk.crashed(after_sync):
            self.world.sometimes("torn tail")
        self.world.note(f"crash {self.id:x}, durable up to {self.disk.durable.log.last}")
        self.core = self.served = None
        self._inbox = []
        self._observer.gone(self)

    def lose_disk(self) -> None:
        self.crash()
        self.disk.lost = True
        self.world.note(f"{self.id:x} loses its disk")
        self.world.sometimes("disk lost")

    # ---- rot in the state ----------------------------------------------------------------------------------

    @property
    def state_rotten(self) -> bool:
        return is_rotten(self.disk.state) or (self.core is not None and is_rotten(self.store))

    def rot_state(self, chance: Random) -> bool:
        """Damage rows on the disk, and so in what this member reads."""
        done = rot(self.disk.state, chance)
        if done and self.core is not None:
            done = rot(self.store, chance)
            self._watch_store()
        return done

    def _watch_store(self) -> None:
        if isinstance(self.store, RottenStore):
            self.store.on_damage = lambda: self.world.at(self.world.now, self._state_damaged, self._life)

    def _state_damaged(self, life: int) -> None:
        """A read has met damage: whatever code handles the error, this member stops serving, as with the driver."""
        if life == self._life and self.core is not None:
            self.world.sometimes("state rot found by a read")
            self._give_up_state()

    def _give_up_state(self) -> None:
        """It is unknown what the member lost, so it stops and never starts again (as with the file DAMAGED)."""
        self.crash()
        self.disk.lost = True
        self.world.note(f"{self.id:x} serves no longer: its state is damaged")

    def read_all(self) -> None:
        """The patrol has finished a round: all of the state was read."""
        if self.state_rotten and not self.disk.lost:
            self.world.sometimes("state rot found by the patrol")
            self._give_up_state()

    def fail_next_sync(self) -> None:
        """The next sync fails: the process stops, as with the log writer (a sync is never retried)."""
        self._sync_fails = True

    def mend(self) -> None:
        """The disk works correctly from now on."""
        self._sync_fails = False
        self.full(False)

    def pause(self, until: int) -> None:
        """Stop as by SIGSTOP or a frozen machine: messages queue up, the clock runs on."""
        if self.core is not None and not self.paused:
            self.paused = True
            self.world.note(f"pause {self.id:x}")
            self.world.at(until, self._resume, self._life)

    def _resume(self, life: int) -> None:
        if life == self._life and self.paused:
            self.paused = False
            self.world.note(f"resume {self.id:x}")
            self._wake_at = None
            self._schedule(self.world.now)

    # ---- the turn ------------------------------------------------------------------------------------------

    def give(self, item: Input) -> None:
        if self.core is not None:
            self._inbox.append(item)
            self._schedule(self.world.now)

    def receive(self, message: Message) -> None:
        if self.core is not None:
            self._inbox.append(PeerMessage(message))
            self._schedule(self.world.now)

    def _schedule(self, when: int) -> None:
        if self._wake_at is None or when < self._wake_at:
            self._wake_at = when
            self.world.at(when, self._wake, self._life)

    def reschedule(self) -> None:
        """The clock changed."""
        if self.core is not None:
            self._schedule(self.world.now)

    def _wake(self, life: int) -> None:
        core, world = self.core, self.world
        if core is None or life != self._life or self.paused or self._wake_at is None or self._wake_at > world.now:
            return
        self._wake_at = None
        inputs, self._inbox = self._inbox, []
        now = self.clock.local(world.now)
        wall_ms = max(0, world.now // MS + self.wall_offset_ms)
        try:
            out = core.step(now, inputs, wall_ms=wall_ms)
            self._observer.stepped(self, core, out)
            if self.core is None:
                return
            self._carry_out(core, out)
        except StateDamaged:
            self._state_damaged(self._life)
            return
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Violation("I17", f"{self.id:x} ends by {error!r}") from error
        if out.more:
            self._schedule(world.now + MS // 20)
        else:
            self._schedule(self.clock.when(core.deadline_ns))

    def _carry_out(self, core: MemberCore, out: Output) -> None:
        if out.append is not None:
            self.disk.unsynced.append(out.append)
            self._sync()
        if out.forget:
            self._forget(out.forget)
        for message in out.messages:
            self._observer.sends(self, message)
            self._send(message)
        self._publish(core, out)
        for answer in out.answers:
            self._observer.answered(self, answer)
        for given in out.caches:
            self._observer.cached(self, given)
        if out.later_start:
            self.incarnation = out.later_start + 1
            self.give(CountedOn(self.incarnation))
        for member in out.snapshots:
            self._send_snapshot(core, member)

    def _publish(self, core: MemberCore, out: Output) -> None:
        served = self.served
        assert served is not None
        if out.installed:
            served.replace(core.machine.space)
        deliveries = served.publish(out.changes)
        if served.busy:
            self.world.at(self.world.now + MS, self.poke, self._life)
        for delivery in deliveries:
            self._observer.delivered(self, delivery)
        if not served.pruned and not self._pruning:
            self._pruning = True
            self.world.at(self.world.now + 5 * MS, self._prune, self._life)

    def poke(self, life: int | None = None) -> None:
        """The watch hub has something to do."""
        if life in (None, self._life) and self.core is not None:
            self._schedule(self.world.now)

    # ---- the disk ------------------------------------------------------------------------------------------

    def _sync(self) -> None:
        """One sync at a time; it covers all that was written when it began."""
        if self._writing or not self.disk.unsynced:
            return
        self._writing = True
        slow = self._chance.random() < self.mix.slow_sync
        took = int(self._chance.random() * 300 * MS) if slow else MS // 4 + int(self._chance.random() * 2 * MS)
        self.world.at(self.world.now + took, self._synced, self._life, len(self.disk.unsynced))

    def _synced(self, life: int, count: int) -> None:
        if life != self._life or self.core is None:
            return
        self._writing = False
        if self._sync_fails:
            self.world.note(f"{self.id:x} cannot sync its log and stops")
            self.world.sometimes("sync failed")
            self.crash()
            return
        seq = self.disk.unsynced[count - 1].seq
        self.disk.synced(count)
        self.give(Appended(seq))
        self._sync()

    def flush_state(self) -> None:
        """Flush the state in memory to the disk; then the core may compact the log."""
        core = self.core
        if core is None or core.machine.busy:
            return
        try:
            self.disk.keep_state(self.store.snapshot())
        except StateDamaged:
            return  # `_state_damaged` was called already
        self.give(Flushed(core.machine.applied_index))

    def _forget(self, index: int) -> None:
        durable = self.disk.durable.log
        if durable.base_index < index <= durable.last:
            durable.compact(index)
            self.world.sometimes("log compacted")

    def full(self, full: bool) -> None:
        self.give(DiskFull(full))

    def _prune(self, life: int) -> None:
        if life != self._life or self.core is None or self.served is None:
            return
        try:
            step = self.served.prune(PRUNE_ROWS)
        except StateDamaged:
            return  # `_state_damaged` was called already
        if step is Pruning.DONE:
            self._pruning = False
        else:
            self.world.at(self.world.now + MS, self._prune, life)

    # ---- snapshots -----------------------------------------------------------------------------------------

    def _send_snapshot(self, core: MemberCore, to: int) -> None:
        """Send a snapshot in chunks, each of which may be lost."""
        copy = self.store.snapshot()
        header = (core.machine.applied_index, core.machine.applied_term, core.term)
        self.world.note(f"snapshot {self.id:x}->{to:x} at {header[0]}")
        chunks = 1 + self._chance.randrange(5)
        self._next_chunk(self._life, to, copy, header, chunks, 0)

    def _next_chunk(
        self, life: int, to: int, copy: MemoryStore, header: tuple[int, int, int], left: int, target_life: int
    ) -> None:
        if life != self._life or self.core is None:
            self.world.sometimes("snapshot interrupted by the sender's end")
            return
        target = self._reach(to)
        broken = target is None or target.core is None or (target_life and target._life != target_life)
        if broken or self._chance.random() < (0.0 if self.mix.drop == 0.0 else 0.1):
            self.world.sometimes("snapshot interrupted")
            self.give(SnapshotSent(to, False))
            return
        assert target is not None
        if is_rotten(copy) or (not left and self._chance.random() < self.mix.torn_snapshot):
            # The whole snapshot is read and compared with its header before it is put in use: see `member.snapshots`.
            self.world.sometimes("damaged snapshot refused")
            self.give(SnapshotSent(to, False))
            return
        if left:
            took = 2 * MS + int(self._chance.random() * 40 * MS)
            self.world.at(self.world.now + took, self._next_chunk, life, to, copy, header, left - 1, target._life)
            return
        target.offered(copy, header, self.id)
        self.give(SnapshotSent(to, True))

    def offered(self, copy: MemoryStore, header: tuple[int, int, int], frm: int) -> None:
        index, index_term, term = header

        def put_in_use() -> MemoryStore:
            self.disk.keep_state(copy)
            self.store = copy.snapshot()
            self._watch_store()
            self.world.sometimes("snapshot installed")
            return self.store

        self.give(SnapshotOffered(index, index_term, frm, term, put_in_use))


def _nothing() -> None:
    """Does nothing: no caller waits for the end of a read here."""
