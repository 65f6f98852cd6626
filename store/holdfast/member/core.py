"""One member, pure: Raft, the state machine, leases and reads in one object.

The asyncio driver and the simulator drive the same object; they add only a disk, a network and a clock. It is
deterministic in its inputs and its store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from google.protobuf.message import Message as Proto

from holdfast.kv.store import Store
from holdfast.levels import CLUSTER_VERSION, LEVEL
from holdfast.machine import Applied, ClusterEvent, Effect, Machine
from holdfast.member import codec, validate
from holdfast.member.cachable_zones import Prefix, Zones, may_wait
from holdfast.member.cache_leases import CacheLeases, Held
from holdfast.member.interface import (
    Answer,
    Appended,
    CacheGiven,
    Campaign,
    CountedOn,
    DiskFull,
    Flushed,
    HoldCache,
    Input,
    KeepAlive,
    Output,
    PeerLost,
    PeerMessage,
    Propose,
    Read,
    ReleaseCache,
    SnapshotOffered,
    SnapshotSent,
    Transfer,
)
from holdfast.member.lessor import Lessor
from holdfast.member.membership import next_conf
from holdfast.member.messages import Forward, ReadReply, ReadRequest, Rejected, Renew, RenewReply
from holdfast.member.reads import Reads
from holdfast.proto import raft_pb2
from holdfast.raft.core import Raft
from holdfast.raft.invariant import invariant
from holdfast.raft.log import Entry, Log
from holdfast.raft.messages import Heartbeat, HeartbeatReply, Message
from holdfast.raft.progress import Mode
from holdfast.raft.types import HardState, Random, Role, Settings
from holdfast.status import (
    BY_TEXT,
    NO_SPACE,
    NOT_LEADER,
    TIMEOUT,
    TIMEOUT_LEADER_FAILED,
    TOO_MANY_REQUESTS,
    UNHEALTHY,
    Refusal,
    RequestError,
)

MAX_PENDING = 10_000
MAX_PENDING_BYTES = 32 << 20  # when it is proposed again, all of it has to fit one frame between members
# How many of these, and bytes, may have to wait for clients' caches. They wait long, and others need room beside them.
MAX_WAITING = 1_000
MAX_WAITING_BYTES = 4 << 20
MAX_LEARNERS = 1  # as in etcd
KEEP_ENTRIES = 5000  # log entries kept although the flushed state has them
KEEP_BYTES = 64 << 20
KEPT_DIGESTS = 4096
APPLY_ROWS = 2000  # cost, in rows read, of a turn's entries before applying stops; the last entry may exceed it
REMEMBERED_ELECTIONS = 20  # how long a leader remembers a refused proposal, in election timeouts


class _Pending:
    """A proposal of one of our clients that is not applied here yet."""

    __slots__ = ("command", "deadline_ns", "decoded", "id", "membership", "sent", "size", "waits")

    def __init__(self, id: int, command: raft_pb2.Command, deadline_ns: int, *, waits: bool) -> None:
        self.id = id
        self.command = command.SerializeToString()
        self.decoded: raft_pb2.Command | None = command  # until it is sent
        self.membership = command.HasField("member")
        self.deadline_ns = deadline_ns
        self.waits = waits  # it may have to wait for clients' caches
        self.size = len(self.command)
        self.sent = 0  # how often it was sent to a leader: an earlier leader may have it in its log


class MemberCore:
    """Call `step` with the inputs, carry out its output, and call it again at `deadline_ns` at the latest."""

    def __init__(
        self,
        member: int,
        *,
        incarnation: int,
        now_ns: int,
        random: Random,
        store: Store,
        log: Log,
        hard_state: HardState,
        settings: Settings | None = None,
        apply_budget: int = 256,
        max_learners: int = MAX_LEARNERS,
        keep_entries: int = KEEP_ENTRIES,
        keep_bytes: int = KEEP_BYTES,
        level: int = LEVEL,
    ) -> None:
        """`keep_entries`, `keep_bytes`: how much of the log to keep, see `_compact_log`. `level`: the level of
        behaviour (`holdfast.levels`) that this program supports; only the simulator passes a lower one."""
        self.id = member
        self.settings = settings or Settings()
        self.machine = Machine(store)
        self.raft = Raft(
            member,
            now=now_ns,
            random=random,
            log=log,
            conf=self.machine.conf,
            conf_index=self.machine.conf_index,
            applied=self.machine.applied_index,
            hard_state=hard_state,
            settings=self.settings,
        )
        self.lessor = Lessor(self.settings)
        self.caches = CacheLeases(self.settings)
        self._incarnation = incarnation
        self._now = now_ns
        self._wall_ms = 0
        self._apply_budget = apply_budget
        self._seq = 0
        self._pending: OrderedDict[int, _Pending] = OrderedDict()  # by seq
        self._pending_bytes = 0
        self._waiting = self._waiting_bytes = 0  # of the pending ones, those that may have to wait for clients' caches
        self._forward: list[int] = []  # seqs to send to the leader in this turn
        self._resend_at: int | None = None
        self._was = (Role.FOLLOWER, 0, 0)  # role, term, leader of the last turn
        self.leader_changes = 0
        self.failed_proposals = 0

        self._refusals: OrderedDict[tuple[int, int, int], int] = OrderedDict()  # as leader: name -> time to forget
        self._max_learners = max_learners
        self._conf_answer: Applied | None = None  # held until the joint configuration is left
        self._hand_over_at = 0  # when to check next whether a voter of higher priority should lead
        self.reads = Reads(self.raft, incarnation)
        self._digests: OrderedDict[int, int] = OrderedDict()  # after each of the last entries, by index
        self.raft.level = level
        self._levels: dict[int, int] = {}  # as leader: the level that each member reported in this term
        self._version_proposed = 0  # the term in which this member last proposed a cluster version
        self._flushed_index = self.machine.applied_index
        self._flushed = False  # in this turn
        self.keep_entries = keep_entries
        self.keep_bytes = keep_bytes
        self._members_changed()
        self._cachable_changed()

    # ---- queries -------------------------------------------------------------------------------------------

    @property
    def leader(self) -> int:
        return self.raft.leader

    @property
    def is_leader(self) -> bool:
        return self.raft.is_leader

    @property
    def term(self) -> int:
        return self.raft.term

    def name(self, seq: int) -> str:
        """The name of one of our proposals in the log messages of all members."""
        return request_name(self.id, self._incarnation, seq)

    @property
    def flushed_index(self) -> int:
        """The state up to here survives a crash."""
        return self._flushed_index

    @property
    def cache_holders(self) -> int:
        """Clients that hold cache leases, as far as this member has given them."""
        return self.caches.holders(self._now)

    @property
    def pending(self) -> int:
        """Proposals of our clients that are not applied yet."""
        return len(self._pending)

    @property
    def deadline_ns(self) -> int:
        at = self.raft.deadline
        if self._pending:
            at = min(at, next(iter(self._pending.values())).deadline_ns)
        if self._resend_at is not None:
            at = min(at, self._resend_at)
        if self.lessor.deadline is not None and self._may_propose_own():
            at = min(at, self.lessor.deadline)
        if self.caches.active and (due := self.caches.deadline) is not None:
            at = min(at, due)
        return min(at, *self.reads.deadlines()) if self.reads.waiting else at

    # ---- the turn ------------------------------------------------------------------------------------------

    def step(self, now_ns: int, inputs: Sequence[Input], wall_ms: int = 0) -> Output:
        """Process all inputs of a turn. `wall_ms` only records when something was written; no rule depends on it."""
        self._now = now_ns
        self._wall_ms = wall_ms
        out = Output()
        self.raft.tick(now_ns)
        for item in inputs:
            self._take_input(item, out)
        self._notice_leader(out)
        if self._resend_at is not None and now_ns >= self._resend_at:
            self._ask_again(out.messages)
        if self.raft.is_leader:
            self._prefer_another()
            self._tend_leases(out)
            self._raise_version()
            if self.caches.active:
                self._tend_caches(out)
        self._forward_commands(out)
        self.reads.ask(out.messages)
        self._apply(out)
        ready = self.raft.ready()
        if ready.reads or ready.reads_lost:
            for index, question in self.reads.on_ready(ready.reads, ready.reads_lost, out):
                if isinstance(question, Renew):
                    self.lessor.confirmed(index, question)
                else:
                    self.caches.confirmed(question)
        out.append = ready.append
        out.messages += ready.messages
        out.snapshots += ready.snapshots
        # A single voter's read is confirmed at once, and a write may have become applicable.
        if self.lessor.waiting and self.raft.is_leader:
            self._renew_leases(out)
        if self.caches.active:
            out.caches += self.caches.give(self.machine, now_ns)
        self.reads.answer(self.machine, out)
        self._give_up_late(out)
        if self._flushed:
            self._flushed = False
            self._compact_log(out)
        out.more = out.more or self.machine.applied_index < self.raft.applicable
        return out

    def _take_input(self, item: Input, out: Output) -> None:
        if isinstance(item, PeerMessage):
            self._on_message(item.message, out)
        elif isinstance(item, Appended):
            self.raft.appended(item.seq)
        elif isinstance(item, Propose):
            self._propose(item, out)
        elif isinstance(item, Read):
            self.reads.read(item)
        elif isinstance(item, KeepAlive):
            self.reads.keep_alive(item)
        elif isinstance(item, HoldCache):
            self._hold_cache(item, out)
        elif isinstance(item, ReleaseCache):
            self.caches.release(item.id, self._now, done=item.done, excused=item.excused)
        elif isinstance(item, Flushed):
            self._flushed_index = max(self._flushed_index, item.index)
            self._flushed = True
        elif isinstance(item, CountedOn):
            self._incarnation = max(self._incarnation, item.incarnation)
        elif isinstance(item, SnapshotOffered):
            self._install(item, out)
        elif isinstance(item, SnapshotSent):
            self.raft.snapshot_sent(item.member, item.ok)
        elif isinstance(item, Transfer):
            self.raft.transfer(item.to)
        elif isinstance(item, Campaign):
            self.raft.campaign()
        elif isinstance(item, PeerLost):
            self.raft.suspect(item.member)
        elif isinstance(item, DiskFull):
            self._disk_full(item.full)
        else:
            self._cancel(item.id)

    def _compact_log(self, out: Output) -> None:
        """Forget log entries that the flushed state has. Keep the newest `keep_entries`, and what a member that answers
        still lacks, up to four times `keep_entries`. Keep everything while a snapshot is sent to such a member: it
        needs the entries after it. A log over `keep_bytes` loses half its entries even if members lack them."""
        limit = min(self._flushed_index, self.machine.applied_index)
        log, keep = self.raft.log, self.keep_entries
        upto = min(limit, log.last - keep)
        leading = self.raft.leading
        if leading is not None:
            heard = [p for m, p in leading.progress.items() if leading.hears(m)]
            if any(p.mode is Mode.SNAPSHOT for p in heard):
                upto = log.base_index  # a snapshot is useless once the entries after it are gone
            else:
                upto = min(upto, max(min(p.match for p in heard), log.last - 4 * keep))
        if log.bytes > self.keep_bytes:
            upto = max(upto, min(limit, (log.first + log.last) // 2))
        self.raft.compact(max(upto, log.base_index))
        out.forget = log.base_index

    def _on_message(self, message: Message, out: Output) -> None:
        why = validate.fault(message, self.raft)
        if why:
            if index := validate.acknowledged(message, self.raft):
                self.raft.acknowledged(index)
            out.refused.append((message.frm, why))
        elif isinstance(message, Forward):
            self._propose_forwarded(message, out)
        elif isinstance(message, (ReadRequest, Renew)):
            self.reads.asked(message)
        elif isinstance(message, ReadReply):
            self.reads.on_read_reply(message)
        elif isinstance(message, RenewReply):
            self.reads.on_renew_reply(message, out)
        elif isinstance(message, Rejected):
            if message.incarnation == self._incarnation:
                self._refused(message.seq, BY_TEXT.get(message.reason, UNHEALTHY), out)
        else:
            if isinstance(message, HeartbeatReply) and message.term == self.raft.term:
                self._levels[message.frm] = message.level
            self.raft.step(message)
            if isinstance(message, Heartbeat) and (message.frm, message.term) == (self.raft.leader, self.raft.term):
                self._compare_digest(message)

    # ---- leadership ----------------------------------------------------------------------------------------

    def _notice_leader(self, out: Output) -> None:
        raft = self.raft
        now = (raft.role, raft.term, raft.leader)
        if now == self._was:
            return
        was_leader = self._was[0] is Role.LEADER and self._was[1] == raft.term
        self.leader_changes += bool(now[2]) and now[2] != self._was[2]
        self._was = now
        self._levels.clear()
        if raft.is_leader and not was_leader:
            self.lessor.promote(self.machine, self._now)
            leading, unapplied = raft.leading, raft.log.since(max(self.machine.applied_index, raft.log.base_index) + 1)
            assert leading is not None
            self.caches.promote(self.machine, unapplied, leading.term_start, self._now)
        elif not raft.is_leader:
            self.lessor.demote()
            self.caches.demote(out.caches)
        if raft.leader:
            self._resend_at = self._now  # what was sent to the last leader may be lost

    def _members_changed(self) -> None:
        """Members or their attributes changed."""
        members = self.machine.members.values()
        self._priorities = {m.id: m.priority for m in members if m.priority}
        self.raft.prefer(self._priorities)

    def _cachable_changed(self) -> None:
        """Other prefixes may be cached now."""
        self._cachable = Zones(Prefix(prefix) for prefix in self.machine.cachable)

    def _prefer_another(self) -> None:
        """As leader, transfer leadership to a voter of higher priority once its log is close enough."""
        if not self._priorities or self._now < self._hand_over_at:
            return
        self._hand_over_at = self._now + 2 * self.settings.election_ns
        raft, priority = self.raft, self._priorities
        mine = priority.get(self.id, 0)
        better = [m for m in raft.conf.voters if priority.get(m, 0) > mine and raft.hears(m) and self._close(m)]
        if better and not raft.transferring and raft.may_change_conf():
            raft.transfer(max(better, key=lambda m: (priority[m], m)))

    def _close(self, member: int) -> bool:
        progress = self.raft.progress(member)
        return progress is not None and progress.match >= self.raft.commit

    def _raise_version(self) -> None:
        """As leader, raise the cluster version once every member, voter or learner, supports this program's level."""
        level = self.raft.level
        if self.machine.level >= level or self._version_proposed == self.raft.term or not self._may_propose_own():
            return
        others = set(self.raft.conf.members()) - {self.id}
        if level == LEVEL and all(self._levels.get(member, 1) >= LEVEL for member in others):
            self._version_proposed = self.raft.term
            version = raft_pb2.ClusterVersion(version=CLUSTER_VERSION)
            self._propose_own(raft_pb2.Command(cluster_version=version, system=True))

    def _disk_full(self, full: bool) -> None:
        if full and not self.raft.full and self.raft.is_leader:
            self.raft.transfer()  # another member may have room
        self.raft.disk_full(full)

    # ---- proposals -----------------------------------------------------------------------------------------

    def _propose(self, item: Propose, out: Output) -> None:
        if len(self._pending) >= MAX_PENDING or self._pending_bytes >= MAX_PENDING_BYTES:
            out.answers.append(Answer(item.id, TOO_MANY_REQUESTS))
            return
        if self.raft.full and self.raft.leader in (0, self.id):
            out.answers.append(Answer(item.id, NO_SPACE))
            return
        waits = bool(self.machine.cachable) and may_wait(item.command, self._cachable)
        if waits and (self._waiting >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES):
            out.answers.append(Answer(item.id, TOO_MANY_REQUESTS))
            return
        self._name(item.command)
        pending = _Pending(item.id, item.command, item.deadline_ns, waits=waits)
        self._pending[self._seq] = pending
        self._pending_bytes += pending.size
        if waits:
            self._count_waiting(pending, 1)
        self._forward.append(self._seq)

    def _forward_commands(self, out: Output) -> None:
        """Send new and resent proposals to the leader. While there is none they wait for the next leader."""
        seqs, self._forward = self._forward, []
        leader = self.raft.leader
        if not seqs or not leader:
            return
        commands: list[bytes] = []
        for pending in [p for seq in seqs if (p := self._pending.get(seq)) is not None]:
            pending.sent += 1
            decoded, pending.decoded = pending.decoded, None
            if leader == self.id:
                self._propose_for(self.id, pending.command, decoded, out, membership=pending.membership)
            else:
                commands.append(pending.command)
        if commands:
            out.messages.append(Forward(leader, self.id, self.raft.term, commands))

    def _propose_forwarded(self, message: Forward, out: Output) -> None:
        """As leader, append another member's commands. They are checked here, because all members will apply them. If
        leadership was lost, drop them: the origin sends them to the new leader."""
        raft, origin = self.raft, message.frm
        if not raft.is_leader or raft.transferring:
            return
        if origin not in raft.conf.members():
            out.refused.append((origin, "it is not a member"))
            return
        for data in message.commands:
            try:
                command, kind = validate.forwarded(data, origin)
                validate.check_request(command, kind)
            except codec.Malformed as malformed:
                out.refused.append((origin, str(malformed)))
                return
            except RequestError as refused:
                reason = refused.refusal.message
                out.messages.append(Rejected(origin, self.id, raft.term, command.incarnation, command.seq, reason))
                continue
            self._propose_for(origin, data, command, out, membership=kind == "member")

    def _propose_for(
        self, origin: int, data: bytes, command: raft_pb2.Command | None, out: Output, *, membership: bool
    ) -> None:
        """As leader, append a command. If leadership was lost, drop it: its origin sends it to the new leader.
        `command`: `data` decoded, if available; `membership`: whether the command changes the membership."""
        if not self.raft.is_leader or self.raft.transferring:
            return
        plain = not membership and not self.raft.full
        if plain and not self._refusals:
            self._append(data, command, out)
            return
        command = command or raft_pb2.Command.FromString(data)
        name = (command.origin, command.incarnation, command.seq)
        if self._was_refused(name) or self._under_way(command, data):
            return
        if plain:
            self._append(data, command, out)
            return
        try:
            if self.raft.full:
                raise RequestError(NO_SPACE)
            conf = next_conf(self.raft, self.machine, command.member, self._max_learners)
        except RequestError as refused:
            refusal = refused.refusal
            self._refusals[name] = self._now + REMEMBERED_ELECTIONS * self.settings.election_ns
            if origin == self.id:
                self._refused(command.seq, refusal, out)
            else:
                rejected = (command.incarnation, command.seq, refusal.message)
                out.messages.append(Rejected(origin, self.id, self.raft.term, *rejected))
            return
        self.raft.propose(data, conf)
        out.conf_changed = True

    def _append(self, data: bytes, command: raft_pb2.Command | None, out: Output) -> None:
        if self._was[1] != self.raft.term or self._was[0] is not Role.LEADER:
            self._notice_leader(out)  # elected in this turn: clients may hold cache leases of an earlier leader
        if self.caches.active:
            command = command or raft_pb2.Command.FromString(data)
            self._append_unless_cached(Held((command.origin, command.incarnation, command.seq), command, data), out)
            return
        index = self.raft.propose(data)
        if index is not None:
            self.raft.log.get(index).decoded = command  # saves decoding it again when it is applied

    def _was_refused(self, name: tuple[int, int, int]) -> bool:
        """Whether this command was refused lately. Its origin has told its client so; a delayed copy of the command
        must not be appended after that."""
        while self._refusals and next(iter(self._refusals.values())) <= self._now:
            self._refusals.popitem(last=False)
        return name in self._refusals

    def _under_way(self, command: raft_pb2.Command, data: bytes) -> bool:
        """Whether this command is in the log but not applied yet, or was applied already."""
        log = self.raft.log
        unapplied = log.since(max(self.machine.applied_index, log.base_index) + 1)
        if any(entry.data == data for entry in unapplied):
            return True
        return self.machine.proposals.applied(command.origin, command.incarnation, command.seq)

    def _refused(self, seq: int, error: Refusal, out: Output) -> None:
        """The leader refused this proposal. That is final only if it was sent to no other leader: an earlier one may
        have it in its log, and it may still be committed."""
        pending = self._pending.get(seq)
        if pending is not None and pending.sent <= 1:
            self._answer(seq, out, error=error)

    def _answer(
        self,
        seq: int,
        out: Output,
        *,
        error: Refusal | None = None,
        response: Proto | None = None,
        revision: int = 0,
    ) -> None:
        pending = self._pending.pop(seq, None)
        if pending is not None:
            self._gone(pending)
            out.answers.append(Answer(pending.id, error, response, revision, seq=seq))

    def _gone(self, pending: _Pending) -> None:
        self._pending_bytes -= pending.size
        if pending.waits:
            self._count_waiting(pending, -1)

    def _count_waiting(self, pending: _Pending, sign: int) -> None:
        self._waiting += sign
        self._waiting_bytes += sign * pending.size

    def _cancel(self, id: int) -> None:
        for seq, pending in self._pending.items():
            if pending.id == id:
                self._gone(pending)
                del self._pending[seq]
                return
        self.reads.cancel(id)

    def _give_up_late(self, out: Output) -> None:
        now = self._now
        while self._pending:
            seq, pending = next(iter(self._pending.items()))
            if pending.deadline_ns > now:
                break
            self.failed_proposals += 1
            self._answer(seq, out, error=TIMEOUT)
        self.reads.give_up(now, out)
        if not (self._pending or self.reads.waiting):
            self._resend_at = None
        elif self._resend_at is None:
            self._resend_at = now + self.settings.election_ns

    # ---- applying ------------------------------------------------------------------------------------------

    def _apply(self, out: Output) -> None:
        """Apply what is committed and durable here, up to this turn's budget, and answer our clients."""
        machine, raft = self.machine, self.raft
        if machine.busy:
            machine.flush()
        if machine.busy and not raft.full:
            return
        # While the disk is full, go on in memory, because reads wait for what is committed. A full member takes hardly
        # any entries, so it is at most what the log had before.
        upto = min(raft.applicable, machine.applied_index + self._apply_budget)
        if machine.applied_index >= upto:
            return
        answers: list[Applied] = []
        looked_at = machine.space.looked_at
        for index in range(machine.applied_index + 1, upto + 1):
            if machine.space.looked_at >= looked_at + APPLY_ROWS:
                break  # heartbeats and other inputs go first; the rest follows in the next turn
            entry = raft.log.get(index)
            applied = machine.apply(entry)
            self._digests[index] = machine.digest
            if entry.conf is not None:
                self._conf_applied(entry, answers, out)
            if applied is not None:
                self._applied(entry, applied, answers, out)
        machine.flush()
        for applied in answers:
            self._answer(
                applied.seq,
                out,
                error=applied.error,
                response=applied.response,
                revision=applied.revision,
            )
        while len(self._digests) > KEPT_DIGESTS:
            self._digests.popitem(last=False)
        raft.digest = (machine.applied_index, machine.digest)

    def _applied(self, entry: Entry, applied: Applied, answers: list[Applied], out: Output) -> None:
        out.applied.append((applied.origin, applied.incarnation, applied.seq))
        if applied.changes:
            out.changes.append(applied.changes)
        if applied.effect is not None:
            self._react(applied.effect, out)
        if applied.origin != self.id:
            return
        if applied.incarnation != self._incarnation:
            if applied.incarnation > self._incarnation:
                # Members would ignore the proposals of this incarnation as those of an earlier one.
                out.later_start = max(out.later_start, applied.incarnation)
            return
        if entry.conf is not None and entry.conf.joint:
            self._conf_answer = applied  # answered when the joint configuration is left
        else:
            answers.append(applied)

    def _react(self, effect: Effect, out: Output) -> None:
        if effect is ClusterEvent.CHANGED:
            self._members_changed()
            out.conf_changed = True
        elif effect is ClusterEvent.CACHABLE:
            self._cachable_changed()
            if self.raft.is_leader:
                out.caches += self.caches.declared(self.machine, self.raft.log.last)
        elif self.raft.is_leader:
            self.lessor.applied(effect, self._now)

    def _conf_applied(self, entry: Entry, answers: list[Applied], out: Output) -> None:
        self._members_changed()
        out.conf_changed = True
        if self._conf_answer is not None:
            answers.append(self._conf_answer)
            self._conf_answer = None

    def _compare_digest(self, message: Heartbeat) -> None:
        mine = self._digests.get(message.digest_index)
        invariant(
            mine is None or mine == message.digest,
            f"this member's state differs from its leader's at index {message.digest_index}: "
            "corrupt; remove this member, give it an empty volume and add it again",
        )

    def _install(self, offer: SnapshotOffered, out: Output) -> None:
        """Replace our state by a snapshot's."""
        if self.raft.leader not in (0, offer.frm) and offer.term == self.raft.term:
            out.refused.append((offer.frm, f"a snapshot of a second leader in term {offer.term}"))
            return
        if not self.raft.offer_snapshot(offer.index, offer.frm, offer.term):
            return
        self.machine = machine = Machine(offer.open())
        invariant(
            (machine.applied_index, machine.applied_term) == (offer.index, offer.index_term),
            f"a snapshot said to be of index {offer.index} is of {machine.applied_index}",
        )
        self.raft.restored(offer.index, offer.index_term, machine.conf, machine.conf_index, offer.frm)
        for seq in list(self._pending):
            # Applied, but by entries that the snapshot replaced: their results are unknown here.
            if machine.proposals.applied(self.id, self._incarnation, seq):
                self._answer(seq, out, error=TIMEOUT_LEADER_FAILED)
        self._conf_answer = None
        self._digests.clear()
        self._flushed_index = machine.applied_index
        self._members_changed()
        self._cachable_changed()
        out.forget = offer.index
        out.installed = True
        out.conf_changed = True

    # ---- asking the leader, and answering as leader --------------------------------------------------------

    def _ask_again(self, messages: list[Message]) -> None:
        """Send commands again under their old names, so that they are applied once, and reads under new ids."""
        self._forward = list(self._pending)
        self.reads.ask_again(messages)
        self._resend_at = None

    def _tend_leases(self, out: Output) -> None:
        if not self._may_propose_own():
            return
        for command in self.lessor.due(self.machine, self._now):
            if self.caches.active and command.HasField("lease_revoke"):
                name = (0, command.lease_revoke.id, command.lease_revoke.delay_over)
                self._append_unless_cached(Held(name, command, None), out)
            else:
                self._propose_own(command)

    def _renew_leases(self, out: Output) -> None:
        """Answer the renewals that may be acknowledged now, and propose what the others need before that."""
        next_index = self.raft.log.last + 1 if self._may_propose_own() else None
        answered, commands = self.lessor.renewals(self.machine, self._now, next_index)
        for command in commands:
            self._propose_own(command)
        for question, ttls in answered:
            reply = RenewReply(question.frm, self.id, self.raft.term, question.id, question.leases, ttls)
            if question.frm == self.id:
                self.reads.on_renew_reply(reply, out)
            else:
                out.messages.append(reply)

    def _propose_own(self, command: raft_pb2.Command) -> None:
        self._name(command)
        self.raft.propose(command.SerializeToString())

    def _hold_cache(self, item: HoldCache, out: Output) -> None:
        self._notice_leader(out)
        refused = self.caches.hold(item, self._now, out.caches) if self.raft.is_leader else NOT_LEADER
        if refused is not None:
            out.caches.append(CacheGiven(item.id, refused=refused))

    def _tend_caches(self, out: Output) -> None:
        """As leader, append what need not wait for clients' caches any more, and confirm leadership for new leases."""
        for held in self.caches.released(self._now, out.caches):
            if held.data is not None:
                self._propose_for(held.name[0], held.data, held.command, out, membership=False)
            elif self._may_propose_own():
                self._append_unless_cached(held, out)
        asked = self.caches.to_confirm(self._now)
        if asked:
            self.reads.asked(asked)

    def _append_unless_cached(self, held: Held, out: Output) -> None:
        """As leader, append a command, unless clients have to invalidate their copies first."""
        zones = self.caches.touched(held.command, self.machine)
        if zones and self.caches.holds_back(held, zones, self._now, out.caches):
            return
        command, data = held.command, held.data
        if data is None:
            self._name(command)
            data = command.SerializeToString()
        index = self.raft.propose(data)
        if index is not None:
            self.raft.log.get(index).decoded = command
            self.caches.appended(zones, command, index, self.machine.applied_index)

    def _may_propose_own(self) -> bool:
        """Only once all entries of earlier leaders are applied: they may have given leases more time than is known."""
        leading = self.raft.leading
        if leading is None or self.machine.applied_index < leading.term_start:
            return False
        return not self.raft.transferring and not self.raft.full

    def _name(self, command: raft_pb2.Command) -> None:
        """Fill in the command's name (origin, incarnation, number) and the time."""
        self._seq += 1
        command.format = self.machine.level
        command.origin = self.id
        command.incarnation = self._incarnation
        command.seq = self._seq
        command.window_low = next(iter(self._pending), self._seq)
        command.wall_ms = self._wall_ms


def request_name(origin: int, incarnation: int, seq: int) -> str:
    return f"{origin:x}.{incarnation}.{seq}"
