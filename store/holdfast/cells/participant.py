"""What a cell does as a participant of transactions between cells.

A *part* of a transaction is what it compares and writes in one cell. While its outcome is open it holds an *intent* on
each of its keys, so no other part can have them. The cell keeps a *mark* of each transaction: prepared, then committed
or aborted. Each request is one transaction of the cell; here are the same rules as functions, as for registers
(`cells.acceptor`).

The outcome is a register, written once (`cells.decision`), so nobody waits for the coordinator: who meets an old intent
decides to abort, unless it was decided to commit.

What is late does no harm:

- A part that arrives again finds the mark, also after the transaction is over.
- A mark goes only after the coordinator's session in this cell has ended, and without the session no part is prepared.
- An outcome that arrives for a transaction without a mark leaves a mark that it is aborted, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple


class Outcome(Enum):
    COMMITTED = "committed"
    ABORTED = "aborted"


class Part(NamedTuple):
    """`compares`: the values that keys must have; None: there is no such key. `writes`: None deletes."""

    txn: str
    session: str  # of its coordinator, in this cell
    compares: tuple[tuple[str, str | None], ...]
    writes: tuple[tuple[str, str | None], ...]

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(key for key, _ in (*self.compares, *self.writes))


@dataclass(frozen=True, slots=True)
class Participant:
    """The state of a cell. `marks`: the part of each transaction that is prepared, or what became of it."""

    data: Mapping[str, str]
    marks: Mapping[str, Part | Outcome]
    sessions: frozenset[str]

    def holder(self, key: str) -> str | None:
        """The transaction that has an intent on the key."""
        return next((t for t, mark in self.marks.items() if isinstance(mark, Part) and key in mark.keys), None)


class Answer(Enum):
    PREPARED = "prepared"
    DIFFERS = "a compare does not hold"
    HELD = "another transaction holds a key"
    SESSION_ENDED = "the session of the coordinator has ended"
    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "the cell knows nothing of it any more"


def prepare(cell: Participant, part: Part) -> tuple[Participant, Answer]:
    mark = cell.marks.get(part.txn)
    if isinstance(mark, Outcome):
        return cell, Answer[mark.name]
    if mark is not None:
        return cell, Answer.PREPARED
    if part.session not in cell.sessions:
        return cell, Answer.SESSION_ENDED
    if any(cell.holder(key) is not None for key in part.keys):
        return cell, Answer.HELD
    if any(cell.data.get(key) != value for key, value in part.compares):
        return cell, Answer.DIFFERS
    return replace(cell, marks={**cell.marks, part.txn: part}), Answer.PREPARED


def resolve(cell: Participant, txn: str, outcome: Outcome) -> tuple[Participant, Answer]:
    """Returns what has become of the transaction in this cell, which is not `outcome` if that comes too late."""
    mark = cell.marks.get(txn)
    if isinstance(mark, Outcome):
        return cell, Answer[mark.name]
    if mark is None:
        if outcome is Outcome.COMMITTED:
            return cell, Answer.UNKNOWN
        return replace(cell, marks={**cell.marks, txn: Outcome.ABORTED}), Answer.ABORTED
    data = dict(cell.data)
    if outcome is Outcome.COMMITTED:
        for key, value in mark.writes:
            data.pop(key, None)
            if value is not None:
                data[key] = value
    return replace(cell, data=data, marks={**cell.marks, txn: outcome}), Answer[outcome.name]


def forget(cell: Participant, txn: str, session: str) -> Participant:
    """Remove the mark of a transaction that is over, if no part of it can arrive any more."""
    if session in cell.sessions or not isinstance(cell.marks.get(txn), Outcome):
        return cell
    return replace(cell, marks={t: mark for t, mark in cell.marks.items() if t != txn})
