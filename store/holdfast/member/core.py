"""One member, pure: Raft, the state machine, leases and reads in one object.

The asyncio driver and the simulator drive the same object; they add only a disk, a network and a clock. It is
deterministic in its inputs and its store.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

from google.protobuf.message import Message as Proto

from holdfast.kv.store import Store
from holdfast.machine import FORMAT, Applied, Machine
from holdfast.member.interface import (
    Answer,
    Appended,
    Campaign,
    Flushed,
    Input,
    KeepAlive,
    Output,
    PeerMessage,
    Propose,
    Read,
    SnapshotOffered,
    SnapshotSent,
    Transfer,
)
from holdfast.member.lessor import Lessor
from holdfast.member.messages import Forward, ReadReply, ReadRequest, Rejected, Renew, RenewReply
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.conf import ConfState
from holdfast.raft.core import Raft
from holdfast.raft.invariant import invariant
from holdfast.raft.log import Log
from holdfast.raft.messages import Heartbeat, Message
from holdfast.raft.types import HardState, Random, Role, Settings
from holdfast.status import (
    BY_TEXT,
    CONF_MOVED,
    CONF_PENDING,
    LEARNER_NOT_READY,
    MEMBER_EXISTS,
    MEMBER_NOT_FOUND,
    NOT_ENOUGH_STARTED,
    NOT_LEARNER,
    PEER_URL_EXISTS,
    TIMEOUT,
    TIMEOUT_LEADER_FAILED,
    TOO_MANY_LEARNERS,
    TOO_MANY_REQUESTS,
    RequestError,
)

MAX_PENDING = 10_000
MAX_PENDING_BYTES = 32 << 20  # all of it has to fit a frame between members, when it is proposed again
MAX_LEARNERS = 1


class _Pending:
    """A proposal of one of our clients that is not applied here yet."""

    __slots__ = ("command", "deadline_ns", "id", "size")

    def __init__(self, id: int, command: bytes, deadline_ns: int) -> None:
        self.id = id
        self.command = command
        self.deadline_ns = deadline_ns
        self.size = len(command)


class MemberCore:
    """Call `step` with what has happened, do what its output says, and call again at `deadline_ns` at the latest."""

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
    ) -> None:
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
        self.lessor = Lessor()
        self._incarnation = incarnation
        self._now = now_ns
        self._wall_ms = 0
        self._apply_budget = apply_budget
        self._seq = 0
        self._pending: OrderedDict[int, _Pending] = OrderedDict()  # by seq
        self._pending_bytes = 0
        self._forward: list[bytes] = []  # this turn's
        self._resend_at: int | None = None
        self._was = (Role.FOLLOWER, 0, 0)  # role, term, leader of the last turn

        # Reads of our clients. A batch is all that came in one turn, under one id.
        self._new_reads: list[Read] = []
        self._read_batches: dict[int, list[Read]] = {}
        self._confirmed: deque[tuple[int, list[Read]]] = deque()  # (index to have applied, reads)
        self._read_seq = 0
        # Reads and renewals that this member confirms as leader: raft read id -> what to do then.
        self._as_leader: dict[int, ReadRequest | Renew] = {}
        self._leader_read = 0

        self._new_renewals: list[KeepAlive] = []
        self._renewals: dict[int, list[KeepAlive]] = {}
        self._digests: OrderedDict[int, int] = OrderedDict()  # of the last entries, by index
        self.flushed_index = self.machine.applied_index

    # ---- what others may ask -------------------------------------------------------------------------------

    @property
    def leader(self) -> int:
        return self.raft.leader

    @property
    def is_leader(self) -> bool:
        return self.raft.is_leader

    @property
    def term(self) -> int:
        return self.raft.term

    @property
    def deadline_ns(self) -> int:
        deadlines = [self.raft.deadline]
        if self._pending:
            deadlines.append(next(iter(self._pending.values())).deadline_ns)
        if self._resend_at is not None:
            deadlines.append(self._resend_at)
        if self.raft.is_leader and self.lessor.deadline is not None:
            deadlines.append(self.lessor.deadline)
        deadlines.extend(reads[0].deadline_ns for reads in self._read_batches.values())
        deadlines.extend(renewals[0].deadline_ns for renewals in self._renewals.values())
        return min(deadlines)

    # ---- the turn ------------------------------------------------------------------------------------------

    def step(self, now_ns: int, inputs: Sequence[Input], wall_ms: int = 0) -> Output:
        """Take all inputs of a turn. `wall_ms` is told to people (when was this written), never relied on."""
        self._now = now_ns
        self._wall_ms = wall_ms
        out = Output()
        self.raft.tick(now_ns)
        for item in inputs:
            self._take_input(item, out)
        self._notice_leader()
        if self._resend_at is not None and now_ns >= self._resend_at:
            self._ask_again(out.messages)
        self._expire_leases()
        self._forward_commands(out)
        self._ask_reads(out)
        self._apply(out)
        ready = self.raft.take()
        self._on_reads_ready(ready.reads, ready.reads_lost, out)
        out.append = ready.append
        out.messages += ready.messages
        out.snapshots += ready.snapshots
        # A single voter's read is confirmed at once, and a write may have become applicable.
        self._answer_reads(out)
        self._give_up_late(out)
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
            self._new_reads.append(item)
        elif isinstance(item, KeepAlive):
            self._new_renewals.append(item)
        elif isinstance(item, Flushed):
            self.flushed_index = max(self.flushed_index, item.index)
        elif isinstance(item, SnapshotOffered):
            self._install(item, out)
        elif isinstance(item, SnapshotSent):
            self.raft.snapshot_sent(item.member, item.ok)
        elif isinstance(item, Transfer):
            self.raft.transfer(item.to or self._best_successor())
        elif isinstance(item, Campaign):
            self.raft.campaign()
        else:
            self._cancel(item.id)

    def compact_log(self, keep: int, max_bytes: int) -> None:
        """Forget log entries that the flushed state has, but for the newest `keep` (fewer if beyond `max_bytes`)."""
        limit = min(self.flushed_index, self.machine.applied_index)
        log = self.raft.log
        upto = min(limit, log.last - keep)
        if log.bytes > max_bytes:
            upto = max(upto, min(limit, (log.first + log.last) // 2))
        self.raft.compact(max(upto, log.base_index))

    def _on_message(self, message: Message, out: Output) -> None:
        if isinstance(message, Forward):
            for command in message.commands:
                self._propose_for(message.frm, command, out)
        elif isinstance(message, (ReadRequest, Renew)):
            self._read_for(message)
        elif isinstance(message, ReadReply):
            reads = self._read_batches.pop(message.id, None)
            if reads:
                self._confirmed.append((message.index, reads))
        elif isinstance(message, RenewReply):
            self._on_renewed(message.id, dict(zip(message.leases, message.ttls, strict=True)), out)
        elif isinstance(message, Rejected):
            if message.incarnation == self._incarnation:
                self._answer(message.seq, out, error=BY_TEXT.get(message.reason))
        else:
            if isinstance(message, Heartbeat):
                self._compare_digest(message)
            self.raft.step(message)

    # ---- leadership ----------------------------------------------------------------------------------------

    def _notice_leader(self) -> None:
        raft = self.raft
        now = (raft.role, raft.term, raft.leader)
        if now == self._was:
            return
        was_leader = self._was[0] is Role.LEADER and self._was[1] == raft.term
        self._was = now
        if raft.is_leader and not was_leader:
            self.lessor.promote(self.machine.leases, self._now, self.settings.election_ns)
        elif not raft.is_leader:
            self.lessor.demote()
            self._as_leader.clear()
        if raft.leader:
            self._resend_at = self._now  # what the last leader was asked may be lost

    def _best_successor(self) -> int:
        others = [m for m in self.raft.conf.voters if m != self.id]
        return max(others, key=lambda m: (self._match(m), m), default=0)

    def _match(self, member: int) -> int:
        progress = self.raft.progress(member)
        return progress.match if progress else 0

    def caught_up(self, member: int) -> bool:
        """Whether the leader (this member) sees `member` close behind: 90 % of the log and 1,000 entries."""
        match = self._match(member)
        commit = self.raft.commit
        return match > 0 and match * 10 >= commit * 9 and commit - match <= 1000

    # ---- proposals -----------------------------------------------------------------------------------------

    def _propose(self, item: Propose, out: Output) -> None:
        if len(self._pending) >= MAX_PENDING or self._pending_bytes >= MAX_PENDING_BYTES:
            out.answers.append(Answer(item.id, TOO_MANY_REQUESTS))
            return
        self._seq += 1
        command = item.command
        command.format = FORMAT
        command.origin = self.id
        command.incarnation = self._incarnation
        command.seq = self._seq
        command.window_low = next(iter(self._pending), self._seq)
        command.wall_ms = self._wall_ms
        pending = _Pending(item.id, command.SerializeToString(), item.deadline_ns)
        self._pending[self._seq] = pending
        self._pending_bytes += pending.size
        self._forward.append(pending.command)

    def _forward_commands(self, out: Output) -> None:
        if not self._forward:
            return
        leader = self.raft.leader
        if leader == self.id:
            commands, self._forward = self._forward, []
            for command in commands:
                self._propose_for(self.id, command, out)
        elif leader:
            out.messages.append(Forward(leader, self.id, self.raft.term, self._forward))
            self._forward = []
        else:
            self._forward = []  # sent when there is a leader

    def _propose_for(self, origin: int, data: bytes, out: Output) -> None:
        """As leader, put a command in the log. Not the leader: its origin will ask again."""
        if not self.raft.is_leader or self.raft.transferring:
            return
        command = _conf_change(data)
        if command is None:
            self.raft.propose(data)
            return
        if self._under_way(command, data):
            return
        try:
            conf = self._next_conf(command.member)
        except RequestError as refused:
            if origin == self.id:
                self._answer(command.seq, out, error=refused)
            else:
                out.messages.append(
                    Rejected(origin, self.id, self.raft.term, command.incarnation, command.seq, refused.message)
                )
            return
        self.raft.propose(data, conf)
        out.conf_changed = True

    def _under_way(self, command: raft_pb2.Command, data: bytes) -> bool:
        """Whether this change of membership came again while, or after, it did its work."""
        log, at = self.raft.log, self.raft.conf_index
        if log.first <= at <= log.last and log.get(at).data == data:
            return True
        return self.machine.sessions.applied(command.origin, command.incarnation, command.seq)

    def _next_conf(self, change: raft_pb2.MemberChange) -> ConfState:
        """The configuration that `change` leads to, or why there is none."""
        raft = self.raft
        if not raft.may_change_conf() or self.machine.applied_index < raft.conf_index:
            raise CONF_PENDING
        if change.expected_config_index and change.expected_config_index != raft.conf_index:
            raise CONF_MOVED
        conf, member = raft.conf, change.member.id
        known = self.machine.members
        if change.kind in (change.ADD_LEARNER, change.ADD_VOTER):
            if member in known or member in self.machine.removed:
                raise MEMBER_EXISTS
            taken = {url for info in known.values() for url in info.peer_urls}
            if taken & set(change.member.peer_urls):
                raise PEER_URL_EXISTS
            if change.kind == change.ADD_VOTER:
                return self._guarded(conf.with_voter(member), joining=member)
            if len(conf.learners) >= MAX_LEARNERS:
                raise TOO_MANY_LEARNERS
            return conf.with_learner(member)
        if member not in known:
            raise MEMBER_NOT_FOUND
        if change.kind == change.PROMOTE:
            if member not in conf.learners:
                raise NOT_LEARNER
            if not self.caught_up(member):
                raise LEARNER_NOT_READY
            return self._guarded(conf.with_voter(member))
        if change.kind == change.REMOVE:
            if conf.voters == (member,):
                raise NOT_ENOUGH_STARTED
            return self._guarded(conf.without(member)) if conf.is_voter(member) else conf.without(member)
        return conf  # UPDATE: only the address

    def _guarded(self, conf: ConfState, joining: int = 0) -> ConfState:
        """Refuse a change after which those heard from lately would not be a quorum (etcd's strict reconfig check)."""

        def active(member: int) -> bool:
            return member != joining and self.raft.hears(member)

        if not conf.quorum(active):
            raise NOT_ENOUGH_STARTED
        return conf

    def _answer(
        self,
        seq: int,
        out: Output,
        *,
        error: RequestError | None = None,
        response: Proto | None = None,
        revision: int = 0,
    ) -> None:
        pending = self._pending.pop(seq, None)
        if pending is not None:
            self._pending_bytes -= pending.size
            out.answers.append(Answer(pending.id, error, response, revision))

    def _cancel(self, id: int) -> None:
        for seq, pending in self._pending.items():
            if pending.id == id:
                self._pending_bytes -= pending.size
                del self._pending[seq]
                return
        self._new_reads = [r for r in self._new_reads if r.id != id]
        self._new_renewals = [r for r in self._new_renewals if r.id != id]

    def _give_up_late(self, out: Output) -> None:
        now = self._now
        while self._pending:
            seq, pending = next(iter(self._pending.items()))
            if pending.deadline_ns > now:
                break
            self._answer(seq, out, error=TIMEOUT)
        for batches in (self._read_batches, self._renewals):
            late = [id for id, waiting in batches.items() if waiting[0].deadline_ns <= now]
            for id in late:
                out.answers.extend(Answer(item.id, TIMEOUT) for item in batches.pop(id))
        if not (self._pending or self._read_batches or self._renewals):
            self._resend_at = None
        elif self._resend_at is None:
            self._resend_at = now + self.settings.election_ns

    # ---- applying ------------------------------------------------------------------------------------------

    def _apply(self, out: Output) -> None:
        """Apply what is committed and durable here, up to this turn's budget, and answer our clients."""
        machine, raft = self.machine, self.raft
        if machine.busy:
            machine.flush()
            if machine.busy:
                return
        upto = min(raft.applicable, machine.applied_index + self._apply_budget)
        if machine.applied_index >= upto:
            return
        answers: list[Applied] = []
        for index in range(machine.applied_index + 1, upto + 1):
            entry = raft.log.get(index)
            applied = machine.apply(entry)
            self._digests[index] = machine.digest
            if entry.conf is not None:
                out.conf_changed = True
            if applied is None:
                continue
            if applied.changes:
                out.changes.append(applied.changes)
            if raft.is_leader and isinstance(applied.response, rpc_pb2.LeaseGrantResponse):
                self.lessor.granted(applied.response.ID, applied.response.TTL, self._now)
            if entry.data and applied.response is None and applied.error is None:
                out.conf_changed = True  # attributes, claims and the like
            if applied.origin == self.id and applied.incarnation == self._incarnation:
                answers.append(applied)
        machine.flush()
        for applied in answers:
            self._answer(
                applied.seq,
                out,
                error=applied.error,
                response=applied.response,
                revision=applied.revision,
            )
        while len(self._digests) > 4096:
            self._digests.popitem(last=False)
        raft.digest = (machine.applied_index, machine.digest)

    def _compare_digest(self, message: Heartbeat) -> None:
        mine = self._digests.get(message.digest_index)
        invariant(
            mine is None or mine == message.digest,
            f"this member's state differs from its leader's at index {message.digest_index}: "
            "corrupt; remove this member, give it an empty volume and add it again",
        )

    def _install(self, offer: SnapshotOffered, out: Output) -> None:
        """Take a snapshot's state in the place of ours."""
        if not self.raft.offer_snapshot(offer.index, offer.index_term, offer.frm, offer.term):
            return
        self.machine = Machine(offer.open())
        machine = self.machine
        invariant(
            (machine.applied_index, machine.applied_term) == (offer.index, offer.index_term),
            f"a snapshot said to be of index {offer.index} is of {machine.applied_index}",
        )
        self.raft.restored(offer.index, offer.index_term, machine.conf, machine.conf_index, offer.frm)
        for seq in list(self._pending):
            # Done, but by entries that we never saw one by one: what they answered is lost.
            if machine.sessions.applied(self.id, self._incarnation, seq):
                self._answer(seq, out, error=TIMEOUT_LEADER_FAILED)
        self._digests.clear()
        self.flushed_index = machine.applied_index
        out.installed = True
        out.conf_changed = True

    # ---- reads and renewals --------------------------------------------------------------------------------

    def _ask_reads(self, out: Output) -> None:
        """One question to the leader covers every read that arrived in this turn."""
        leader = self.raft.leader
        if self._new_reads:
            self._read_seq += 1
            self._read_batches[self._read_seq] = self._new_reads
            self._new_reads = []
            if leader:
                self._ask_one_read(self._read_seq, out.messages)
        if self._new_renewals:
            queries = [r for r in self._new_renewals if r.query]
            renewals = [r for r in self._new_renewals if not r.query]
            self._new_renewals = []
            for batch in (queries, renewals):
                if batch:
                    self._read_seq += 1
                    self._renewals[self._read_seq] = batch
                    if leader:
                        self._ask_one_renewal(self._read_seq, out.messages)

    def _ask_one_read(self, id: int, messages: list[Message]) -> None:
        request = ReadRequest(self.raft.leader, self.id, self.raft.term, id)
        if request.to == self.id:
            self._read_for(request)
        else:
            messages.append(request)

    def _ask_one_renewal(self, id: int, messages: list[Message]) -> None:
        batch = self._renewals[id]
        request = Renew(self.raft.leader, self.id, self.raft.term, id, [r.lease for r in batch], batch[0].query)
        if request.to == self.id:
            self._read_for(request)
        else:
            messages.append(request)

    def _ask_again(self, messages: list[Message]) -> None:
        """Commands under their old names, so that they are applied once; questions under new ids, so that no old answer
        fits them."""
        self._forward = [p.command for p in self._pending.values()]
        for id in list(self._read_batches):
            self._read_seq += 1
            self._read_batches[self._read_seq] = self._read_batches.pop(id)
            if self.raft.leader:
                self._ask_one_read(self._read_seq, messages)
        for id in list(self._renewals):
            self._read_seq += 1
            self._renewals[self._read_seq] = self._renewals.pop(id)
            if self.raft.leader:
                self._ask_one_renewal(self._read_seq, messages)
        self._resend_at = None

    def _read_for(self, request: ReadRequest | Renew) -> None:
        """As leader, find out whether we still are, then answer `request`."""
        self._leader_read += 1
        if self.raft.read(self._leader_read):
            self._as_leader[self._leader_read] = request

    def _on_reads_ready(self, ready: list[tuple[int, int]], lost: list[int], out: Output) -> None:
        for read in lost:
            self._as_leader.pop(read, None)
        for read, index in ready:
            request = self._as_leader.pop(read, None)
            if isinstance(request, ReadRequest):
                if request.frm == self.id:
                    reads = self._read_batches.pop(request.id, None)
                    if reads:
                        self._confirmed.append((index, reads))
                else:
                    out.messages.append(ReadReply(request.frm, self.id, self.raft.term, request.id, index))
            elif isinstance(request, Renew):
                self._renew_for(request, out)

    def _answer_reads(self, out: Output) -> None:
        applied = self.machine.applied_index
        waiting: deque[tuple[int, list[Read]]] = deque()
        for index, reads in self._confirmed:
            if index <= applied:
                out.answers.extend(Answer(read.id, revision=self.machine.space.revision) for read in reads)
            else:
                waiting.append((index, reads))
        self._confirmed = waiting

    def _renew_for(self, request: Renew, out: Output) -> None:
        """Leadership is confirmed since the request came: renewing now cannot revive what another leader expired."""
        ttls: list[int] = []
        for lease in request.leases:
            granted = self.machine.leases.get(lease)
            if request.query:
                left = self.lessor.remaining(lease, self._now) if granted is not None else None
                ttls.append(-1 if left is None else left)
            elif granted is not None and self.lessor.renew(lease, granted, self._now):
                ttls.append(granted)
            else:
                ttls.append(0)
        if request.frm == self.id:
            self._on_renewed(request.id, dict(zip(request.leases, ttls, strict=True)), out)
        else:
            out.messages.append(RenewReply(request.frm, self.id, self.raft.term, request.id, request.leases, ttls))

    def _on_renewed(self, id: int, ttls: dict[int, int], out: Output) -> None:
        for item in self._renewals.pop(id, ()):
            out.answers.append(Answer(item.id, ttl=ttls.get(item.lease, 0)))

    def _expire_leases(self) -> None:
        """Propose to revoke what has expired, as a command of our own that no client waits for."""
        if not self.raft.is_leader:
            return
        for lease in self.lessor.expired(self._now, 100, 20 * self.settings.election_ns):
            if lease not in self.machine.leases:
                self.lessor.revoked(lease)
                continue
            command = raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=lease))
            discard = Output()
            self._propose(Propose(0, command, self._now + 10 * self.settings.election_ns), discard)


def _conf_change(data: bytes) -> raft_pb2.Command | None:
    """The command, if it changes the membership. The tag of that field (22, length-delimited) is looked for first,
    because this is asked of every command."""
    if b"\xb2\x01" not in data:
        return None
    command = raft_pb2.Command.FromString(data)
    return command if command.WhichOneof("op") == "member" else None
