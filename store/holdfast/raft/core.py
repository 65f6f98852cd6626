"""Raft as a pure state machine: messages, proposals and the time go in; messages and appends come out.

Sources: Ongaro's thesis (sections are cited where a rule comes from) and the experience of later implementations.
The caller's duties, in order:

1. call `tick`, `step`, `propose`, `read`, `appended` and so on for everything that happened, then `ready()` once;
2. write each `Ready.append` durably, in the order of their `seq`, and report it by `appended(seq)`;
3. send `Ready.messages` at once. Messages that must not leave before something is durable are not in the output: they
   are held back until `appended` reports that, so the caller cannot break the rule.

State that exists only while this member leads is in `leader.Leader`, what waits for the disk in
`durability.Durability`.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.raft.durability import Durability
from holdfast.raft.invariant import InvariantViolation, invariant
from holdfast.raft.leader import Leader
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
from holdfast.raft.progress import Progress
from holdfast.raft.quorum import ConfState
from holdfast.raft.state import State
from holdfast.raft.types import HardState, Random, Ready, Role, Settings

FULL_BYTES = 1 << 20  # of entries that a member takes while its disk is full, so that a new leader can answer reads
ENTRY_BYTES = 64  # that an entry needs in addition to its data


class Raft(State):
    """One member's part in the consensus. Never blocks, never reads a clock."""

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
        super().__init__(
            member,
            now=now,
            log=log,
            conf=conf,
            conf_index=conf_index,
            applied=applied,
            hard_state=hard_state,
            settings=settings,
        )
        self.role = Role.FOLLOWER
        self.leader = 0
        self.leading: Leader | None = None
        self.full = False  # the disk has no room: propose no entries, and take only few of others
        self._full_bytes = FULL_BYTES  # of entries that may still be taken although the disk is full
        self.level = 0  # reported in HeartbeatReply
        self._acknowledged = (0, 0)  # (term, index) up to which this member had entries, as its leader reported

        self._random = random
        self._writes = Durability(log.last, hard_state)
        self._reads_lost: list[int] = []
        self._votes: dict[int, bool] = {}
        self._self_vote_seq: int | None = None  # the write that makes our own vote durable
        self._priorities: Mapping[int, int] = {}
        self._heard_leader_at: int | None = None
        # Until then we promised not to vote for another member. A promise outlives a restart, so assume one.
        self._promised_until = now + settings.election_ns if settings.lease_reads else 0
        self._election_at = 0
        self._reset_election_timer()

    # ---- queries -------------------------------------------------------------------------------------------

    @property
    def stable(self) -> int:
        """Entries up to here are durable."""
        return self._writes.stable

    @property
    def applicable(self) -> int:
        """Entries up to here may be applied: committed, and durable here (so that applied <= durable)."""
        return min(self.commit, self._writes.stable)

    @property
    def is_leader(self) -> bool:
        return self.leading is not None

    @property
    def incomplete(self) -> bool:
        """Whether this member lacks entries that it has acknowledged: its log was cut, or is an older copy. They may be
        committed, so it must not lead, nor vote for a candidate that lacks them, too."""
        return self._acknowledged[1] > self.log.last

    @property
    def transferring(self) -> bool:
        return self.leading is not None and self.leading.transfer_to != 0

    @property
    def deadline(self) -> int:
        """When `tick` has to be called next, in the same nanoseconds as `now`."""
        return self.leading.deadline if self.leading is not None else self._election_at

    def progress(self, member: int) -> Progress | None:
        """As leader, what is known of `member`."""
        return self.leading.progress.get(member) if self.leading is not None else None

    def hears(self, member: int) -> bool:
        """As leader: whether `member` has answered within an election timeout."""
        return self.leading is not None and self.leading.hears(member)

    # ---- inputs --------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        invariant(now >= self.now, "time goes backwards")
        self.now = now
        if self.leading is not None:
            if not self.leading.tick(now):
                self.step_down()
        elif now >= self._election_at:
            self.campaign()

    def campaign(self) -> None:
        """Stand for election now, if allowed. If not, still forget the leader that was not heard from, as a candidate
        does: it may not be the leader of this term, and as long as we believe it is, we refuse the true one."""
        if self.leading is None:
            self._reset_election_timer()
            if self._may_stand():
                self._ask_for_pre_votes()
            else:
                self.leader = 0

    def _may_stand(self) -> bool:
        """Voters may stand. So may a member whose vote was removed by an entry not known to be committed: if no other
        member has that entry, no other member can be elected (thesis section 4.2.2)."""
        voter = self.conf.is_voter(self.id) or self.confs.at(self.commit)[1].is_voter(self.id)
        return voter and not self.incomplete

    def acknowledged(self, index: int) -> None:
        """The leader of this term knows that this member had the entries up to `index`. This is not stored; after a
        restart the first heartbeat tells it again."""
        self._acknowledged = max(self._acknowledged, (self.term, index))

    def suspect(self, member: int) -> None:
        """The connection to `member` was closed or refused. If we lead, treat messages under way to it as lost. If it
        leads, ask for pre-votes before the election timeout ends; this is a hint, never a proof that it is gone.
        Voters ask one after the other, those of higher priority first, so that they do not split the vote."""
        if self.leading is not None:
            self.leading.disconnected(member)
            return
        if self.role is not Role.FOLLOWER or member != self.leader or not member or self.now < self._promised_until:
            return
        self._heard_leader_at = None  # so that we grant pre-votes to others, too
        others = sorted((m for m in self.conf.voters if m != member), key=lambda m: (-self._priorities.get(m, 0), m))
        if self.id in others:
            beat = self.settings.heartbeat_ns
            delay = others.index(self.id) * beat + self._random.randrange(beat // 8 + 1)
            self._election_at = min(self._election_at, self.now + delay)

    def prefer(self, priorities: Mapping[int, int]) -> None:
        """Priorities for leading: higher is preferred, absent means 0. Only election timeouts depend on them."""
        self._priorities = priorities

    def propose(self, data: bytes, conf: ConfState | None = None) -> int | None:
        """Append an entry. Returns its index, or None if this member may not propose now."""
        leading = self.leading
        if leading is None or leading.transfer_to or self.full:
            return None
        if conf is not None:
            invariant(leading.may_change_conf(), "a membership change before the last one is committed")
        return leading.append(data, conf)

    def may_change_conf(self) -> bool:
        """As leader: whether a configuration change may be proposed now."""
        return self.leading is not None and self.leading.may_change_conf()

    def read(self, read_id: int) -> bool:
        """Ask for the index that a linearizable read must wait for. False: not the leader. Never reuse a `read_id`."""
        if self.leading is None:
            return False
        self.leading.reads.append(read_id)
        return True

    def transfer(self, to: int = 0) -> bool:
        """As leader, transfer leadership to `to` (0 means the best successor)."""
        if self.leading is None:
            return False
        return self.leading.transfer(to or self.leading.successor())

    def disk_full(self, full: bool) -> None:
        """Note whether the disk has room."""
        self.full = full
        self._full_bytes = FULL_BYTES

    def appended(self, seq: int) -> None:
        """Everything up to write `seq` is durable."""
        self._outbox += self._writes.completed(seq)
        voted = self._self_vote_seq
        if voted is not None and voted <= seq:
            self._self_vote_seq = None
            self._votes[self.id] = True
            self._count_votes()
        if self.leading is not None:
            self.leading.own_durable(self._writes.stable)
            self._step_down_if_removed(self.leading)

    def compact(self, index: int) -> None:
        """Forget log entries up to `index`, which the flushed state has."""
        invariant(index <= self.commit, f"compacting to {index} beyond commit {self.commit}")
        self.confs.compact(index)
        self.log.compact(index)

    def snapshot_sent(self, member: int, ok: bool) -> None:
        """A snapshot transfer to `member` ended."""
        if self.leading is not None:
            self.leading.snapshot_sent(member, ok)

    def offer_snapshot(self, index: int, frm: int, term: int) -> bool:
        """A whole snapshot has arrived from the leader. True: install it, then call `restored`."""
        if term < self.term:
            return False
        self._see_leader(frm, term)
        if index <= self.commit:
            self._writes.hold(AppendReply(frm, self.id, self.term, True, self.commit))
            return False
        return True

    def restored(self, index: int, index_term: int, conf: ConfState, conf_index: int, frm: int) -> None:
        """The state was replaced by the snapshot. Reset the log, and acknowledge to the leader once that is durable."""
        invariant(index > self.commit, f"a snapshot of {index} behind commit {self.commit}")
        self.log.reset(index, index_term)
        self.confs.reset(conf_index, conf)
        self.commit = index
        self._writes.restarted(index, index_term)
        self._writes.hold(AppendReply(frm, self.id, self.term, True, index))

    def step(self, message: Message) -> None:
        """Process a message from another member."""
        if message.to != self.id:
            raise InvariantViolation(f"a message for {message.to:x} reached {self.id:x}")
        if isinstance(message, PreVote):
            self._on_pre_vote(message)
            return
        if message.term > self.term:
            if isinstance(message, Vote) and not message.transfer and self._leader_is_fresh():
                return  # a removed or cut-off member must not depose a working leader (thesis section 4.2.3)
            if isinstance(message, PreVoteReply) and message.granted:
                pass  # its term is the one we asked about, not a term in use
            else:
                leads = isinstance(message, (Append, Heartbeat))
                self._become_follower(message.term, message.frm if leads else 0)
        elif message.term < self.term:
            if isinstance(message, (Append, Heartbeat)):
                # Tell the deposed leader, so that it learns of this term before its quorum check.
                self._writes.hold(AppendReply(message.frm, self.id, self.term, False, 0))
            return
        self._dispatch(message)

    def _dispatch(self, message: Message) -> None:
        leading = self.leading
        if isinstance(message, Append):
            self._see_leader(message.frm, message.term)
            self._on_append(message)
        elif isinstance(message, Heartbeat):
            self._see_leader(message.frm, message.term)
            self.advance_commit(min(message.commit, self.log.last))
            if self.settings.lease_reads:
                self._promised_until = self.now + self.settings.election_ns
            self._outbox.append(
                HeartbeatReply(message.frm, self.id, self.term, message.round, self.settings.lease_reads, self.level)
            )
        elif isinstance(message, AppendReply):
            if leading is not None:
                leading.on_append_reply(message)
                self._step_down_if_removed(leading)
        elif isinstance(message, HeartbeatReply):
            if leading is not None:
                leading.on_heartbeat_reply(message)
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
        elif isinstance(message, TimeoutNow) and leading is None and self._may_stand():
            self._reset_election_timer()
            self._ask_for_votes(transfer=True)

    # ---- output --------------------------------------------------------------------------------------------

    def ready(self) -> Ready:
        """What the caller has to do now. Call once after all inputs of a turn."""
        if self.leading is not None:
            self.leading.finish_turn()
        ready = Ready(append=self._writes.next_write(self.log, HardState(self.term, self.vote, self.commit)))
        self._outbox += self._writes.release()
        ready.messages, self._outbox = self._outbox, ready.messages
        ready.snapshots, self._snapshots = self._snapshots, ready.snapshots
        ready.reads, self.reads_ready = self.reads_ready, ready.reads
        ready.reads_lost, self._reads_lost = self._reads_lost, ready.reads_lost
        return ready

    # ---- elections -----------------------------------------------------------------------------------------

    def _leader_is_fresh(self) -> bool:
        if self.leading is not None or self.now < self._promised_until:
            return True
        heard = self._heard_leader_at
        return self.leader != 0 and heard is not None and self.now < heard + self.settings.election_ns

    def _reset_election_timer(self) -> None:
        election = self.settings.election_ns
        self._election_at = self.now + election + self._random.randrange(election)
        if self._priorities:
            mine = self._priorities.get(self.id, 0)
            preferred = {p for m in self.conf.voters if (p := self._priorities.get(m, 0)) > mine}
            # Half a timeout more for each higher priority in use; bounded, so that any voter can lead if needed.
            self._election_at += min(len(preferred), 4) * election // 2
        if self.full:
            self._election_at += 2 * election  # a leader that accepts no writes is only better than none

    def _become_follower(self, term: int, leader: int) -> None:
        invariant(term >= self.term, f"term falls from {self.term} to {term}")
        if term > self.term:
            self.term = term
            self.vote = 0  # stepping down within a term keeps the vote
        if self.leading is not None:
            self._reads_lost += self.leading.lost_reads()
            self.leading = None
            self._reset_election_timer()
        self.role = Role.FOLLOWER
        self.leader = leader
        self._votes = {}
        self._self_vote_seq = None

    def step_down(self) -> None:
        """Stop leading, or standing for election, in this term."""
        self._become_follower(self.term, 0)

    def _step_down_if_removed(self, leading: Leader) -> None:
        if leading.removed:
            self.step_down()

    def _see_leader(self, leader: int, term: int) -> None:
        invariant(self.leading is None or term > self.term, f"two leaders in term {term}")
        if term > self.term or self.role is not Role.FOLLOWER or self.leader != leader:
            self._become_follower(term, leader)
        self._heard_leader_at = self.now
        self._reset_election_timer()

    def _stand(self, role: Role) -> list[int]:
        """Become a candidate or pre-candidate. Returns the voters to ask."""
        self.leader = 0
        self._votes = {}
        self._self_vote_seq = None
        self.role = role
        return [m for m in self.conf.members() if m != self.id and self.conf.is_voter(m)]

    def _ask_for_pre_votes(self) -> None:
        """Find out whether an election could be won before disturbing anyone (thesis section 9.6)."""
        for peer in self._stand(Role.PRE_CANDIDATE):
            self.send(PreVote(peer, self.id, self.term + 1, self.log.last, self.log.last_term))
        self._votes[self.id] = True
        self._count_votes()

    def _ask_for_votes(self, transfer: bool) -> None:
        peers = self._stand(Role.CANDIDATE)
        self.term += 1
        self.vote = self.id
        self._self_vote_seq = self._writes.next_seq  # our own vote, too, counts only once it is durable
        for peer in peers:
            self._writes.hold(Vote(peer, self.id, self.term, self.log.last, self.log.last_term, transfer))

    def _count_votes(self) -> None:
        if self.conf.quorum(lambda m: self._votes.get(m, False)):
            if self.role is Role.PRE_CANDIDATE:
                self._ask_for_votes(transfer=False)
            else:
                self._become_leader()
        elif self.conf.quorum(lambda m: self._votes.get(m) is False):
            self.step_down()

    def _on_pre_vote(self, message: PreVote) -> None:
        fresh = self._leader_is_fresh()
        granted = message.term > self.term and not fresh and self._may_follow(message)
        # A refusal carries our term, so that a candidate whose term is behind catches up (etcd issue 8501).
        term = message.term if granted else self.term
        if granted or message.term <= self.term or not fresh:
            self._writes.hold(PreVoteReply(message.frm, self.id, term, granted))

    def _on_vote(self, message: Vote) -> None:
        free = self.vote in (0, message.frm) and self.leader == 0
        promised = self.now < self._promised_until and not message.transfer
        granted = free and not promised and self._may_follow(message)
        if granted:
            self.vote = message.frm
            self._reset_election_timer()
        self._writes.hold(VoteReply(message.frm, self.id, self.term, granted))

    def _may_follow(self, candidate: PreVote | Vote) -> bool:
        """Whether the candidate's log has all entries that this member has acknowledged."""
        if self.incomplete and (candidate.last_term, candidate.last_index) < self._acknowledged:
            return False
        return self.log.up_to_date(candidate.last_index, candidate.last_term)

    def _become_leader(self) -> None:
        invariant(self.role is Role.CANDIDATE and self.vote == self.id, "a leader that was not elected")
        self.role = Role.LEADER
        self.leader = self.id
        self._votes = {}
        self.leading = Leader(self, self._writes.stable)

    # ---- the follower's side of replication ----------------------------------------------------------------

    def _on_append(self, message: Append) -> None:
        if message.prev_index < self.commit and message.prev_index < self.log.base_index:
            # Compacted, so committed: our log agrees with the leader's up to our commit index.
            self._writes.hold(AppendReply(message.frm, self.id, self.term, True, self.commit))
            return
        if self.log.term(message.prev_index) != message.prev_term:
            index, term = self.log.newest_at_most(min(message.prev_index, self.log.last), message.prev_term)
            refusal = AppendReply(message.frm, self.id, self.term, False, message.prev_index, index, term)
            self._writes.hold(refusal)
            return
        entries = message.entries
        if self.full and entries:
            entries = self._spared(message)
            if not entries:
                self.advance_commit(min(message.commit, message.prev_index))
                return  # there is no room: treat the message as lost
        last = message.prev_index + len(entries)
        for at, entry in enumerate(entries):
            here = self.log.term(entry.index) if entry.index <= self.log.last else None
            if here != entry.term:
                if entry.index <= self.log.last:
                    self._truncate(entry.index)
                new = entries[at:]
                self.append(new)
                break
        self.advance_commit(min(message.commit, last))
        self._writes.hold(AppendReply(message.frm, self.id, self.term, True, last))

    def _spared(self, message: Append) -> list[Entry]:
        """The entries of `message` that are taken although the disk is full: those up to the first one of the leader's
        own term, if they are few. Without it a new leader could not answer reads while all disks are full."""
        first = next((at for at, entry in enumerate(message.entries) if entry.term == self.term), None)
        if first is None:
            return []
        entries = message.entries[: first + 1]
        size = sum(ENTRY_BYTES + len(entry.data) for entry in entries if entry.index > self.log.last)
        if entries[-1].data or size > self._full_bytes:
            return []
        self._full_bytes -= size
        return entries

    def _truncate(self, start: int) -> None:
        invariant(start > self.commit, f"truncating at {start}, committed up to {self.commit}")
        self.log.truncate(start)
        self.confs.truncate(start)
        self._writes.truncated(start)
