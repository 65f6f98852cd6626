"""Raft as a pure state machine: messages, proposals and the time go in; messages and appends come out.

Sources: Ongaro's thesis (sections named where a rule comes from) and what later implementations learned.
The caller's duties, in order:

1. call `tick`, `step`, `propose`, `read`, `appended` and so on for all that has happened, then `take()` once;
2. write the `Append` of the output durably, in the order of their `seq`, and report each by `appended(seq)`;
3. send the messages of the output at once. What must not leave before something is durable is not in the
   output: it is held here until `appended` says so, so the caller cannot break that rule.
"""

from __future__ import annotations

from collections import deque

from holdfast.raft.conf import ConfState
from holdfast.raft.invariant import invariant
from holdfast.raft.log import Entry, Log
from holdfast.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from holdfast.raft.progress import Mode, Progress
from holdfast.raft.types import DurableAppend, HardState, Random, Ready, Role, Settings


class Raft:
    """One member's part in the consensus. Never blocks, never looks at a clock."""

    def __init__(
        self,
        member: int,
        *,
        now: int,
        random: Random,
        log: Log,
        conf: ConfState,
        conf_index: int,
        applied: int,
        hard_state: HardState,
        settings: Settings,
    ) -> None:
        invariant(member != 0, "a member's id is not 0")
        self.id = member
        self.settings = settings
        self.log = log
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.commit = max(min(hard_state.commit, log.last), log.base_index, applied)
        self.role = Role.FOLLOWER
        self.leader = 0
        # Configurations by the index of the entry that made them; the last one is in force, as soon as it is in
        # the log (thesis section 4.1). Truncation reverts it.
        self._confs: list[tuple[int, ConfState]] = [(conf_index, conf)]
        for index in range(max(log.first, conf_index + 1), log.last + 1):
            entry = log.get(index)
            if entry.conf is not None:
                self._confs.append((index, entry.conf))

        self._random = random
        self._now = now
        self._stable = log.last  # durable up to here
        self._seq = 0
        self._done = 0
        self._in_flight: deque[list[int]] = deque()  # [seq, last index that write made durable]
        self._gated: deque[tuple[int, Message]] = deque()
        self._outbox: list[Message] = []
        self._outbox_gated: list[Message] = []
        self._truncate_from = 0
        self._unsaved = log.last + 1  # first entry not yet handed out for writing
        self._saved_hard = hard_state
        self._base: tuple[int, int] | None = None

        self._votes: dict[int, bool] = {}
        self._self_vote_seq: int | None = None  # the write that makes our own vote durable; -1: not yet numbered
        self._heard_leader_at: int | None = None
        self._progress: dict[int, Progress] = {}
        self._term_start = 0  # index of the entry this leader opened its term with
        self._round = 0
        self._rounds: dict[int, int] = {}  # newest round each member has answered
        self._reads: list[int] = []  # asked for, no round yet
        self._reads_out: deque[tuple[int, int, list[int]]] = deque()  # (round, index, read ids)
        self._transfer_to = 0
        self._transfer_until = 0
        self._snapshots: list[int] = []
        self._reads_ready: list[tuple[int, int]] = []
        self._reads_lost: list[int] = []
        self._commit_moved = False
        self._forced = False  # this election was asked for by the leader
        self.digest: tuple[int, int] = (0, 0)  # (applied index, digest), sent along with heartbeats

        self._election_at = 0
        self._heartbeat_at = 0
        self._quorum_check_at = 0
        self._reset_election_timer()

    # ---- what others may ask -------------------------------------------------------------------------------

    @property
    def conf(self) -> ConfState:
        return self._confs[-1][1]

    @property
    def conf_index(self) -> int:
        return self._confs[-1][0]

    @property
    def stable(self) -> int:
        return self._stable

    @property
    def applicable(self) -> int:
        """Entries up to here may be applied: committed, and durable here (so that applied <= durable)."""
        return min(self.commit, self._stable)

    @property
    def is_leader(self) -> bool:
        return self.role is Role.LEADER

    @property
    def transferring(self) -> bool:
        return self._transfer_to != 0

    @property
    def deadline(self) -> int:
        """When `tick` has to be called next, in the same nanoseconds as `now`."""
        if self.role is not Role.LEADER:
            return self._election_at
        at = min(self._heartbeat_at, self._quorum_check_at)
        return min(at, self._transfer_until) if self._transfer_to else at

    def progress(self, member: int) -> Progress | None:
        return self._progress.get(member)

    def conf_at(self, index: int) -> tuple[int, ConfState]:
        """The configuration in force at `index`, and where it was made."""
        for made, conf in reversed(self._confs):
            if made <= index:
                return made, conf
        raise AssertionError(f"no configuration at {index}: the oldest known is of {self._confs[0][0]}")

    # ---- inputs --------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        invariant(now >= self._now, "time goes backwards")
        self._now = now
        if self.role is Role.LEADER:
            if self._transfer_to and now >= self._transfer_until:
                self._transfer_to = 0
            if now >= self._quorum_check_at:
                self._check_quorum()
            if self.is_leader and now >= self._heartbeat_at:
                self._broadcast_heartbeat()
        elif now >= self._election_at:
            self._reset_election_timer()
            if self._promotable():
                self._campaign(pre=True)

    def campaign(self) -> None:
        """Stand for election now (a hint that the leader is gone, or a single voter's start)."""
        if self.role is not Role.LEADER and self._promotable():
            self._reset_election_timer()
            self._campaign(pre=True)

    def propose(self, data: bytes, conf: ConfState | None = None) -> int | None:
        """Append an entry. Returns its index, or None if this member may not propose now."""
        if self.role is not Role.LEADER or self._transfer_to:
            return None
        index = self.log.last + 1
        if conf is not None:
            invariant(self.may_change_conf(), "a membership change before the last one is committed")
        entry = Entry(index, self.term, data, conf)
        self._append_own(entry)
        return index

    def may_change_conf(self) -> bool:
        """One change at a time, and only once an entry of our own term is committed: otherwise two leaders could
        decide by quorums that do not meet (Ongaro's 2015 erratum on single-server changes)."""
        return (
            self.role is Role.LEADER
            and not self._transfer_to
            and self.conf_index <= self.commit
            and self.commit >= self._term_start
        )

    def read(self, read_id: int) -> bool:
        """Ask for the index a linearizable read has to wait for. False: not the leader. `read_id` is never reused."""
        if self.role is not Role.LEADER:
            return False
        self._reads.append(read_id)
        return True

    def transfer(self, to: int) -> bool:
        """Hand leadership to `to` (thesis section 3.10). No proposals are taken until it took over or timed out."""
        if self.role is not Role.LEADER or to == self.id or to not in self.conf.voters:
            return False
        self._transfer_to = to
        self._transfer_until = self._now + self.settings.election_ns
        progress = self._progress[to]
        if progress.match == self.log.last:
            self._send(TimeoutNow(to, self.id, self.term))
        else:
            self._send_append(to, progress)
        return True

    def appended(self, seq: int) -> None:
        """Everything up to write `seq` is durable."""
        invariant(self._done <= seq <= self._seq, f"write {seq} reported durable, {self._seq} was the last one given")
        self._done = seq
        while self._in_flight and self._in_flight[0][0] <= seq:
            self._stable = max(self._stable, self._in_flight.popleft()[1])
        while self._gated and self._gated[0][0] <= seq:
            self._outbox.append(self._gated.popleft()[1])
        voted = self._self_vote_seq
        if voted is not None and 0 <= voted <= seq:
            self._self_vote_seq = None
            if self.role is Role.CANDIDATE:
                self._votes[self.id] = True
                self._count_votes()
        if self.role is Role.LEADER and self._progress[self.id].matched(self._stable):
            self._maybe_commit()

    def compact(self, index: int) -> None:
        """Forget log entries up to `index`, which the flushed state has."""
        invariant(index <= self.commit, f"compacting to {index} beyond commit {self.commit}")
        while len(self._confs) > 1 and self._confs[1][0] <= index:
            del self._confs[0]
        self.log.compact(index)

    def snapshot_sent(self, member: int, ok: bool) -> None:
        """A snapshot transfer ended. What the member has now it says itself, by AppendReply."""
        progress = self._progress.get(member)
        if self.role is Role.LEADER and progress is not None and progress.mode is Mode.SNAPSHOT:
            # Not at once after a failure: the next heartbeat's answer tries again.
            progress.probe(max(progress.match + 1, self.log.first if ok else progress.next))
            progress.paused = not ok

    def offer_snapshot(self, index: int, index_term: int, frm: int, term: int) -> bool:
        """A whole snapshot has arrived from the leader. True: install it, then call `restored`."""
        if term < self.term:
            return False
        self._see_leader(frm, term)
        if index <= self.commit:
            self._reply_gated(AppendReply(frm, self.id, self.term, True, self.commit))
            return False
        return True

    def restored(self, index: int, index_term: int, conf: ConfState, conf_index: int, frm: int) -> None:
        """The state now is the snapshot's. The log follows; only then is the leader told."""
        invariant(index > self.commit, f"a snapshot of {index} behind commit {self.commit}")
        self.log.reset(index, index_term)
        self._confs = [(conf_index, conf)]
        self.commit = index
        self._stable = index  # the state itself is durable
        self._in_flight.clear()
        self._truncate_from = 0
        self._unsaved = index + 1
        self._base = (index, index_term)
        self._reply_gated(AppendReply(frm, self.id, self.term, True, index))

    def step(self, message: Message) -> None:
        """Take a message from another member."""
        invariant(message.to == self.id, f"a message for {message.to:x} reached {self.id:x}")
        if isinstance(message, PreVote):
            self._on_pre_vote(message)
            return
        if message.term > self.term:
            if isinstance(message, Vote) and not message.transfer and self._leader_is_fresh():
                return  # a removed or cut-off member must not depose a working leader (thesis section 4.2.3)
            if isinstance(message, PreVoteReply) and message.granted:
                pass  # carries the term we asked about
            else:
                leads = isinstance(message, (Append, Heartbeat))
                self._become_follower(message.term, message.frm if leads else 0)
        elif message.term < self.term:
            if isinstance(message, (Append, Heartbeat)):
                # Tell a leader of the past, so that it does not wait for a quorum check to find out.
                self._reply_gated(AppendReply(message.frm, self.id, self.term, False, 0))
            return
        self._dispatch(message)

    def _dispatch(self, message: Message) -> None:
        if isinstance(message, Append):
            self._see_leader(message.frm, message.term)
            self._on_append(message)
        elif isinstance(message, Heartbeat):
            self._see_leader(message.frm, message.term)
            self._advance_commit(min(message.commit, self.log.last))
            self._send(HeartbeatReply(message.frm, self.id, self.term, message.round))
        elif isinstance(message, AppendReply):
            if self.role is Role.LEADER:
                self._on_append_reply(message)
        elif isinstance(message, HeartbeatReply):
            if self.role is Role.LEADER:
                self._on_heartbeat_reply(message)
        elif isinstance(message, Vote):
            self._on_vote(message)
        elif isinstance(message, VoteReply):
            if self.role is Role.CANDIDATE:
                self._votes[message.frm] = message.granted
                self._count_votes()
        elif isinstance(message, PreVoteReply):
            # A granted pre-vote counts for the term it was asked about, and never as a vote.
            if self.role is Role.PRE_CANDIDATE and (not message.granted or message.term == self.term + 1):
                self._votes[message.frm] = message.granted
                self._count_votes()
        elif isinstance(message, TimeoutNow) and self.role is not Role.LEADER and self._promotable():
            self._reset_election_timer()
            self._campaign(pre=False, forced=True)

    # ---- output --------------------------------------------------------------------------------------------

    def take(self) -> Ready:
        """What is to be done now. Ask once after all inputs of a turn."""
        if self.role is Role.LEADER:
            self._start_reads()
            for member in self.conf.members():
                if member != self.id:
                    self._fill(member, self._progress[member])
            self._commit_moved = False
        ready = Ready(append=self._take_append())
        for message in self._outbox_gated:
            if self._seq > self._done:
                self._gated.append((self._seq, message))
            else:
                self._outbox.append(message)
        self._outbox_gated.clear()
        ready.messages, self._outbox = self._outbox, ready.messages
        ready.snapshots, self._snapshots = self._snapshots, ready.snapshots
        ready.reads, self._reads_ready = self._reads_ready, ready.reads
        ready.reads_lost, self._reads_lost = self._reads_lost, ready.reads_lost
        return ready

    def _take_append(self) -> DurableAppend | None:
        hard = HardState(self.term, self.vote, self.commit)
        # The commit index alone is not worth a write; it goes along with the next one.
        votes_changed = (hard.term, hard.vote) != (self._saved_hard.term, self._saved_hard.vote)
        entries = self.log.slice(self._unsaved, self.log.last + 1, 1 << 62) if self._unsaved <= self.log.last else []
        if not (votes_changed or entries or self._truncate_from or self._base):
            return None
        self._seq += 1
        append = DurableAppend(self._seq, hard, self._truncate_from, tuple(entries), self._base)
        self._saved_hard = hard
        self._truncate_from = 0
        self._unsaved = self.log.last + 1
        self._base = None
        self._in_flight.append([self._seq, self.log.last])
        if self._self_vote_seq == -1:
            self._self_vote_seq = self._seq
        return append

    def _send(self, message: Message) -> None:
        self._outbox.append(message)

    def _reply_gated(self, message: Message) -> None:
        """Send once everything that this turn wants durable is (thesis section 3.8)."""
        self._outbox_gated.append(message)

    # ---- elections -----------------------------------------------------------------------------------------

    def _promotable(self) -> bool:
        return self.conf.is_voter(self.id)

    def _leader_is_fresh(self) -> bool:
        if self.role is Role.LEADER:
            return True
        heard = self._heard_leader_at
        return self.leader != 0 and heard is not None and self._now < heard + self.settings.election_ns

    def _reset_election_timer(self) -> None:
        election = self.settings.election_ns
        self._election_at = self._now + election + self._random.randrange(election)

    def _become_follower(self, term: int, leader: int) -> None:
        invariant(term >= self.term, f"term falls from {self.term} to {term}")
        if term > self.term:
            self.term = term
            self.vote = 0  # only here: stepping down within a term keeps the vote
        if self.role is Role.LEADER:
            self._reads_lost.extend(self._reads)
            for _, _, reads in self._reads_out:
                self._reads_lost.extend(reads)
            self._reads.clear()
            self._reads_out.clear()
            self._transfer_to = 0
            self._progress = {}
            self._reset_election_timer()
        self.role = Role.FOLLOWER
        self.leader = leader
        self._votes = {}
        self._self_vote_seq = None

    def _see_leader(self, leader: int, term: int) -> None:
        invariant(self.role is not Role.LEADER or term > self.term, f"two leaders in term {term}")
        if term > self.term or self.role is not Role.FOLLOWER or self.leader != leader:
            self._become_follower(term, leader)
        self._heard_leader_at = self._now
        self._reset_election_timer()

    def _campaign(self, pre: bool, forced: bool = False) -> None:
        self.leader = 0
        self._votes = {}
        self._forced = forced
        last, last_term = self.log.last, self.log.last_term
        peers = [m for m in self.conf.members() if m != self.id and self.conf.is_voter(m)]
        if pre:
            self.role = Role.PRE_CANDIDATE
            self._votes[self.id] = True
            for peer in peers:
                self._send(PreVote(peer, self.id, self.term + 1, last, last_term))
            self._count_votes()
            return
        self.role = Role.CANDIDATE
        self.term += 1
        self.vote = self.id
        self._self_vote_seq = -1  # our own vote, too, counts only once it is durable
        for peer in peers:
            self._reply_gated(Vote(peer, self.id, self.term, last, last_term, forced))

    def _count_votes(self) -> None:
        if self.conf.quorum(lambda m: self._votes.get(m, False)):
            if self.role is Role.PRE_CANDIDATE:
                self._campaign(pre=False)
            else:
                self._become_leader()
        elif self.conf.quorum(lambda m: self._votes.get(m) is False):
            self._become_follower(self.term, 0)

    def _on_pre_vote(self, message: PreVote) -> None:
        granted = (
            message.term > self.term
            and not self._leader_is_fresh()
            and self.log.up_to_date(message.last_index, message.last_term)
        )
        # A refusal carries our term, so that one whose term is behind catches up (etcd issue 8501).
        term = message.term if granted else self.term
        if granted or message.term <= self.term or not self._leader_is_fresh():
            self._reply_gated(PreVoteReply(message.frm, self.id, term, granted))

    def _on_vote(self, message: Vote) -> None:
        free = self.vote in (0, message.frm) and self.leader == 0
        granted = free and self.log.up_to_date(message.last_index, message.last_term)
        if granted:
            self.vote = message.frm
            self._reset_election_timer()
        self._reply_gated(VoteReply(message.frm, self.id, self.term, granted))

    def _become_leader(self) -> None:
        invariant(self.role is Role.CANDIDATE and self.vote == self.id, "a leader that was not elected")
        self.role = Role.LEADER
        self.leader = self.id
        self._votes = {}
        self._progress = {}
        self._round = 0
        self._rounds = {}
        self._transfer_to = 0
        self._sync_progress()
        self._progress[self.id].matched(self._stable)
        self._term_start = self.log.last + 1
        self._quorum_check_at = self._now + self.settings.election_ns
        # An entry of its own term, so that what earlier terms left can be committed (paper section 5.4.2).
        self._append_own(Entry(self._term_start, self.term, b""))
        self._broadcast_heartbeat()

    def _check_quorum(self) -> None:
        """Step down if a quorum was not heard from for an election timeout (thesis section 6.2)."""
        self._quorum_check_at = self._now + self.settings.election_ns
        if not self.conf.quorum(self.hears):
            self._become_follower(self.term, 0)

    def hears(self, member: int) -> bool:
        """As leader: whether `member` has answered within an election timeout."""
        progress = self._progress.get(member)
        return member == self.id or (progress is not None and progress.heard_at > self._now - self.settings.election_ns)

    # ---- the leader's side of replication ------------------------------------------------------------------

    def _sync_progress(self) -> None:
        """One progress for each member of the configuration in force."""
        members = self.conf.members()
        settings = self.settings
        for member in members:
            if member not in self._progress:
                # One entry back, so that there is something to probe with even if nothing new is written.
                self._progress[member] = Progress(
                    max(self.log.first, self.log.last),
                    self._now,
                    max_messages=settings.max_inflight_messages,
                    max_bytes=settings.max_inflight_bytes,
                )
        for member in set(self._progress) - set(members) - {self.id}:
            del self._progress[member]
        if self.id not in self._progress:
            self._progress[self.id] = Progress(self.log.last + 1, self._now)
        if self._transfer_to not in self.conf.voters:
            self._transfer_to = 0

    def _append_own(self, entry: Entry) -> None:
        self.log.append((entry,))
        if entry.conf is not None:
            self._confs.append((entry.index, entry.conf))
            self._sync_progress()

    def _fill(self, member: int, progress: Progress) -> None:
        """Send what the member lacks, as far as its window goes; at least the commit index if that moved."""
        sent = False
        while progress.next <= self.log.last and progress.may_send():
            before = progress.next
            if not self._send_append(member, progress):
                return
            sent = True
            if progress.next == before:
                break
        if self._commit_moved and not sent and progress.mode is Mode.REPLICATE:
            self._send_empty(member, progress)

    def _send_append(self, member: int, progress: Progress) -> bool:
        previous = progress.next - 1
        previous_term = self.log.term(previous)
        if previous_term is None or progress.next < self.log.first:
            if progress.mode is not Mode.SNAPSHOT:
                progress.snapshot()
                self._snapshots.append(member)
            return False
        entries = self.log.slice(progress.next, self.log.last + 1, self.settings.max_message_bytes)
        size = sum(len(e.data) for e in entries)
        last = entries[-1].index if entries else previous
        self._send(Append(member, self.id, self.term, previous, previous_term, entries, self.commit))
        progress.sent(last, size)
        return True

    def _send_empty(self, member: int, progress: Progress) -> None:
        previous = progress.next - 1
        previous_term = self.log.term(previous)
        if previous_term is not None:
            self._send(Append(member, self.id, self.term, previous, previous_term, [], self.commit))

    def _on_append_reply(self, message: AppendReply) -> None:
        progress = self._progress.get(message.frm)
        if progress is None:
            return
        progress.heard_at = self._now
        if message.ok:
            invariant(message.index <= self.log.last, f"{message.frm:x} has entries its leader lacks")
            news = progress.matched(message.index)
            if progress.mode is Mode.PROBE or (progress.mode is Mode.SNAPSHOT and news):
                if progress.match >= self.log.base_index:
                    progress.replicate()
                else:
                    progress.paused = False
            if news:
                self._maybe_commit()
                if self._transfer_to == message.frm and progress.match == self.log.last:
                    self._send(TimeoutNow(message.frm, self.id, self.term))
            return
        if progress.mode is Mode.REPLICATE:
            if message.index > progress.match:
                progress.probe(progress.match + 1)
        elif progress.mode is Mode.PROBE and message.index == progress.next - 1:
            # Only the answer to the probe that is out says anything; older ones are stale.
            index, _ = self.log.newest_at_most(message.hint_index, message.hint_term)
            progress.probe(max(progress.match + 1, min(message.index, index + 1), 1))

    def _on_heartbeat_reply(self, message: HeartbeatReply) -> None:
        progress = self._progress.get(message.frm)
        if progress is None:
            return
        progress.heard_at = self._now
        if message.round > self._rounds.get(message.frm, 0):
            self._rounds[message.frm] = message.round
            self._confirm_reads()
        progress.paused = False  # a lost probe is sent again
        if progress.match < self.log.last < progress.next and progress.mode is not Mode.SNAPSHOT:
            # Everything is sent, not everything is answered: an empty append makes a loss show itself.
            self._send_empty(message.frm, progress)

    def _maybe_commit(self) -> None:
        match = {m: p.match for m, p in self._progress.items()}
        index = self.conf.committed(match)
        # Only entries of the own term are committed by counting (paper figure 8).
        if index > self.commit and self.log.term(index) == self.term:
            self._advance_commit(index)
            self._commit_moved = True
            if not self.conf.is_voter(self.id) and self.conf_index <= self.commit:
                self._fill_all_and_step_down()

    def _fill_all_and_step_down(self) -> None:
        """Removed by a change that is now committed: tell the others of the commit, then leave."""
        for member in self.conf.members():
            progress = self._progress[member]
            if progress.mode is Mode.REPLICATE:
                self._send_empty(member, progress)
        self._become_follower(self.term, 0)

    def _advance_commit(self, index: int) -> None:
        if index > self.commit:
            invariant(index <= self.log.last, f"commit {index} beyond the log's end {self.log.last}")
            self.commit = index

    def _broadcast_heartbeat(self) -> None:
        self._heartbeat_at = self._now + self.settings.heartbeat_ns
        self._round += 1
        digest_index, digest = self.digest
        for member in self.conf.members():
            if member != self.id:
                match = self._progress[member].match
                # Never tell a member to commit what it was not seen to have.
                commit = min(match, self.commit)
                if digest_index > match:
                    self._send(Heartbeat(member, self.id, self.term, commit, self._round))
                else:
                    self._send(Heartbeat(member, self.id, self.term, commit, self._round, digest_index, digest))

    # ---- linearizable reads (thesis section 6.4) -----------------------------------------------------------

    def _start_reads(self) -> None:
        # Before its first commit a leader does not know what is committed: reads wait.
        if not self._reads or self.commit < self._term_start:
            return
        self._broadcast_heartbeat()
        self._reads_out.append((self._round, self.commit, self._reads))
        self._reads = []
        self._confirm_reads()

    def _confirm_reads(self) -> None:
        if not self._reads_out:
            return
        reached = self.conf.committed({**self._rounds, self.id: self._round})
        while self._reads_out and self._reads_out[0][0] <= reached:
            _, index, reads = self._reads_out.popleft()
            self._reads_ready.extend((read, index) for read in reads)

    # ---- the follower's side of replication ----------------------------------------------------------------

    def _on_append(self, message: Append) -> None:
        if message.prev_index < self.commit and message.prev_index < self.log.base_index:
            # Compacted here, so committed; everything up to commit agrees with the leader's log.
            self._reply_gated(AppendReply(message.frm, self.id, self.term, True, self.commit))
            return
        if self.log.term(message.prev_index) != message.prev_term:
            index, term = self.log.newest_at_most(min(message.prev_index, self.log.last), message.prev_term)
            self._reply_gated(AppendReply(message.frm, self.id, self.term, False, message.prev_index, index, term))
            return
        last = message.prev_index + len(message.entries)
        for at, entry in enumerate(message.entries):
            here = self.log.term(entry.index) if entry.index <= self.log.last else None
            if here != entry.term:
                if entry.index <= self.log.last:
                    self._truncate(entry.index)
                new = message.entries[at:]
                self.log.append(new)
                self._confs.extend((e.index, e.conf) for e in new if e.conf is not None)
                break
        self._advance_commit(min(message.commit, last))
        self._reply_gated(AppendReply(message.frm, self.id, self.term, True, last))

    def _truncate(self, start: int) -> None:
        invariant(start > self.commit, f"truncating at {start}, committed up to {self.commit}")
        self.log.truncate(start)
        while self._confs[-1][0] >= start:
            self._confs.pop()
        if start < self._unsaved:  # some of it may be on disk already, or on its way
            self._truncate_from = min(self._truncate_from or start, start)
            self._unsaved = start
        # A write still under way no longer vouches for what was cut (async append ABA).
        self._stable = min(self._stable, start - 1)
        for write in self._in_flight:
            write[1] = min(write[1], start - 1)
