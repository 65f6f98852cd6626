"""The leader's state and rules: progress of the other members, replication, commitment, and reads.

Created when an election is won and discarded on stepping down, so no state of one term can leak into another.
"""

from __future__ import annotations

from collections import deque

from holdfast.raft.invariant import invariant
from holdfast.raft.log import Entry
from holdfast.raft.messages import Append, AppendReply, Heartbeat, HeartbeatReply, TimeoutNow
from holdfast.raft.progress import Mode, Progress
from holdfast.raft.quorum import ConfState
from holdfast.raft.state import State


class Leader:
    """The leader's side of one term. `raft` is the leading member; its own log is durable up to `stable`."""

    def __init__(self, raft: State, stable: int) -> None:
        self._raft = raft
        self._log = raft.log
        self._settings = raft.settings
        self.progress: dict[int, Progress] = {}
        self.term_start = raft.log.last + 1  # index of the first entry of the term
        self.transfer_to = 0
        self.commit_moved = False
        self.removed = False  # a committed change removed this voter: it has to step down
        self.reads: list[int] = []  # requested, not yet part of a round
        self.leased_reads = 0  # reads answered under the lease, without a round
        self._transfer_until = 0
        self._handed_over = False  # a transfer was tried in this term: no more lease reads
        self._heartbeat_at = 0
        self._quorum_check_at = raft.now + self._settings.election_ns
        self._round = 0
        self._rounds: dict[int, int] = {}  # newest round each member has answered
        self._sent_at: deque[tuple[int, int]] = deque()  # (round, when); only for lease reads
        self._promised: dict[int, int] = {}  # member -> when the newest round that it promised on was sent
        self._reads_out: deque[tuple[int, int, list[int]]] = deque()  # (round, index, read ids)
        self._sync_progress()
        self.progress[raft.id].matched(stable)
        # An entry of our own term, so that entries of earlier terms can be committed (paper section 5.4.2).
        self.append(b"", None)
        self.broadcast_heartbeat()

    @property
    def deadline(self) -> int:
        at = min(self._heartbeat_at, self._quorum_check_at)
        return min(at, self._transfer_until) if self.transfer_to else at

    def tick(self, now: int) -> bool:
        """False: no quorum answered within an election timeout, so step down (thesis section 6.2)."""
        if self.transfer_to and now >= self._transfer_until:
            self.transfer_to = 0
        if now >= self._quorum_check_at:
            self._quorum_check_at = now + self._settings.election_ns
            if not self._raft.conf.quorum(self.hears):
                return False
        if now >= self._heartbeat_at:
            self.broadcast_heartbeat()
        return True

    def finish_turn(self) -> None:
        """After all inputs of a turn: leave a joint configuration, start reads, and send appends."""
        self._leave_joint()
        self._start_reads()
        last = self._log.last
        for member, progress in self.progress.items():
            if progress.next <= last or self.commit_moved:
                self._fill(member, progress)
        self.commit_moved = False

    def hears(self, member: int) -> bool:
        """Whether `member` has answered within an election timeout."""
        if member == self._raft.id:
            return True
        progress = self.progress.get(member)
        return progress is not None and progress.heard_at > self._raft.now - self._settings.election_ns

    # ---- the log and the configuration ---------------------------------------------------------------------

    def append(self, data: bytes, conf: ConfState | None) -> int:
        """Append an entry of this term to the log. A configuration in it is in force from here on."""
        raft = self._raft
        entry = Entry(self._log.last + 1, raft.term, data, conf)
        raft.append((entry,))
        if conf is not None:
            self._sync_progress()
        return entry.index

    def may_change_conf(self) -> bool:
        """One change at a time, and only once an entry of our own term is committed: otherwise two leaders could
        decide by quorums that do not overlap (Ongaro's 2015 erratum on single-server changes)."""
        raft = self._raft
        return (
            not self.transfer_to
            and not raft.conf.joint
            and raft.confs.index <= raft.commit
            and raft.commit >= self.term_start
        )

    def _leave_joint(self) -> None:
        """The current leader ends a joint configuration as soon as it is committed, whichever leader began it."""
        raft = self._raft
        if raft.conf.joint and raft.confs.index <= raft.commit and raft.commit >= self.term_start:
            self.append(b"", raft.conf.left())

    def _sync_progress(self) -> None:
        """Keep one Progress for each member of the configuration in force."""
        members, me, settings = self._raft.conf.members(), self._raft.id, self._settings
        for member in members:
            if member not in self.progress and member != me:
                # Start one entry back, so that there is an entry to probe with even if nothing new is written.
                self.progress[member] = Progress(
                    max(self._log.first, self._log.last),
                    self._raft.now,
                    max_messages=settings.max_inflight_messages,
                    max_bytes=settings.max_inflight_bytes,
                )
        for member in [m for m in self.progress if m not in members and m != me]:
            del self.progress[member]
        if me not in self.progress:
            self.progress[me] = Progress(self._log.last + 1, self._raft.now)
        if self.transfer_to not in self._raft.conf.voters:
            self.transfer_to = 0

    # ---- replication ---------------------------------------------------------------------------------------

    def _fill(self, member: int, progress: Progress) -> None:
        """Send the entries that the member lacks, as its window allows; at least the commit index if it moved."""
        if member == self._raft.id:
            return
        sent = False
        while progress.next <= self._log.last and progress.may_send():
            before = progress.next
            if not self._send_append(member, progress):
                return
            sent = True
            if progress.next == before:
                break
        if self.commit_moved and not sent and progress.mode is Mode.REPLICATE:
            self._send_empty(member, progress)

    def _send_append(self, member: int, progress: Progress) -> bool:
        raft, log = self._raft, self._log
        previous = progress.next - 1
        previous_term = log.term(previous)
        if previous_term is None:
            if progress.mode is not Mode.SNAPSHOT:
                progress.snapshot()
                raft.needs_snapshot(member)
            return False
        entries = log.slice(progress.next, log.last + 1, self._settings.max_message_bytes)
        size = sum(len(e.data) for e in entries)
        last = entries[-1].index if entries else previous
        raft.send(Append(member, raft.id, raft.term, previous, previous_term, entries, raft.commit))
        progress.sent(last, size)
        return True

    def _send_empty(self, member: int, progress: Progress) -> None:
        raft = self._raft
        previous = progress.next - 1
        previous_term = self._log.term(previous)
        if previous_term is not None:
            raft.send(Append(member, raft.id, raft.term, previous, previous_term, [], raft.commit))

    def on_append_reply(self, message: AppendReply) -> None:
        progress = self.progress.get(message.frm)
        if progress is None:
            return
        progress.heard_at = self._raft.now
        if message.ok:
            self._matched(message.frm, progress, message.index)
        elif progress.mode is Mode.REPLICATE:
            if message.index > progress.match:
                progress.probe(progress.match + 1)
        elif progress.mode is Mode.PROBE and message.index == progress.next - 1:
            # Only the reply to the outstanding probe counts; older replies are stale.
            index, _ = self._log.newest_at_most(message.hint_index, message.hint_term)
            progress.probe(max(progress.match + 1, min(message.index, index + 1), 1))

    def _matched(self, member: int, progress: Progress, index: int) -> None:
        invariant(index <= self._log.last, f"{member:x} has entries its leader lacks")
        news = progress.matched(index)
        if progress.mode is Mode.PROBE or (progress.mode is Mode.SNAPSHOT and news):
            if progress.match >= self._log.base_index:
                progress.replicate()
            else:
                progress.paused = False
        if news:
            self.maybe_commit()
            if self.transfer_to == member and progress.match == self._log.last:
                self._raft.send(TimeoutNow(member, self._raft.id, self._raft.term))

    def snapshot_sent(self, member: int, ok: bool) -> None:
        """A snapshot transfer ended. The member reports what it has now by an AppendReply."""
        progress = self.progress.get(member)
        if progress is not None and progress.mode is Mode.SNAPSHOT:
            # After a failure wait for the next heartbeat reply before probing again.
            progress.probe(max(progress.match + 1, self._log.first if ok else progress.next))
            progress.paused = not ok

    # ---- commitment ----------------------------------------------------------------------------------------

    def own_durable(self, stable: int) -> None:
        """Our own log is durable up to `stable`; entries count for the quorum only when durable here."""
        if self.progress[self._raft.id].matched(stable):
            self.maybe_commit()

    def maybe_commit(self) -> None:
        raft = self._raft
        index = raft.conf.committed({m: p.match for m, p in self.progress.items()})
        if index > raft.commit and self._may_commit(index):
            raft.advance_commit(index)
            self.commit_moved = True
            if not raft.conf.is_voter(raft.id) and raft.confs.index <= raft.commit:
                self._leave()

    def _may_commit(self, index: int) -> bool:
        """Only entries of our own term are committed by counting replicas (paper figure 8)."""
        return self._log.term(index) == self._raft.term

    def _leave(self) -> None:
        """A change that removed this voter is committed: tell the followers, and start a successor's election."""
        raft = self._raft
        for member, progress in self.progress.items():
            if member != raft.id and progress.mode is Mode.REPLICATE:
                self._send_empty(member, progress)
        successor = self.successor()
        if successor and self.progress[successor].match >= raft.commit:
            raft.send(TimeoutNow(successor, raft.id, raft.term))
        self.removed = True

    # ---- leadership transfer (thesis section 3.10) ---------------------------------------------------------

    def successor(self) -> int:
        """The best voter to take over: one that answered lately, with the longest matching log. 0 = none."""
        others = [m for m in self._raft.conf.voters if m != self._raft.id]
        return max(others, key=lambda m: (self.hears(m), self.progress[m].match, m), default=0)

    def transfer(self, to: int) -> bool:
        """Transfer leadership to `to`. Proposals are refused until it took over or an election timeout has passed."""
        raft = self._raft
        if to == raft.id or to not in raft.conf.voters:
            return False
        self.transfer_to = to
        self._transfer_until = raft.now + self._settings.election_ns
        self._handed_over = True
        progress = self.progress[to]
        if progress.match == self._log.last:
            raft.send(TimeoutNow(to, raft.id, raft.term))
        elif progress.mode is not Mode.SNAPSHOT:
            self._send_append(to, progress)
        return True

    # ---- heartbeats and linearizable reads (thesis section 6.4) --------------------------------------------

    def broadcast_heartbeat(self) -> None:
        raft = self._raft
        self._heartbeat_at = raft.now + self._settings.heartbeat_ns
        self._round += 1
        if self._settings.lease_reads:
            self._sent_at.append((self._round, raft.now))
        digest_index, digest = raft.digest
        for member, progress in self.progress.items():
            if member == raft.id:
                continue
            match = progress.match
            # Never let a member commit beyond what it is known to have.
            beat = Heartbeat(member, raft.id, raft.term, min(match, raft.commit), self._round)
            if digest_index <= match:
                beat.digest_index, beat.digest = digest_index, digest
            raft.send(beat)

    def on_heartbeat_reply(self, message: HeartbeatReply) -> None:
        progress = self.progress.get(message.frm)
        if progress is None or message.round > self._round:
            return  # from a removed member, or for a round that was never sent
        progress.heard_at = self._raft.now
        if message.round > self._rounds.get(message.frm, 0):
            self._rounds[message.frm] = message.round
            if message.promise:
                self._note_promise(message.frm, message.round)
            self._confirm_reads()
        progress.paused = False  # a lost probe is sent again
        if progress.mode is not Mode.SNAPSHOT and progress.match < self._log.last:
            self._ask_what_arrived(message.frm, progress)

    def _ask_what_arrived(self, member: int, progress: Progress) -> None:
        """The member answers heartbeats but has not acknowledged everything sent. Messages may be lost, and a full
        window would wait for their acknowledgement for ever. So send an empty append after the last entry sent: its
        reply, positive or negative, reveals a loss. If that entry is compacted, probe from `match` instead (which
        sends a snapshot if that is compacted, too)."""
        if self._log.term(progress.next - 1) is None:
            progress.probe(progress.match + 1)
        elif progress.next > self._log.last or not progress.may_send():
            self._send_empty(member, progress)

    def disconnected(self, member: int) -> None:
        """The connection to `member` ended. Messages under way may be lost, so stop sending ahead; its next heartbeat
        reply starts replication again."""
        progress = self.progress.get(member)
        if progress is not None and progress.mode is Mode.REPLICATE:
            progress.probe(progress.match + 1)
            progress.paused = True

    def _start_reads(self) -> None:
        raft = self._raft
        # Reads wait for the first commit of the term: before it a leader does not know what is committed.
        if not self.reads or raft.commit < self.term_start:
            return
        reads, self.reads = self.reads, []
        if self._leased():
            self.leased_reads += len(reads)
            raft.reads_ready.extend((read, raft.commit) for read in reads)
            return
        self.broadcast_heartbeat()
        self._reads_out.append((self._round, raft.commit, reads))
        self._confirm_reads()

    def _confirm_reads(self) -> None:
        if not self._reads_out:
            return
        raft = self._raft
        reached = raft.conf.committed({**self._rounds, raft.id: self._round})
        while self._reads_out and self._reads_out[0][0] <= reached:
            _, index, reads = self._reads_out.popleft()
            raft.reads_ready.extend((read, index) for read in reads)

    def lost_reads(self) -> list[int]:
        """Reads that this leader will never confirm."""
        return [*self.reads, *(read for _, _, reads in self._reads_out for read in reads)]

    # ---- lease reads: no round while a quorum's promises hold (thesis section 6.4.1) ------------------------

    def _note_promise(self, member: int, round: int) -> None:
        while self._sent_at and self._sent_at[0][0] < round - 64:
            self._sent_at.popleft()
        for number, sent in self._sent_at:
            if number == round:
                self._promised[member] = max(sent, self._promised.get(member, 0))

    def _leased(self) -> bool:
        """Whether no other member can have become leader. A promise counts from when the round was *sent*, for as long
        as it lasts on the fastest allowed clock. False for the rest of a term in which a transfer was tried: the member
        that was told to take over may do so at any later time."""
        raft, settings = self._raft, self._settings
        if not settings.lease_reads or self._handed_over:
            return False
        promised = raft.conf.committed({**self._promised, raft.id: raft.now})
        return promised > 0 and raft.now < promised + settings.lease_ns
