"""What a cell does as an acceptor of one register (CASPaxos, arXiv 1802.07000, section 2.1).

Each request is one transaction of the cell (`cells.wire`), so what was promised is in the cell's own replicated log
before it is answered, and no cell forgets it. Here are the same rules as functions: the checker and the simulator run
them, and a test compares them with the transactions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from holdfast.cells.ballot import NONE, Ballot


class Accepted(NamedTuple):
    """A value, and the ballot by which it was accepted; the value before the first is None, by the ballot NONE."""

    ballot: Ballot = NONE
    value: bytes | None = None


NOTHING = Accepted()


@dataclass(frozen=True, slots=True)
class Acceptor:
    """Its state: no ballot below `promised` is taken any more."""

    promised: Ballot = NONE
    accepted: Accepted = NOTHING


class Promise(NamedTuple):
    accepted: Accepted


class Taken(NamedTuple):
    """The value was accepted."""


class Refused(NamedTuple):
    """A ballot that is higher was promised to another proposer."""

    promised: Ballot


def prepare(acceptor: Acceptor, ballot: Ballot) -> tuple[Acceptor, Promise | Refused]:
    """A request that comes twice is answered as before: a promise to the same proposer costs nobody anything."""
    if acceptor.promised > ballot:
        return acceptor, Refused(acceptor.promised)
    return replace(acceptor, promised=ballot), Promise(acceptor.accepted)


def accept(acceptor: Acceptor, ballot: Ballot, value: bytes) -> tuple[Acceptor, Taken | Refused]:
    if acceptor.promised > ballot:
        return acceptor, Refused(acceptor.promised)
    return Acceptor(ballot, Accepted(ballot, value)), Taken()
