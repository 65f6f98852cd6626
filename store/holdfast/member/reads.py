"""Linearizable reads and renewals of leases: questions to the leader, and the leader's answers to them.

A question covers all that came in one turn. It has a number that is never used twice, not when it is asked again and
not after a restart, so that no late answer to an old question fits a new one (etcd issue 20418). The leader answers
only after a round of heartbeats that began after the question came: it still leads, so it knows what is committed, and
renewing a lease cannot revive what another leader has let expire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from holdfast.machine import Machine
from holdfast.member.interface import Answer, KeepAlive, Output, Read
from holdfast.member.lessor import Lessor
from holdfast.member.messages import ReadReply, ReadRequest, Renew, RenewReply
from holdfast.raft.core import Raft
from holdfast.raft.messages import Message
from holdfast.status import TIMEOUT

INCARNATION_BITS = 40  # questions that one life of a member may ask


class Reads:
    """The reads and renewals of one member's clients, and those it confirms for others while it leads."""

    def __init__(
        self, raft: Raft, lessor: Lessor, incarnation: int, take_back: Callable[[Sequence[int]], int | None]
    ) -> None:
        """`take_back` proposes that these leases' checkpoints are void: the index to wait for, 0 = no need, None = it
        cannot be done now."""
        self._raft = raft
        self._lessor = lessor
        self._take_back = take_back
        self._new_reads: list[Read] = []
        self._new_renewals: list[KeepAlive] = []
        self._batches: dict[int, list[Read]] = {}  # asked, by the question's number
        self._renewals: dict[int, list[KeepAlive]] = {}
        self._confirmed: deque[tuple[int, list[Read]]] = deque()  # (index to have applied, reads)
        # Numbers go on where no earlier life of this member can have come to: an answer to it may still be on its way.
        self._question = incarnation << INCARNATION_BITS
        # What this member confirms as leader: raft's read id -> what to do then.
        self.failed = 0  # reads and renewals that nobody answered in time
        self._as_leader: dict[int, ReadRequest | Renew] = {}
        self._leader_read = 0
        self._due: deque[tuple[int, Renew]] = deque()  # confirmed; (index to have applied, question)

    @property
    def waiting(self) -> bool:
        """Whether a question is out, or could not be asked yet."""
        return bool(self._batches or self._renewals)

    def deadlines(self) -> Iterator[int]:
        for reads in self._batches.values():
            yield reads[0].deadline_ns
        for renewals in self._renewals.values():
            yield renewals[0].deadline_ns

    def read(self, item: Read) -> None:
        self._new_reads.append(item)

    def keep_alive(self, item: KeepAlive) -> None:
        self._new_renewals.append(item)

    def cancel(self, id: int) -> None:
        self._new_reads = [r for r in self._new_reads if r.id != id]
        self._new_renewals = [r for r in self._new_renewals if r.id != id]

    # ---- asking --------------------------------------------------------------------------------------------

    def ask(self, messages: list[Message]) -> None:
        """One question to the leader for all reads that arrived in this turn, and one for renewals of each kind."""
        if self._new_reads:
            batch, self._new_reads = self._new_reads, []
            self._ask_read(batch, messages)
        if self._new_renewals:
            renewals, self._new_renewals = self._new_renewals, []
            for query in (True, False):
                batch_of_kind = [r for r in renewals if r.query is query]
                if batch_of_kind:
                    self._ask_renewal(batch_of_kind, messages)

    def ask_again(self, messages: list[Message]) -> None:
        """What the last leader was asked may be lost: the same under new numbers."""
        batches, self._batches = self._batches, {}
        for batch in batches.values():
            self._ask_read(batch, messages)
        renewals, self._renewals = self._renewals, {}
        for renewal in renewals.values():
            self._ask_renewal(renewal, messages)

    def _ask_read(self, batch: list[Read], messages: list[Message]) -> None:
        id = self._next_question()
        self._batches[id] = batch
        self._put(ReadRequest(self._raft.leader, self._raft.id, self._raft.term, id), messages)

    def _ask_renewal(self, batch: list[KeepAlive], messages: list[Message]) -> None:
        id = self._next_question()
        self._renewals[id] = batch
        leases = [r.lease for r in batch]
        self._put(Renew(self._raft.leader, self._raft.id, self._raft.term, id, leases, batch[0].query), messages)

    def _next_question(self) -> int:
        self._question += 1
        return self._question

    def _put(self, question: ReadRequest | Renew, messages: list[Message]) -> None:
        if question.to == self._raft.id:
            self.asked(question)
        elif question.to:
            messages.append(question)

    # ---- as leader -----------------------------------------------------------------------------------------

    def asked(self, question: ReadRequest | Renew) -> None:
        """Find out whether this member still leads, then answer."""
        self._leader_read += 1
        if self._raft.read(self._leader_read):
            self._as_leader[self._leader_read] = question

    def on_ready(self, ready: list[tuple[int, int]], lost: list[int], out: Output) -> None:
        """Raft has confirmed leadership for these reads, or has lost it."""
        for read in lost:
            self._as_leader.pop(read, None)
        for read, index in ready:
            question = self._as_leader.pop(read, None)
            if isinstance(question, ReadRequest):
                if question.frm == self._raft.id:
                    self._confirm(question.id, index)
                else:
                    out.messages.append(ReadReply(question.frm, self._raft.id, self._raft.term, question.id, index))
            elif isinstance(question, Renew):
                # What is committed may be the end of a lease: not renewed before that is applied.
                self._due.append((index, question))

    def _renew_due(self, machine: Machine, now: int, out: Output) -> None:
        """As leader; who does not lead any more cannot tell, and is asked no more."""
        while self._due and (not self._raft.is_leader or self._due[0][0] <= machine.applied_index):
            _, question = self._due.popleft()
            if not self._raft.is_leader:
                continue
            index = 0 if question.query else self._take_back(question.leases)
            if index:
                self._due.append((index, question))  # or the next leader would take them for partly used
            elif index is not None:
                self._renew(question, machine, now, out)

    def _renew(self, question: Renew, machine: Machine, now: int, out: Output) -> None:
        ttls: list[int] = []
        for lease in question.leases:
            granted = machine.leases.get(lease)
            if question.query:
                left = self._lessor.remaining(lease, now) if granted is not None else None
                ttls.append(-1 if left is None else left)
            elif granted is not None and self._lessor.renew(lease, granted, now):
                ttls.append(granted)
            else:
                ttls.append(0)
        reply = RenewReply(question.frm, self._raft.id, self._raft.term, question.id, question.leases, ttls)
        if question.frm == self._raft.id:
            self.on_renew_reply(reply, out)
        else:
            out.messages.append(reply)

    # ---- answered ------------------------------------------------------------------------------------------

    def on_read_reply(self, message: ReadReply) -> None:
        self._confirm(message.id, message.index)

    def _confirm(self, id: int, index: int) -> None:
        reads = self._batches.pop(id, None)
        if reads:
            self._confirmed.append((index, reads))

    def on_renew_reply(self, message: RenewReply, out: Output) -> None:
        ttls = dict(zip(message.leases, message.ttls, strict=True))
        for item in self._renewals.pop(message.id, ()):
            out.answers.append(Answer(item.id, ttl=ttls.get(item.lease, 0)))

    def answer(self, machine: Machine, now: int, out: Output) -> None:
        """Answer the reads, and do the renewals, whose index is applied here."""
        if self._due:
            self._renew_due(machine, now, out)
        if not self._confirmed:
            return
        applied = machine.applied_index
        waiting: deque[tuple[int, list[Read]]] = deque()
        for index, reads in self._confirmed:
            if index <= applied:
                out.answers.extend(Answer(read.id, revision=machine.space.revision) for read in reads)
            else:
                waiting.append((index, reads))
        self._confirmed = waiting

    def give_up(self, now: int, out: Output) -> None:
        """Tell those whose time is over."""
        if not self.waiting:
            return
        for batches in (self._batches, self._renewals):
            late = [id for id, waiting in batches.items() if waiting[0].deadline_ns <= now]
            for id in late:
                batch = batches.pop(id)
                self.failed += len(batch)
                out.answers.extend(Answer(item.id, TIMEOUT) for item in batch)
