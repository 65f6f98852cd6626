"""Linearizable reads and lease renewals: questions to the leader, and when a leader may answer them.

A question covers all reads of one turn. Its number is never used twice, neither when it is asked again nor after a
restart, so that no late answer to an old question matches a new one (etcd issue 20418). The leader answers only after a
round of heartbeats that began after the question arrived. That proves that it still leads: it knows what is committed,
and renewing a lease cannot revive one that another leader has let expire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from holdfast.machine import Machine
from holdfast.member.cache_leases import Asked
from holdfast.member.interface import Answer, KeepAlive, Output, Read
from holdfast.member.messages import INCARNATION_BITS, ReadReply, ReadRequest, Renew, RenewReply
from holdfast.raft.core import Raft
from holdfast.raft.messages import Message
from holdfast.status import TIMEOUT


class Reads:
    """The reads and renewals of one member's clients, and those it confirms for others while it leads."""

    def __init__(self, raft: Raft, incarnation: int) -> None:
        self._raft = raft
        self._new_reads: list[Read] = []
        self._new_renewals: list[KeepAlive] = []
        self._batches: dict[int, list[Read]] = {}  # asked; by the question's number
        self._renewals: dict[int, list[KeepAlive]] = {}
        self._confirmed: deque[tuple[int, list[Read]]] = deque()  # (index to apply first, reads)
        # Beyond all numbers of earlier incarnations, because answers to those may still be under way.
        self._question = incarnation << INCARNATION_BITS
        self.failed = 0  # reads and renewals that were not answered in time
        # As leader: Raft's read id -> the question to answer once it is confirmed.
        self._as_leader: dict[int, ReadRequest | Renew | tuple[Asked, ...]] = {}
        self._leader_read = 0

    @property
    def waiting(self) -> bool:
        """Whether a question is not answered yet, or waits for a leader."""
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
        """Ask the leader one question for all reads of this turn, and one for each kind of renewal."""
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
        """Questions to the last leader may be lost: ask them again under new numbers."""
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

    def asked(self, question: ReadRequest | Renew | tuple[Asked, ...]) -> None:
        """Confirm that this member still leads, then answer. If it does not lead, drop the question."""
        self._leader_read += 1
        if self._raft.read(self._leader_read):
            self._as_leader[self._leader_read] = question

    def on_ready(
        self, ready: list[tuple[int, int]], lost: list[int], out: Output
    ) -> list[tuple[int, Renew | tuple[Asked, ...]]]:
        """Raft has confirmed leadership for these reads, or has lost it. Returns the renewals and requests for cache
        leases among them, each with the index that has to be applied before it is answered."""
        renewals: list[tuple[int, Renew | tuple[Asked, ...]]] = []
        for read in lost:
            self._as_leader.pop(read, None)
        for read, index in ready:
            question = self._as_leader.pop(read, None)
            if isinstance(question, ReadRequest):
                if question.frm == self._raft.id:
                    self._confirm(question.id, index)
                else:
                    out.messages.append(ReadReply(question.frm, self._raft.id, self._raft.term, question.id, index))
            elif question is not None:
                renewals.append((index, question))
        return renewals

    # ---- answers -------------------------------------------------------------------------------------------

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

    def answer(self, machine: Machine, out: Output) -> None:
        """Answer the reads whose index is applied here."""
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
        """Fail the questions whose deadline has passed."""
        if not self.waiting:
            return
        for batches in (self._batches, self._renewals):
            late = [id for id, waiting in batches.items() if waiting[0].deadline_ns <= now]
            for id in late:
                batch = batches.pop(id)
                self.failed += len(batch)
                out.answers.extend(Answer(item.id, TIMEOUT) for item in batch)
