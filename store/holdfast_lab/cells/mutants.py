"""Protocols between cells with one rule broken. The exploration has to find each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from holdfast.cells.acceptor import Accepted, Acceptor, Promise, Refused, Taken
from holdfast.cells.ballot import Ballot
from holdfast.cells.outbox import Inbox, Outbox, acknowledge
from holdfast.cells.participant import Answer, Outcome, Part, Participant
from holdfast.cells.participant import prepare as prepare_part
from holdfast.cells.participant import resolve as resolve_part
from holdfast.cells.round import Phase, Round

from holdfast_lab.cells.commits import CELLS, Commits, Coordinator
from holdfast_lab.cells.commits import World as CommitWorld
from holdfast_lab.cells.handovers import Handovers
from holdfast_lab.cells.handovers import World as HandoverWorld
from holdfast_lab.cells.registers import Registers


class PromiseIsNotStored(Registers):
    """a promise is in the cell's log before it is answered"""

    @staticmethod
    def prepare(acceptor: Acceptor, ballot: Ballot) -> tuple[Acceptor, Promise | Refused]:
        return acceptor, Registers.prepare(acceptor, ballot)[1]


class AcceptedIsNotTold(Registers):
    """a promise tells what was accepted"""

    @staticmethod
    def prepare(acceptor: Acceptor, ballot: Ballot) -> tuple[Acceptor, Promise | Refused]:
        after, answer = Registers.prepare(acceptor, ballot)
        return after, Promise(Accepted()) if isinstance(answer, Promise) else answer


class LowerBallotIsAccepted(Registers):
    """a cell accepts no ballot below the one that it promised"""

    @staticmethod
    def accept(acceptor: Acceptor, ballot: Ballot, value: bytes) -> tuple[Acceptor, Taken | Refused]:
        return Acceptor(max(acceptor.promised, ballot), Accepted(ballot, value)), Taken()


class OwnCellIsAQuorum(Registers):
    """a value is chosen after promises of a majority of cells"""

    def promise(self, proposer: int, round: Round, cell: str, answer: Promise | Refused) -> Round:
        after = super().promise(proposer, round, cell, answer)
        if after.phase is Phase.PREPARE and after.answered:
            return replace(
                after,
                phase=Phase.ACCEPT,
                answered=frozenset(),
                value=self.next_value(proposer, after.newest.value),
            )
        return after


class NewestIsIgnored(Registers):
    """the next value comes from the newest one that was accepted"""

    def next_value(self, proposer: int, before: bytes | None) -> bytes:
        return super().next_value(proposer, None)


class OldestCounts(Registers):
    """of the accepted values the one with the highest ballot counts"""

    def promise(self, proposer: int, round: Round, cell: str, answer: Promise | Refused) -> Round:
        known = [a for a in (round.newest, answer.accepted if isinstance(answer, Promise) else None) if a and a.value]
        if isinstance(answer, Promise) and known:
            oldest = min(known, key=lambda accepted: accepted.ballot)
            return super().promise(proposer, replace(round, newest=oldest), cell, Promise(oldest))
        return super().promise(proposer, round, cell, answer)


class BallotsAreShared(Registers):
    """no two proposers use the same ballot"""

    def ballot(self, known: Ballot, proposer: int) -> Ballot:
        return known.after(1)


class AbortAfterCommit(Commits):
    """an outcome is written once"""

    def decide(self, before: Outcome | None, wanted: Outcome) -> Outcome:
        return wanted


class DecisionIsForgottenEarly(Commits):
    """an outcome is forgotten once each cell has it"""

    def may_forget(self, world: CommitWorld, txn: str) -> bool:
        return any(isinstance(dict(cell.marks).get(txn), Outcome) for cell in world.cells)


class NotAllArePrepared(Commits):
    """a transaction is committed if all of its parts are prepared"""

    def may_commit(self, coordinator: Coordinator) -> bool:
        return len(coordinator.prepared) >= len(CELLS) - 1


class DecisionIsTold(Commits):
    """a user is told what a cell says has become of the transaction"""

    def tells(self, coordinator: Coordinator, answer: Answer) -> Outcome | None:
        return coordinator.decision


class IntentsAreIgnored(Commits):
    """a key with an intent is held"""

    @staticmethod
    def prepare(cell: Participant, part: Part) -> tuple[Participant, Answer]:
        after, answer = prepare_part(replace(cell, marks={k: m for k, m in cell.marks.items() if k == part.txn}), part)
        return replace(after, marks={**cell.marks, **after.marks}), answer


class ComparesHoldNothing(Commits):
    """keys that are compared are held as those that are written"""

    @staticmethod
    def prepare(cell: Participant, part: Part) -> tuple[Participant, Answer]:
        after, answer = prepare_part(cell, part)
        mark = after.marks.get(part.txn)
        if isinstance(mark, Part):
            return replace(after, marks={**after.marks, part.txn: mark._replace(compares=())}), answer
        return after, answer


class MarkGoesAtOnce(Commits):
    """the mark of a transaction stays until no part of it can arrive any more"""

    @staticmethod
    def resolve(cell: Participant, txn: str, outcome: Outcome) -> tuple[Participant, Answer]:
        after, answer = resolve_part(cell, txn, outcome)
        return replace(after, marks={t: m for t, m in after.marks.items() if t != txn}), answer


class SessionIsIgnored(Commits):
    """no part is prepared without the session of its coordinator"""

    @staticmethod
    def prepare(cell: Participant, part: Part) -> tuple[Participant, Answer]:
        after, answer = prepare_part(replace(cell, sessions=cell.sessions | {part.session}), part)
        return replace(after, sessions=cell.sessions), answer


class UnknownIsCommitted(Commits):
    """a cell that knows nothing of a transaction does not say that it is committed"""

    @staticmethod
    def resolve(cell: Participant, txn: str, outcome: Outcome) -> tuple[Participant, Answer]:
        after, answer = resolve_part(cell, txn, outcome)
        return after, Answer.COMMITTED if answer is Answer.UNKNOWN else answer


class CountedApart(Handovers):
    """the inbox counts a message in the transaction that carries it out"""

    def arrive(self, world: HandoverWorld, number: int, message: str) -> Iterator[HandoverWorld]:
        if (number, message) in world.half:
            counted = replace(world.inbox, last=max(world.inbox.last, number))
            yield replace(
                world,
                inbox=counted,
                half=world.half - {(number, message)},
                acknowledgements=world.acknowledgements | {counted.last},
            )
        if number == world.inbox.last + 1:
            done = replace(world.inbox, done=(*world.inbox.done, message))
            yield replace(world, inbox=done, half=world.half | {(number, message)})


class NumberIsIgnored(Handovers):
    """a message is carried out only if the one before was the last"""

    @staticmethod
    def deliver(inbox: Inbox, number: int, message: str) -> Inbox:
        return Inbox(max(inbox.last, number), (*inbox.done, message)[: 2 * len(inbox.done) + 2])


class LaterNumbersCount(Handovers):
    """no message is left out"""

    @staticmethod
    def deliver(inbox: Inbox, number: int, message: str) -> Inbox:
        return Inbox(number, (*inbox.done, message)) if number > inbox.last else inbox

    @staticmethod
    def acknowledge(outbox: Outbox, last: int) -> Outbox:
        return acknowledge(outbox, last + 1)


class SentIsAcknowledged(Handovers):
    """what was read is removed only once it has arrived"""

    def told(self, inbox: Inbox, number: int) -> int:
        return number + 1


REGISTERS: tuple[type[Registers], ...] = (
    PromiseIsNotStored,
    AcceptedIsNotTold,
    LowerBallotIsAccepted,
    OwnCellIsAQuorum,
    NewestIsIgnored,
    OldestCounts,
    BallotsAreShared,
)
COMMITS: tuple[type[Commits], ...] = (
    AbortAfterCommit,
    DecisionIsForgottenEarly,
    NotAllArePrepared,
    DecisionIsTold,
    IntentsAreIgnored,
    ComparesHoldNothing,
    MarkGoesAtOnce,
    SessionIsIgnored,
    UnknownIsCommitted,
)
HANDOVERS: tuple[type[Handovers], ...] = (CountedApart, NumberIsIgnored, LaterNumbersCount, SentIsAcknowledged)
