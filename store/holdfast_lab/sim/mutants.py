"""Production code broken on purpose, one rule for each mutant, to show that the simulator notices.

Each mutant is a patch that is applied and reverted here; production code does not know of it. A mutant that no seed
finds is a gap in the simulator, not a harmless change.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from holdfast.edge import upstream
from holdfast.edge.data import ReplicaData
from holdfast.edge.filling import Filling
from holdfast.edge.upstream import Upstream
from holdfast.keyrange import Range, prefix_end
from holdfast.kv import requests, rows
from holdfast.kv.copied import CopiedSpace
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family
from holdfast.machine import Machine
from holdfast.machine.client_sessions import ClientSessions
from holdfast.machine.dedup import ProposalDedup
from holdfast.member import codec, validate
from holdfast.member.core import MemberCore
from holdfast.member.interface import Flushed, Output, SnapshotOffered
from holdfast.member.lease_clock import LeaseClock
from holdfast.member.lessor import Lessor
from holdfast.member.reads import Reads
from holdfast.proto import holdfast_pb2, raft_pb2
from holdfast.raft.core import Raft
from holdfast.raft.durability import Durability
from holdfast.raft.leader import Leader
from holdfast.raft.log import Log
from holdfast.raft.messages import (
    Append,
    AppendReply,
    HeartbeatReply,
    Message,
    PreVoteReply,
    Vote,
    VoteReply,
)
from holdfast.raft.progress import Mode, Progress
from holdfast.raft.quorum import ConfState
from holdfast.raft.state import State
from holdfast.raft.types import DurableAppend, HardState, Role, Settings
from holdfast.status import SESSION_OTHER_COMMAND, RequestError
from holdfast.watch.hub import Hub
from holdfast.watch.watcher import Watcher

from holdfast_lab.sim.mutation import Mutants, Patch, registering
from holdfast_lab.sim.node import Node

MUTANTS: Mutants = {}
_mutant = registering(MUTANTS)


# ---- votes and terms -------------------------------------------------------------------------------------------


@_mutant("a vote is durable before it is given")
def _vote_not_persisted(patch: Patch) -> None:
    original = Durability.next_write

    def next_write(self: Durability, log: Log, hard: HardState) -> DurableAppend | None:
        append = original(self, log, hard)
        if append is not None and append.hard_state is not None:
            append.hard_state = HardState(hard.term, 0, hard.commit)
        return append

    patch(Durability, "next_write", next_write)


@_mutant("a term is durable before anything is said in it")
def _term_not_persisted(patch: Patch) -> None:
    original = Durability.next_write

    def next_write(self: Durability, log: Log, hard: HardState) -> DurableAppend | None:
        append = original(self, log, hard)
        if append is not None and not append.entries:
            append.hard_state = None
        return append

    patch(Durability, "next_write", next_write)


@_mutant("stepping down within a term keeps the vote")
def _vote_cleared_on_step_down(patch: Patch) -> None:
    original = Raft._become_follower

    def become_follower(self: Raft, term: int, leader: int) -> None:
        original(self, term, leader)
        self.vote = 0

    patch(Raft, "_become_follower", become_follower)


@_mutant("one vote a term")
def _two_votes_a_term(patch: Patch) -> None:
    def on_vote(self: Raft, message: Vote) -> None:
        granted = self.log.up_to_date(message.last_index, message.last_term)
        if granted:
            self.vote = message.frm
        self._writes.hold(VoteReply(message.frm, self.id, self.term, granted))

    patch(Raft, "_on_vote", on_vote)


@_mutant("votes only for a log that is as complete as one's own")
def _vote_for_a_stale_log(patch: Patch) -> None:
    patch(Log, "up_to_date", lambda self, index, term: True)


@_mutant("a pre-vote is no vote")
def _pre_vote_counted_as_vote(patch: Patch) -> None:
    original = Raft._dispatch

    def dispatch(self: Raft, message: Message) -> None:
        if isinstance(message, PreVoteReply) and message.granted and self.role is Role.CANDIDATE:
            self._votes[message.frm] = True
            self._count_votes()
        else:
            original(self, message)

    patch(Raft, "_dispatch", dispatch)


@_mutant("the own vote, too, counts only once it is durable")
def _own_vote_counted_early(patch: Patch) -> None:
    original = Raft._ask_for_votes

    def ask(self: Raft, transfer: bool) -> None:
        original(self, transfer)
        self._votes[self.id] = True
        self._self_vote_seq = None
        self._count_votes()

    patch(Raft, "_ask_for_votes", ask)


# ---- durability ------------------------------------------------------------------------------------------------


@_mutant("an append is acknowledged once it is durable")
def _ack_before_sync(patch: Patch) -> None:
    def release(self: Durability) -> list[Message]:
        held, self._held = self._held, []
        return held

    patch(Durability, "release", release)


@_mutant("a leader counts itself once its own write is durable")
def _leader_counts_itself_early(patch: Patch) -> None:
    original = Leader.append

    def append(self: Leader, data: bytes, conf: ConfState | None) -> int:
        index = original(self, data, conf)
        self.progress[self._raft.id].matched(index)
        return index

    patch(Leader, "append", append)


@_mutant("a write that was overtaken by a truncation vouches for nothing it lost")
def _overtaken_write_still_vouches(patch: Patch) -> None:
    def truncated(self: Durability, start: int) -> None:
        if start < self._unsaved:
            self._truncate_from = min(self._truncate_from or start, start)
            self._unsaved = start

    patch(Durability, "truncated", truncated)


@_mutant("what the log lost is lost on the disk, too")
def _truncation_not_written(patch: Patch) -> None:
    original = Durability.next_write

    def next_write(self: Durability, log: Log, hard: HardState) -> DurableAppend | None:
        append = original(self, log, hard)
        if append is not None:
            append.truncate_from = 0
        return append

    patch(Durability, "next_write", next_write)


@_mutant("rows and applied index are one batch")
def _applied_index_outside_the_batch(patch: Patch) -> None:
    original = Machine.flush

    def flush(self: Machine) -> None:
        before = self.store.get(Family.META, b"applied")
        original(self)
        if before is not None:
            self.store.apply([(Family.META, b"applied", before)])

    patch(Machine, "flush", flush)


@_mutant("the log is kept from the last flush on")
def _log_compacted_to_applied(patch: Patch) -> None:
    def compact_log(self: MemberCore, out: Output) -> None:
        log = self.raft.log
        self.raft.compact(max(min(self.machine.applied_index, log.last - 2), log.base_index))
        out.forget = log.base_index

    patch(MemberCore, "_compact_log", compact_log)

    def flush_state(self: Node) -> None:
        self.give(Flushed(0))  # none of it reached the disk

    patch(Node, "flush_state", flush_state)


@_mutant("a member without room acknowledges nothing it did not keep")
def _full_disk_acknowledges(patch: Patch) -> None:
    original = Raft._on_append

    def on_append(self: Raft, message: Append) -> None:
        if self.full and message.entries:
            last = message.prev_index + len(message.entries)
            self._writes.hold(AppendReply(message.frm, self.id, self.term, True, last))
        else:
            original(self, message)

    patch(Raft, "_on_append", on_append)


# ---- commitment and replication --------------------------------------------------------------------------------


@_mutant("an entry of an old term is not committed by counting")
def _old_term_committed_by_counting(patch: Patch) -> None:
    patch(Leader, "_may_commit", lambda self, index: True)


@_mutant("a majority commits")
def _minority_commits(patch: Patch) -> None:
    patch(ConfState, "committed", lambda self, match: max(match.get(m, 0) for m in self.voters))


@_mutant("learners count in no quorum")
def _learner_counted(patch: Patch) -> None:
    original = ConfState.committed

    def committed(self: ConfState, match: Any) -> int:
        if self.joint or not self.learners:
            return original(self, match)
        return original(ConfState(voters=tuple(sorted({*self.voters, *self.learners}))), match)

    patch(ConfState, "committed", committed)


@_mutant("a refusal says nothing of what the member has")
def _refusal_moves_match(patch: Patch) -> None:
    original = Leader.on_append_reply

    def on_append_reply(self: Leader, message: AppendReply) -> None:
        progress = self.progress.get(message.frm)
        if not message.ok and progress is not None and message.hint_index <= self._log.last:
            progress.matched(message.hint_index)
            self.maybe_commit()
        else:
            original(self, message)

    patch(Leader, "on_append_reply", on_append_reply)


@_mutant("an append cuts only what contradicts it")
def _late_append_cuts_the_log(patch: Patch) -> None:
    original = Raft._on_append

    def on_append(self: Raft, message: Append) -> None:
        after = message.prev_index + len(message.entries) + 1
        original(self, message)
        if self.commit < after <= self.log.last and message.entries:
            self._truncate(after)

    patch(Raft, "_on_append", on_append)


@_mutant("an append must fit the entry before it")
def _append_without_a_match(patch: Patch) -> None:
    original = Raft._on_append

    def on_append(self: Raft, message: Append) -> None:
        here = self.log.term(message.prev_index)
        if here is not None and message.prev_index > self.commit:
            message = Append(
                message.to, message.frm, message.term, message.prev_index, here, message.entries, message.commit
            )
        original(self, message)

    patch(Raft, "_on_append", on_append)


@_mutant("an append's commit index counts for no more than the entries it verified")
def _commit_beyond_what_was_verified(patch: Patch) -> None:
    """min(the leader's commit, the own last entry) instead of the last entry of this append (paper figure 2)."""
    original = Raft._on_append

    def on_append(self: Raft, message: Append) -> None:
        original(self, message)
        if self.log.term(message.prev_index) == message.prev_term:
            self.advance_commit(min(message.commit, self.log.last))

    patch(Raft, "_on_append", on_append)


@_mutant("an answered heartbeat asks what of a full window arrived")
def _full_window_waits_for_ever(patch: Patch) -> None:
    def ask(self: Leader, member: int, progress: Progress) -> None:
        if progress.match < self._log.last < progress.next:
            self._send_empty(member, progress)

    patch(Leader, "_ask_what_arrived", ask)


@_mutant("a full window whose place is compacted begins again")
def _compacted_window_waits_for_ever(patch: Patch) -> None:
    def ask(self: Leader, member: int, progress: Progress) -> None:
        if progress.next > self._log.last or not progress.may_send():
            self._send_empty(member, progress)  # which sends nothing once that place is compacted

    patch(Leader, "_ask_what_arrived", ask)


@_mutant("a lost probe is sent again")
def _lost_probe_waits_for_ever(patch: Patch) -> None:
    original = Leader.on_heartbeat_reply

    def on_heartbeat_reply(self: Leader, message: HeartbeatReply) -> None:
        progress = self.progress.get(message.frm)
        paused = progress is not None and progress.paused
        original(self, message)
        if progress is not None and paused:
            progress.paused = True

    patch(Leader, "on_heartbeat_reply", on_heartbeat_reply)


@_mutant("a snapshot that failed is sent again")
def _failed_snapshot_is_forgotten(patch: Patch) -> None:
    original = Leader.snapshot_sent

    def snapshot_sent(self: Leader, member: int, ok: bool) -> None:
        if ok:
            original(self, member, ok)

    patch(Leader, "snapshot_sent", snapshot_sent)


@_mutant("a refused append leads back to probing")
def _refusal_while_replicating_is_ignored(patch: Patch) -> None:
    original = Leader.on_append_reply

    def on_append_reply(self: Leader, message: AppendReply) -> None:
        progress = self.progress.get(message.frm)
        if message.ok or progress is None or progress.mode is not Mode.REPLICATE:
            original(self, message)

    patch(Leader, "on_append_reply", on_append_reply)


# ---- membership ------------------------------------------------------------------------------------------------


@_mutant("voters change through a joint configuration")
def _joint_skipped(patch: Patch) -> None:
    def changed(self: ConfState, voters: Any, learners: Any) -> ConfState:
        return ConfState(voters=tuple(sorted(voters)), learners=tuple(sorted(learners)))

    patch(ConfState, "changed", changed)


@_mutant("a joint configuration is left once it is committed")
def _joint_left_early(patch: Patch) -> None:
    def leave(self: Leader) -> None:
        if self._raft.conf.joint:
            self.append(b"", self._raft.conf.left())

    patch(Leader, "_leave_joint", leave)


@_mutant("a joint configuration decides by both halves")
def _old_half_ignored(patch: Patch) -> None:
    patch(
        ConfState,
        "committed",
        lambda self, match: sorted(match.get(m, 0) for m in self.voters)[(len(self.voters) - 1) // 2],
    )


@_mutant("one change of the configuration at a time")
def _second_change_before_the_first(patch: Patch) -> None:
    def may_change(self: Leader) -> bool:
        return not self.transfer_to and not self._raft.conf.joint

    patch(Leader, "may_change_conf", may_change)
    patch(State, "conf_index", property(lambda self: 0))


@_mutant("a snapshot brings its configuration")
def _snapshot_without_configuration(patch: Patch) -> None:
    original = Raft.restored

    def restored(self: Raft, index: int, index_term: int, conf: ConfState, conf_index: int, frm: int) -> None:
        before = self.confs.current if self.confs.current.voters else conf
        original(self, index, index_term, before, conf_index, frm)

    patch(Raft, "restored", restored)


# ---- reads -----------------------------------------------------------------------------------------------------


@_mutant("a read waits for a round of heartbeats")
def _read_without_a_quorum(patch: Patch) -> None:
    def start(self: Leader) -> None:
        reads, self.reads = self.reads, []
        if self._raft.commit >= self.term_start:
            self._raft.reads_ready.extend((read, self._raft.commit) for read in reads)
        else:
            self.reads = reads

    patch(Leader, "_start_reads", start)


@_mutant("a read waits for the term's first commit")
def _read_before_the_first_commit(patch: Patch) -> None:
    def start(self: Leader) -> None:
        if self.reads:
            self.broadcast_heartbeat()
            self._reads_out.append((self._round, self._raft.commit, self.reads))
            self.reads = []
            self._confirm_reads()

    patch(Leader, "_start_reads", start)


@_mutant("an answer counts for the round it answers")
def _any_answer_confirms_a_read(patch: Patch) -> None:
    original = Leader.on_heartbeat_reply

    def on_reply(self: Leader, message: HeartbeatReply) -> None:
        newest = HeartbeatReply(message.to, message.frm, message.term, self._round, message.promise)
        original(self, newest)

    patch(Leader, "on_heartbeat_reply", on_reply)


@_mutant("a read waits until its index is applied here")
def _read_before_it_is_applied(patch: Patch) -> None:
    original = Reads._confirm
    patch(Reads, "_confirm", lambda self, id, index: original(self, id, 0))


@_mutant("a question's number is never used twice")
def _question_numbers_reused(patch: Patch) -> None:
    def next_question(self: Reads) -> int:
        self._question = self._question % 2 + 1
        while self._question in self._batches or self._question in self._renewals:
            self._question += 1
        return self._question

    patch(Reads, "_next_question", next_question)


@_mutant("a lease is shorter than the promise by the drift of the clocks")
def _lease_longer_than_promised(patch: Patch) -> None:
    patch(Settings, "lease_ns", property(lambda self: 3 * self.election_ns))


@_mutant("no reads by lease after a handing-over")
def _lease_kept_while_handing_over(patch: Patch) -> None:
    original = Leader._leased

    def leased(self: Leader) -> bool:
        self._handed_over = False
        return original(self)

    patch(Leader, "_leased", leased)


@_mutant("a new behaviour is used once every member has it")
def _version_raised_early(patch: Patch) -> None:
    original = MemberCore._raise_version

    def raise_version(self: MemberCore) -> None:
        levels, self._levels = self._levels, dict.fromkeys(self.raft.conf.members(), 2)
        original(self)
        self._levels = levels

    patch(MemberCore, "_raise_version", raise_version)


# ---- what other members say -------------------------------------------------------------------------------------


@_mutant("entries follow one another, and what is before them")
def _append_with_a_gap_taken(patch: Patch) -> None:
    original = validate._append

    def append(m: Append, view: validate.View) -> str:
        why = original(m, view)
        return "" if " in the place of " in why else why

    patch(validate, "_CHECKS", {**validate._CHECKS, Append: append})


@_mutant("no entry is of a later term than the message it comes in")
def _entry_of_a_later_term_taken(patch: Patch) -> None:
    original = validate._append

    def append(m: Append, view: validate.View) -> str:
        why = original(m, view)
        return "" if " after one of " in why else why

    patch(validate, "_CHECKS", {**validate._CHECKS, Append: append})


@_mutant("what is in an entry can be applied")
def _entry_that_is_no_command_taken(patch: Patch) -> None:
    original = validate._append

    def append(m: Append, view: validate.View) -> str:
        why = original(m, view)
        return "" if " a command" in why or " version " in why else why

    patch(validate, "_CHECKS", {**validate._CHECKS, Append: append})


@_mutant("a configuration that comes with an entry can be one")
def _any_configuration_taken(patch: Patch) -> None:
    patch(codec, "conf_fault", lambda conf: "")


@_mutant("a term is within reach of ours")
def _any_term_taken(patch: Patch) -> None:
    original = validate.fault

    def fault(message: Message, view: validate.View) -> str:
        return "" if message.term > view.term + validate.MAX_TERM_JUMP else original(message, view)

    patch(validate, "fault", fault)


@_mutant("nobody has more of the log than its leader")
def _answer_beyond_the_log_counts(patch: Patch) -> None:
    patch(validate, "_CHECKS", {**validate._CHECKS, AppendReply: lambda m, view: ""})


@_mutant("one leader a term, whoever says so")
def _second_leader_heard(patch: Patch) -> None:
    patch(validate, "_leader", lambda m, view: "")


@_mutant("a snapshot is taken from the leader of the term only")
def _snapshot_of_a_second_leader_taken(patch: Patch) -> None:
    original = MemberCore._install

    def install(self: MemberCore, offer: SnapshotOffered, out: Output) -> None:
        leader = self.raft.leader
        if leader not in (0, offer.frm) and offer.term == self.raft.term:
            self.raft.offer_snapshot(offer.index, offer.frm, offer.term)
        else:
            original(self, offer, out)

    patch(MemberCore, "_install", install)


@_mutant("a forwarded command is read before it is put in the log")
def _forwarded_command_appended_unread(patch: Patch) -> None:
    def forwarded(data: bytes, frm: int) -> tuple[raft_pb2.Command, str]:
        return raft_pb2.Command(), ""

    patch(validate, "forwarded", forwarded)


@_mutant("only votes of voters count")
def _vote_of_a_stranger_counts(patch: Patch) -> None:
    original = ConfState.quorum

    def count_votes(self: Raft) -> None:
        if 2 * sum(self._votes.values()) > len(self.conf.voters):
            if self.role is Role.PRE_CANDIDATE:
                self._ask_for_votes(transfer=False)
            else:
                self._become_leader()
        elif original(self.conf, lambda m: self._votes.get(m) is False):
            self.step_down()

    patch(Raft, "_count_votes", count_votes)


# The rule that a learner forgets a leader that it does not hear from has its own test in test_validate.py (a new
# member that took a stranger for its leader). A mutant of it would be found only if a stranger were the first to send
# to a new member, in the last term of a run, and too few seeds have that.


# ---- sessions, leases, watches, replicas -----------------------------------------------------------------------


@_mutant("a kept answer is given only for the command that it was given to")
def _answer_of_another_command_given(patch: Patch) -> None:
    original = ClientSessions.find
    patch(ClientSessions, "find", lambda self, lease, seq, hash=None, only_hashed=False: original(self, lease, seq))


@_mutant("the number of a command is not used up for another one")
def _number_of_another_command_taken(patch: Patch) -> None:
    original = ClientSessions.find

    def find(self: ClientSessions, lease: int, seq: int, hash: Any = None, *, only_hashed: bool = False) -> Any:
        try:
            return original(self, lease, seq, hash, only_hashed=only_hashed)
        except RequestError as error:
            if error.refusal != SESSION_OTHER_COMMAND:
                raise
            return None

    patch(ClientSessions, "find", find)


@_mutant("a proposal that came twice is applied once")
def _proposal_applied_twice(patch: Patch) -> None:
    patch(ProposalDedup, "admit", lambda self, origin, incarnation, seq, low: True)


@_mutant("what was applied is remembered across restarts and snapshots")
def _session_table_lost(patch: Patch) -> None:
    patch(ProposalDedup, "load", lambda self, origin, row: None)


@_mutant("a client's command that came again gets its first answer")
def _client_answer_not_kept(patch: Patch) -> None:
    patch(ClientSessions, "find", lambda self, lease, seq, hash=None, only_hashed=False: None)


@_mutant("a client's kept answers are part of a snapshot")
def _client_answers_lost_in_a_snapshot(patch: Patch) -> None:
    def init(self: ClientSessions, pending: Any) -> None:
        self._pending = pending
        self._sessions = {}

    patch(ClientSessions, "__init__", init)


@_mutant("a new leader gives every lease its whole time")
def _new_leader_ends_leases(patch: Patch) -> None:
    original = LeaseClock.promote
    patch(
        LeaseClock,
        "promote",
        lambda self, leases, remaining, now, extend: original(self, dict.fromkeys(leases, 0), {}, now, extend),
    )


@_mutant("who lost leadership forgets its clock for leases")
def _ex_leader_keeps_lease_clock(patch: Patch) -> None:
    promote_, demote_ = LeaseClock.promote, LeaseClock.demote

    def promote(self: LeaseClock, leases: dict[int, int], remaining: dict[int, int], now: int, extend: int) -> None:
        if not self._expiry:
            promote_(self, leases, remaining, now, extend)

    def demote(self: LeaseClock) -> None:
        if not hasattr(self, "_expiry"):
            demote_(self)

    patch(LeaseClock, "promote", promote)
    patch(LeaseClock, "demote", demote)


@_mutant("a renewal is acknowledged only when no checkpoint counts against it")
def _renewal_beside_a_checkpoint(patch: Patch) -> None:
    patch(Lessor, "_reduced", lambda self, due, machine: set())


@_mutant("a renewal is acknowledged only by who still leads")
def _renewal_without_a_quorum(patch: Patch) -> None:
    original = Reads.asked

    def asked(self: Reads, question: Any) -> None:
        if hasattr(question, "leases") and self._raft.is_leader:
            self._leader_read += 1
            self._as_leader[self._leader_read] = question
            self._raft.reads_ready.append((self._leader_read, self._raft.commit))
        else:
            original(self, question)

    patch(Reads, "asked", asked)


@_mutant("progress is said behind the events it is about")
def _progress_ahead_of_events(patch: Patch) -> None:
    original = Hub.progress

    def progress(self: Hub, stream: int) -> Any:
        behind, self._behind = self._behind, {}
        state = self._streams[stream]
        blocked, state.blocked = state.blocked, False
        try:
            return original(self, stream)
        finally:
            self._behind, state.blocked = behind, blocked

    patch(Hub, "progress", progress)


@_mutant("a slow stream is told later what it was not told")
def _slow_watch_skips(patch: Patch) -> None:
    original = Hub._deliver

    def deliver(self: Hub, ref: tuple[int, int], revision: int, changes: Any, out: Any) -> None:
        if not self._streams[ref[0]].blocked:
            original(self, ref, revision, changes, out)

    patch(Hub, "_deliver", deliver)


@_mutant("watches go on from history when the state is replaced")
def _watch_lost_at_a_snapshot(patch: Patch) -> None:
    def replace_space(self: Hub, space: KeySpace) -> None:
        self._space = space
        for stream in self._streams.values():
            for watcher in stream.watchers.values():
                watcher.next = max(watcher.next, space.revision + 1)

    patch(Hub, "replace_space", replace_space)


@_mutant("a replica deletes what was deleted")
def _replica_keeps_deleted_keys(patch: Patch) -> None:
    original = CopiedSpace._take

    def take(self: CopiedSpace, event: Any, revision: int, sub: int) -> None:
        row = self._pending.get(Family.CUR, event.kv.key)
        original(self, event, revision, sub)
        if event.type == rows.DELETE and row is not None:
            self._pending.put(Family.CUR, event.kv.key, row)
            self.live.add(event.kv.key)

    patch(CopiedSpace, "_take", take)


@_mutant("a replica's watermark is what it is complete to")
def _replica_watermark_ahead(patch: Patch) -> None:
    original = ReplicaData._write

    def write(self: ReplicaData, position: Any) -> None:
        original(self, replace(position, watermark=position.watermark + 1) if position.watermark else position)

    patch(ReplicaData, "_write", write)


@_mutant("a replica's history begins after the snapshot, which lacks the deletions of its revision")
def _replica_history_includes_the_snapshot(patch: Patch) -> None:
    patch(CopiedSpace, "history_from", property(lambda self: self.compacted))


# ---- what an upstream tells its followers ----------------------------------------------------------------------


@_mutant("what follows a snapshot begins with the revision after it")
def _follow_leaves_a_change_out_at_the_seam(patch: Patch) -> None:
    original = Upstream._watcher

    def watcher(self: Upstream, revision: int) -> Watcher:
        return original(self, revision + 1 if self._frames is not None else revision)

    patch(Upstream, "_watcher", watcher)


@_mutant("a snapshot's trailer names the revision that it is of")
def _follow_trailer_ahead(patch: Patch) -> None:
    def filling(store: Any, ranges: Any, trailer: holdfast_pb2.FollowTrailer, chunk_rows: int) -> Filling:
        trailer.revision += 1
        return Filling(store, ranges, trailer, chunk_rows)

    patch(upstream, "Filling", filling)


@_mutant("a follower hears of no change before its snapshot is whole")
def _follow_changes_amid_a_snapshot(patch: Patch) -> None:
    original = Upstream._begin_filling

    def begin(self: Upstream, ranges: Any, now_ns: int) -> None:
        original(self, ranges, now_ns)
        self._hub.unblock(self._stream)

    patch(Upstream, "_begin_filling", begin)


@_mutant("a follower is told of progress when everything up to it was sent")
def _follow_progress_ahead(patch: Patch) -> None:
    original = Upstream.tick

    def tick(self: Upstream, now_ns: int) -> list[bytes]:
        revision = self._source.space.revision
        if not self._following or self._frames is not None or revision <= self._told:
            return original(self, now_ns)
        message = holdfast_pb2.FollowProgress(revision=revision, term=self._source.term)
        return [holdfast_pb2.FollowResponse(progress=message).SerializeToString()]

    patch(Upstream, "tick", tick)


@_mutant("a follower gets the keys of its filter, and no others")
def _follow_filter_not_applied(patch: Patch) -> None:
    original = Upstream._watcher

    def watcher(self: Upstream, revision: int) -> Watcher:
        return replace(original(self, revision), ranges=((b"", None),))

    patch(Upstream, "_watcher", watcher)


@_mutant("a follower whose next change is compacted gets a snapshot")
def _follow_floor_ignored(patch: Patch) -> None:
    original = Upstream._lacking

    def lacking(self: Upstream, start: holdfast_pb2.FollowStart) -> list[Range]:
        return [] if start.watermark else original(self, start)

    patch(Upstream, "_lacking", lacking)


@_mutant("a follower that was cut short gets the rest later")
def _follow_skips_what_did_not_fit(patch: Patch) -> None:
    def over(self: Upstream) -> None:
        self._over = True

    original = Upstream.deliver

    def deliver(self: Upstream, delivery: Any) -> list[bytes]:
        return [] if self._over else original(self, delivery)

    patch(Upstream, "over", over)
    patch(Upstream, "deliver", deliver)


# ---- keys in sequence ------------------------------------------------------------------------------------------


@_mutant("a key in sequence has the revision of its write as its number")
def _sequence_numbered_by_the_last_key(patch: Patch) -> None:
    def put_sequential(
        space: KeySpace, leases: Collection[int], request: holdfast_pb2.PutSequentialRequest
    ) -> holdfast_pb2.PutSequentialResponse:
        last = max(space.keys(request.prefix, prefix_end(request.prefix)), default=b"0")
        key = request.prefix + b"%020d" % (int(last.removeprefix(request.prefix)) + 1)
        space.put(key, request.value, request.lease)
        return holdfast_pb2.PutSequentialResponse(key=key)

    patch(requests, "put_sequential", put_sequential)
