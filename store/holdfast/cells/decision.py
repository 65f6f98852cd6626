"""The outcome of a transaction between cells: a register that is written once.

The coordinator writes COMMITTED once all parts are prepared; anybody else writes ABORTED. Who comes second gets what
the first has written. It may be forgotten once each cell has the outcome.
"""

from __future__ import annotations

from holdfast.cells.participant import Outcome
from holdfast.cells.round import Change


def decide(wanted: Outcome) -> Change:
    """The change of the register."""
    return lambda before: before or wanted.value.encode()


def decided(value: bytes) -> Outcome:
    return Outcome(value.decode())
