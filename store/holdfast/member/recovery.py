"""Recovers a member's log at its start: replays the records on disk and fits the result to the state."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.kv.store import Family, Store
from holdfast.machine import rows
from holdfast.machine.dedup import ProposalDedup
from holdfast.proto import raft_pb2
from holdfast.raft.invariant import invariant
from holdfast.raft.log import Log
from holdfast.raft.types import DurableAppend, HardState

UNKNOWN_TERM = 0


def newest_incarnation(store: Store, log: Log, member: int) -> int:
    """The newest incarnation of `member` of which its state or its log holds a proposal; 0 if there is none. `log` has
    been fitted to the state.

    A later start must use a higher number, or its proposals are mistaken for those of the earlier one. Without this
    check it would not, if the file that counts the starts was restored from an older copy.
    """
    proposals = ProposalDedup()
    row = store.get(Family.META, rows.PROPOSALS + rows.number(member))
    if row is not None:
        proposals.load(member, row)
    newest = proposals.newest(member)
    unapplied = log.since(rows.applied(store)[0] + 1)  # the row covers everything before
    for entry in unapplied:
        if entry.data:
            entry.decoded = command = raft_pb2.Command.FromString(entry.data)  # decoded once, here and for applying
            if command.origin == member:
                newest = max(newest, command.incarnation)
    return newest


class Replay:
    """The log and hard state that result from the records fed so far."""

    def __init__(self, records: Iterable[DurableAppend] = ()) -> None:
        self.log = Log()
        self.hard_state = HardState()
        self._started = False
        for record in records:
            self.feed(record)

    def feed(self, record: DurableAppend) -> None:
        if record.hard_state is not None:
            self.hard_state = record.hard_state
        if record.base is not None:
            self.log.reset(*record.base)
        if record.truncate_from:
            if record.truncate_from <= self.log.base_index:
                self.log.reset(self.log.base_index, self.log.base_term)
            elif record.truncate_from <= self.log.last:
                self.log.truncate(record.truncate_from)
        if record.entries:
            first = record.entries[0]
            if not self._started and self.log.last == 0:
                # Older segments were deleted, their entries are in the state. The term before `first` is unknown.
                self.log.reset(first.index - 1, UNKNOWN_TERM)
            self.log.append(record.entries)
        # Every segment begins with a record of the hard state only, which does not tell where entries begin.
        self._started = self._started or bool(record.entries) or record.base is not None


def fit(log: Log, applied_index: int, applied_term: int) -> bool:
    """Make `log` continue the state at `applied_index`. True: it had to be reset to begin there.

    The state may be ahead of the log (after a crash between installing a snapshot and resetting the log); then the
    log's entries are obsolete. A log that begins after the state ends means that entries are missing: an invariant's
    violation.
    """
    invariant(
        log.base_index <= applied_index,
        f"the log begins after entry {log.base_index}, but the state ends at {applied_index}: entries are missing",
    )
    if log.last < applied_index or (log.base_index < applied_index and log.term(applied_index) != applied_term):
        log.reset(applied_index, applied_term)
        return True
    if log.base_index == applied_index:
        log.base_term = applied_term
    elif log.base_term == UNKNOWN_TERM:
        log.compact(log.first)  # the term of `first` is known
    return False
