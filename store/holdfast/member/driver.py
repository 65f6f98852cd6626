"""Gives the pure core a disk, a network and a clock.

One turn of the loop collects all inputs, steps the core once, hands one record to the log writer and one frame to each
peer, and answers the clients whose entries were applied. Nothing here decides anything about consensus.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from holdfast.histogram import DISK, FAST, Histogram
from holdfast.kv.hashing import HistoryHash
from holdfast.kv.scan import RangeScan
from holdfast.kv.store import StateDamaged, Store
from holdfast.machine import AppliedState
from holdfast.member.core import KEEP_BYTES, MemberCore, request_name
from holdfast.member.disk import Disk
from holdfast.member.heavy import LIGHT, HeavyProposals
from holdfast.member.interface import (
    Answer,
    Appended,
    CacheGiven,
    Campaign,
    Cancel,
    CountedOn,
    DiskFull,
    Flushed,
    HoldCache,
    Input,
    KeepAlive,
    PeerMessage,
    Propose,
    Read,
    ReleaseCache,
    SnapshotOffered,
    SnapshotSent,
    Transfer,
)
from holdfast.member.stall import StallWatch
from holdfast.outbox import Outbox
from holdfast.proto import holdfast_pb2, raft_pb2
from holdfast.raft.messages import Message
from holdfast.raft.status import RaftStatus
from holdfast.raft.types import DurableAppend, HardState, Settings
from holdfast.served.keyspace import ServedSpace
from holdfast.served.prune_task import PruneTask
from holdfast.served.scans import Failed, S, Scans
from holdfast.status import STOPPED, TIMEOUT, Refusal
from holdfast.storage.patrol import SLICE_SECONDS, Patrol
from holdfast.storage.state import NoRoom, RocksStore, StateUnreadable
from holdfast.storage.writer import LogWriter
from holdfast.watch.hub import Delivery, Hub

log = logging.getLogger("holdfast.member")

FLUSH_SECONDS = 10.0
MAX_INPUTS = 1024  # per turn
BUSY_NS = 5_000_000  # how long to wait before retrying a busy store
FULL_NS = 250_000_000  # the same for a full one
NOTE_SECONDS = 0.1  # without a write, after which the commit index is written by itself
STUCK_SECONDS = 60.0
STALL_ELECTIONS = 2  # election timeouts without a durable write, while one waits, after which a leader hands over
SLOW_TURN_SECONDS = 0.1

Answered = Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the driver tells the rest of the server. All are called on the loop."""

    send: Callable[[list[Message]], None]
    deliver: Callable[[list[Delivery]], None]
    send_snapshot: Callable[[int], None]
    conf_changed: Callable[[], None]
    turn_ended: Callable[[], None]
    fatal: Callable[[BaseException], None]
    refused: Callable[[int, str], None]  # a member whose message was refused, and why
    count_on: Callable[[int], int]  # record durably that incarnations continue after this one; returns the new one


class Member:
    """A running member. All methods are called on the loop."""

    def __init__(
        self,
        member: int,
        *,
        incarnation: int,
        disk: Disk,
        hooks: Hooks,
        settings: Settings,
        max_learners: int,
        request_timeout_ns: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._hooks = hooks
        self._disk = disk
        self.store: RocksStore = disk.store
        self.store.on_damage = self._state_damaged
        self.states = disk.states
        self._writer = LogWriter(disk.durable)
        self.core = MemberCore(
            member,
            incarnation=incarnation,
            now_ns=time.monotonic_ns(),
            random=random.SystemRandom(),
            store=disk.store,
            log=disk.log,
            hard_state=disk.hard_state,
            settings=settings,
            max_learners=max_learners,
        )
        scans = Scans(self._loop.call_soon, hooks.turn_ended)
        self.served = ServedSpace(self.core.machine.space, scans)
        # Everything this member applied before its last stop is among these entries: they were durable first.
        self._had = self.core.raft.log.last
        self._recovered = False
        self._noted = disk.hard_state.commit  # the last commit index written to the log
        self._submitted = (0, 0.0)  # the newest write's number, and when it was handed over
        self._note_timer: asyncio.TimerHandle | None = None
        self._disk_timer: asyncio.TimerHandle | None = None
        self._stall = StallWatch(STALL_ELECTIONS * settings.election_ns / 1e9)
        self._stall_look_seconds = settings.election_ns / 1e9 / 2
        self._told_full = False  # what the core was told last
        self._timeout_ns = request_timeout_ns
        self._inputs: list[Input] = []
        self._waiting: dict[int, Answered] = {}
        self._caches: dict[int, Callable[[CacheGiven], None]] = {}  # open streams of cache leases
        self._heavy = HeavyProposals(self._give_in_time)
        self._ids = itertools.count(1)
        self._turn_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0  # when `_timer` fires, in nanoseconds of the monotonic clock
        self._stopped = False
        self._busy_since: float | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._flushed_at = time.monotonic()
        self._pruning = PruneTask(self.served, self._loop.call_later, hooks.turn_ended)
        self._stepped_down: asyncio.Event | None = None
        self.turned_at = time.monotonic()
        self.slow_turns = 0
        self.ranges = 0
        self._commits = Histogram(DISK)
        self._turns = Histogram(FAST)
        self._hashes = Histogram(FAST)
        self._range_times = Histogram(FAST)
        self._loop.add_reader(self._writer.fileno(), self._log_advanced)
        if self.core.raft.conf.voters == (member,):
            self.give(Campaign())  # the only voter need not wait for a timeout
        else:
            self._schedule()
        self._flush_timer = self._loop.call_later(FLUSH_SECONDS, self._flush_if_due)
        self.patrol = Patrol(self.store)
        self._patrolling: asyncio.Task[None] | None = None
        self._patrol_timer = self._loop.call_later(SLICE_SECONDS, self._patrol)

    # ---- for the services ----------------------------------------------------------------------------------

    @property
    def id(self) -> int:
        return self.core.id

    @property
    def state(self) -> AppliedState:
        """The applied state, for reading only."""
        return self.core.machine

    @property
    def raft(self) -> RaftStatus:
        """The Raft state, for reading only."""
        return self.core.raft

    @property
    def is_learner(self) -> bool:
        return self.core.id in self.core.raft.conf.learners

    @property
    def is_voter(self) -> bool:
        return self.core.raft.conf.is_voter(self.core.id)

    @property
    def revision(self) -> int:
        return self.core.machine.space.revision

    @property
    def hub(self) -> Hub:
        return self.served.hub

    @property
    def recovered(self) -> bool:
        """Whether every entry that the log had at the start is applied: then everything that this member can have
        served before is visible again. (`Node.serving` accepts another proof, too.)"""
        if not self._recovered:
            self._recovered = self.core.machine.applied_index >= self._had
        return self._recovered

    def propose(
        self,
        command: raft_pb2.Command,
        answered: Answered,
        deadline_ns: int | None = None,
        *,
        cost: int = 0,
        owner: Hashable = None,
    ) -> Callable[[], None]:
        """Propose `command` to the cluster; `answered` is called once it is applied here, is refused, or its deadline
        has passed (then it may still be applied). `cost`: how many rows applying it takes, at most; if these are many,
        it waits for the turn of its `owner`, the connection. Returns a function that withdraws it while it waits."""
        id = self._wait(answered)
        proposal = Propose(id, command, self._deadline(deadline_ns))
        if cost <= LIGHT:
            self.give(proposal)
            return _nothing
        self._heavy.propose(proposal, cost, owner)

        def withdraw() -> None:
            if self._heavy.withdraw(owner, id):
                del self._waiting[id]

        return withdraw

    def _give_in_time(self, proposal: Propose) -> bool:
        if time.monotonic_ns() < proposal.deadline_ns:
            self.give(proposal)
            return True
        answered = self._waiting.pop(proposal.id, None)
        if answered is not None:
            answered(Answer(proposal.id, TIMEOUT))
        return False

    def read(self, answered: Answered, deadline_ns: int | None = None) -> int:
        """Wait until everything acknowledged so far is applied here."""
        id = self._wait(answered)
        self.give(Read(id, self._deadline(deadline_ns)))
        return id

    def keep_alive(self, lease: int, answered: Answered, *, query: bool = False) -> int:
        id = self._wait(answered)
        self.give(KeepAlive(id, lease, query, self._deadline(None)))
        return id

    def cancel(self, id: int) -> None:
        """The caller does not wait for this answer any more."""
        if self._waiting.pop(id, None) is not None:
            self.give(Cancel(id))

    def open_cache(self, given: Callable[[CacheGiven], None]) -> int:
        """A client wants to hold a cache lease; `given` is called with all that it is told. Returns its id."""
        id = next(self._ids)
        self._caches[id] = given
        return id

    def hold_cache(self, id: int, request: holdfast_pb2.CacheHoldRequest) -> None:
        if id in self._caches:
            self.give(HoldCache(id, request.key, request.range_end, request.number, request.acknowledged))

    def close_cache(self, id: int, *, done: bool, excused: bool = False) -> None:
        """`done`: the client does not use its copy any more. Otherwise its lease may last until it runs out. `excused`:
        we ended the stream."""
        if self._caches.pop(id, None) is not None:
            self.give(ReleaseCache(id, done, excused))

    def transfer_leadership(self, to: int) -> None:
        self.give(Transfer(to))

    def scan(
        self,
        begin: Callable[[], RangeScan],
        done: Callable[[RangeScan], None],
        failed: Failed,
        *,
        owner: Hashable,
        outbox: Outbox | None = None,
    ) -> Callable[[], None] | None:
        """Answer a Range, which `begin` begins, from the applied state: see `Scans.run`."""
        self.ranges += 1
        began = time.monotonic()

        def scanned(scan: RangeScan) -> None:
            self._range_times.observe(time.monotonic() - began)
            done(scan)

        return self.served.scans.run(begin, scanned, failed, owner=owner, outbox=outbox)

    def in_slices(
        self,
        begin: Callable[[], S],
        done: Callable[[S], None],
        failed: Failed,
        *,
        owner: Hashable,
        outbox: Outbox | None = None,
    ) -> Callable[[], None] | None:
        """Do work on many rows over several turns: see `Scans.run`."""
        return self.served.scans.run(begin, done, failed, owner=owner, outbox=outbox)

    def hash(
        self, revision: int, done: Callable[[HistoryHash], None], failed: Failed, *, owner: Hashable
    ) -> Callable[[], None] | None:
        """Hash all history up to `revision` (0 means the newest): see `Scans.run`."""
        began = time.monotonic()

        def hashed(hash: HistoryHash) -> None:
            self._hashes.observe(time.monotonic() - began)
            done(hash)

        return self.served.scans.run(lambda: self.core.machine.space.hash(revision), hashed, failed, owner=owner)

    def timings(self) -> dict[str, Histogram]:
        """Histograms of durations, under the names of etcd's corresponding metrics."""
        return {
            "etcd_disk_wal_fsync_duration_seconds": self._writer.syncs,
            "etcd_disk_backend_commit_duration_seconds": self._commits,
            "etcd_server_apply_duration_seconds": self._turns,
            "etcd_server_range_duration_seconds": self._range_times,
            "etcd_mvcc_hash_duration_seconds": self._hashes,
        }

    def _deadline(self, asked: int | None) -> int:
        latest = time.monotonic_ns() + self._timeout_ns
        return latest if asked is None else min(asked, latest)

    def _wait(self, answered: Answered) -> int:
        id = next(self._ids)
        self._waiting[id] = answered
        return id

    # ---- the turn ------------------------------------------------------------------------------------------

    def give(self, item: Input) -> None:
        """Queue an input for the core's next turn."""
        if not self._stopped:
            self._inputs.append(item)
            self._schedule()

    def received(self, message: Message) -> None:
        self.give(PeerMessage(message))

    def _schedule(self) -> None:
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._loop.call_soon(self._turn)

    def _log_advanced(self) -> None:
        """Called when writes became durable, and when the disk became full or has room again."""
        self.give(Appended(self._writer.completed()))
        self._look_for_room()

    @property
    def disk_full(self) -> bool:
        """Whether the log or the state has no room."""
        return self._writer.full or self.store.full

    def _look_for_room(self) -> None:
        full = self.disk_full
        if full != self._told_full:
            self._told_full = full
            self.give(DiskFull(full))
            if full:
                place = self.store.path if self.store.full else self._disk.durable.directory
                log.error("no room in %s: writes are refused until there is more", place)
            else:
                log.warning("there is room again in %s: writes are accepted", self._disk.durable.directory.parent)

    def _turn(self) -> None:
        self._turn_scheduled = False
        if self._stopped:
            return
        try:
            self._do_turn()
        except BaseException as error:
            self._stopped = True
            self.served.scans.stop()
            self._pruning.stop()
            self._hooks.fatal(error)
            if not isinstance(error, StateUnreadable):  # its message is enough; no traceback
                raise

    def _do_turn(self) -> None:
        began = time.monotonic()
        inputs, self._inputs = self._inputs[:MAX_INPUTS], self._inputs[MAX_INPUTS:]
        out = self.core.step(time.monotonic_ns(), inputs, wall_ms=time.time_ns() // 1_000_000)
        if out.append is not None:
            self._writer.submit(out.append)
            self._submitted = (out.append.seq, began)
            if self._disk_timer is None:
                self._look_at_disk()
            if out.append.hard_state is not None:
                self._noted = out.append.hard_state.commit
        if self._note_timer is None and self.core.raft.commit > self._noted:
            self._note_timer = self._loop.call_later(NOTE_SECONDS, self._note_when_quiet)
        if out.messages:
            self._hooks.send(out.messages)
        if out.installed:
            self._installed()
        if out.forget:
            self._writer.forget(out.forget)
        deliveries = self.served.publish(out.changes)
        if deliveries:
            self._hooks.deliver(deliveries)
        for answer in out.answers:
            self._heavy.answered(answer.id)
            answered = self._waiting.pop(answer.id, None)
            if answered is not None:
                answered(answer)
        for item in out.caches:
            given = self._caches.get(item.id)
            if given is not None:
                given(item)
        if out.conf_changed:
            self._hooks.conf_changed()
        for member in out.snapshots:
            self._hooks.send_snapshot(member)
        if out.later_start:
            self.give(CountedOn(self._hooks.count_on(out.later_start)))
        for member, why in out.refused:
            self._hooks.refused(member, why)
        if self.disk_full != self._told_full:  # applying found no room, or some again
            self._look_for_room()
        self._pruning.start()
        if self._stepped_down is not None and not self.core.is_leader:
            self._stepped_down.set()
        self._hooks.turn_ended()
        self.turned_at = time.monotonic()
        self._turns.observe(self.turned_at - began)
        if self.turned_at > began + SLOW_TURN_SECONDS:
            self.slow_turns += 1
            names = ", ".join(request_name(*name) for name in out.applied[:5])
            log.warning(
                "a turn of the loop took %.0f ms: heartbeats and answers wait; it applied %d requests%s",
                (self.turned_at - began) * 1e3,
                len(out.applied),
                f" ({names}{', …' if len(out.applied) > 5 else ''})" if names else "",
            )
        self._schedule_next(out.more)

    def _schedule_next(self, more: bool) -> None:
        if self._inputs or self.served.busy or (more and (self.core.raft.full or not self.core.machine.busy)):
            self._schedule()
            return
        now, due = time.monotonic_ns(), self.core.deadline_ns
        if self.core.machine.busy:
            due = min(due, now + (FULL_NS if self.store.full else BUSY_NS))
            self._watch_busy()
        else:
            self._busy_since = None
        if self._timer is not None:
            if self._due <= due:
                return  # an early turn does no harm, and is cheaper than setting a new timer each turn
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(max(0, due - now) / 1e9, self._timer_is_due)

    def _timer_is_due(self) -> None:
        self._timer = None
        self._schedule()

    def _watch_busy(self) -> None:
        """A store that stays busy although the disk has room does not recover: stop, to restart from the log."""
        now = time.monotonic()
        if self._busy_since is None or self.disk_full or not self.store.has_room():
            self._busy_since = now
        elif now > self._busy_since + STUCK_SECONDS:
            raise StateUnreadable(
                f"the state in {self.store.path} has taken no writes for {STUCK_SECONDS:g} s, although there is room; "
                "start this member again: it recovers from its log"
            )

    def _state_damaged(self, damage: StateDamaged) -> None:
        """A read, on the loop or in a thread, found damage. Stop this member, even if the reader handles the error."""
        self._loop.call_soon_threadsafe(self._hooks.fatal, damage)

    # ---- a disk that hangs ---------------------------------------------------------------------------------

    @property
    def disk_stalled(self) -> bool:
        """Whether writes have been waiting for long and none becomes durable."""
        return self._stall.stalled

    def _look_at_disk(self) -> None:
        """While writes wait, look twice per election timeout whether the disk still takes them. A leader whose disk
        does not hands over: it cannot answer its clients, nor confirm renewals of leases."""
        self._disk_timer = None
        was = self._stall.stalled
        waiting = self._stall.look(self._submitted[0], self._writer.durable, time.monotonic())
        if waiting and not self._stopped:
            self._disk_timer = self._loop.call_later(self._stall_look_seconds, self._look_at_disk)
        if self._stall.stalled and not was:
            log.error("the disk of %s has taken no write for long", self._disk.durable.directory)
        elif was and not self._stall.stalled:
            log.warning("the disk of %s takes writes again", self._disk.durable.directory)
        if self._stall.stalled and self.core.is_leader and len(self.core.raft.conf.voters) > 1:
            self.transfer_leadership(0)

    def poke(self) -> None:
        """Schedule a turn because the hub has work: a new watcher, or a stream that can take more."""
        self._schedule()

    # ---- the commit index on disk --------------------------------------------------------------------------

    def _note_when_quiet(self) -> None:
        """Write the commit index by itself if no other write has included it for a while. A member that knows at its
        start that its whole log is committed serves at once, without hearing from a leader first."""
        self._note_timer = None
        if self._stopped or self.core.raft.commit <= self._noted or self._writer.full:
            return
        if self.core.raft.conf.voters == (self.id,):
            return  # a single voter commits its whole log again after a restart
        if time.monotonic() < self._submitted[1] + NOTE_SECONDS:
            self._note_timer = self._loop.call_later(NOTE_SECONDS, self._note_when_quiet)
        else:
            self._note_commit()

    def _note_commit(self) -> None:
        """Write the last hard state again with the new commit index. It reuses the last write's number, because nothing
        waits for it."""
        raft = self.core.raft
        seq, _ = self._submitted
        self._writer.submit(DurableAppend(seq, HardState(raft.term, raft.vote, raft.commit), 0, ()))
        self._noted = raft.commit

    # ---- the state on disk ---------------------------------------------------------------------------------

    def _flush_if_due(self) -> None:
        if self._stopped:
            return
        machine = self.core.machine
        log_ = self.core.raft.log
        behind = machine.applied_index - self.core.flushed_index
        old = time.monotonic() - self._flushed_at > 6 * FLUSH_SECONDS
        if self.store.full:
            due = self.store.has_room()  # a flush shows whether RocksDB goes on
        else:
            due = behind > 0 and not self._writer.full and (behind > 1000 or log_.bytes > KEEP_BYTES // 4 or old)
        if due and self._flushing is None:
            self._flushing = asyncio.ensure_future(self._flush())
        self._flush_timer = self._loop.call_later(FLUSH_SECONDS / 4, self._flush_if_due)

    async def _flush(self) -> None:
        """Make the state durable in a thread; the core may then compact the log up to it."""
        try:
            store, index = self.store, self.core.machine.applied_index
            if self.core.machine.busy:
                return
            began = time.monotonic()
            await self._loop.run_in_executor(None, store.flush)
            self._commits.observe(time.monotonic() - began)
            self._flushed_at = time.monotonic()
            if store is not self.store or self._stopped:
                return
            self.give(Flushed(index))
        except StateDamaged:
            return  # `_state_damaged` was called for it
        except NoRoom as error:
            if not self._told_full:
                log.warning("the state is not flushed; it is tried again: %s", error)
        except StateUnreadable as error:
            self._hooks.fatal(error)
        finally:
            self._flushing = None
            self._look_for_room()

    def _patrol(self) -> None:
        if self._stopped:
            return
        if self.patrol.store is not self.store:
            self.patrol = Patrol(self.store)
        self._patrolling = asyncio.ensure_future(self._patrol_on(self.patrol))
        self._patrol_timer = self._loop.call_later(SLICE_SECONDS, self._patrol)

    async def _patrol_on(self, patrol: Patrol) -> None:
        with contextlib.suppress(StateDamaged):  # `_state_damaged` was called for it
            await self._loop.run_in_executor(None, patrol.step)

    def offer_snapshot(
        self, index: int, index_term: int, frm: int, term: int, open_store: Callable[[], RocksStore]
    ) -> None:
        """A received snapshot is complete and durable beside our state; the core decides whether to install it."""

        def open_it() -> Store:
            self.store = open_store()
            self.store.on_damage = self._state_damaged
            return self.store

        self.give(SnapshotOffered(index, index_term, frm, term, open_it))

    def snapshot_sent(self, member: int, ok: bool) -> None:
        self.give(SnapshotSent(member, ok))

    def _installed(self) -> None:
        space = self.core.machine.space
        log.info("took a snapshot at revision %d, index %d", space.revision, self.core.machine.applied_index)
        self.served.replace(space)

    # ---- compaction ----------------------------------------------------------------------------------------

    def when_pruned(self, done: Callable[[], None]) -> None:
        """Call `done` once all compacted rows are removed."""
        self._pruning.when_done(done)

    # ---- the end -------------------------------------------------------------------------------------------

    async def hand_over(self, seconds: float) -> None:
        """If this member leads, transfer leadership before it stops; wait for that at most `seconds`."""
        if self.core.is_leader and len(self.core.raft.conf.voters) > 1:
            self._stepped_down = asyncio.Event()
            self.transfer_leadership(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stepped_down.wait()

    async def stop(self, error: Refusal = STOPPED) -> None:
        """Answer all waiting calls with `error`, flush, and close the files."""
        if not self._stopped:
            self._stopped = True
            self.served.scans.stop()
            self._pruning.stop()
            for answered in list(self._waiting.values()):
                answered(Answer(0, error))
            self._waiting.clear()
            for given in list(self._caches.values()):
                given(CacheGiven(0, refused=error))
            self._hooks.turn_ended()
        self._flush_timer.cancel()
        for timer in (self._timer, self._note_timer, self._patrol_timer, self._disk_timer):
            if timer is not None:
                timer.cancel()
        if self.core.raft.commit > self._noted and not self._writer.full and self._writer.error is None:
            self._note_commit()
        self._loop.remove_reader(self._writer.fileno())
        await self._loop.run_in_executor(None, self._writer.close)
        for under_way in (self._flushing, self._patrolling):
            if under_way is not None:
                await under_way
        if not self.core.machine.busy:
            with contextlib.suppress(NoRoom, StateDamaged):  # what is not flushed is in the log
                await self._loop.run_in_executor(None, self.store.flush)
        self.store.close()


def _nothing() -> None:
    """A proposal that does not wait cannot be withdrawn."""
