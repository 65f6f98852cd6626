"""The steps at which a coordinator can stop, told by which of its requests are sent to which cells. Pure.

`home` is the cell that goes away with the coordinator. A step is as far as a coordinator came: which requests it has
sent, and whether its transaction has to be made, whatever others do then.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from holdfast.cells.part_wire import INTENTS
from holdfast.proto import rpc_pb2


class Kind(Enum):
    """What a transaction of a cell is for."""

    PREPARE = "prepare"
    PROMISE = "promise"
    ACCEPT = "accept"
    TELL = "tell"
    OTHER = "other"


def kind_of(request: rpc_pb2.TxnRequest) -> Kind:
    for op in request.success:
        if op.request_put.key.startswith(INTENTS):
            return Kind.PREPARE
        if op.request_delete_range.key.startswith(INTENTS):
            return Kind.TELL
        written = [inner.request_put.key for inner in op.request_txn.failure]
        if any(key.endswith(b"/accepted") for key in written):
            return Kind.ACCEPT
        if any(key.endswith(b"/promised") for key in written):
            return Kind.PROMISE
    return Kind.OTHER


class To(Enum):
    """To which cells the last requests were sent."""

    HOME = "home"
    ANOTHER = "another cell"
    ALL = "all cells"


class Step(NamedTuple):
    what: str
    last: Kind
    to: To
    made: bool

    def reached(self, cells: Sequence[str]) -> Sequence[str]:
        """The cells to which the last requests were sent. `cells`: all, home first."""
        return {To.HOME: cells[:1], To.ANOTHER: cells[1:2], To.ALL: cells}[self.to]

    def sends(self, kind: Kind, cell: str, cells: Sequence[str]) -> bool:
        """Whether a coordinator that stops here has sent this request."""
        if kind is Kind.OTHER or _ORDER.index(kind) < _ORDER.index(self.last):
            return True
        return kind is self.last and cell in self.reached(cells)


_ORDER = [Kind.PREPARE, Kind.PROMISE, Kind.ACCEPT, Kind.TELL]
STEPS = (
    Step("home has prepared its part", Kind.PREPARE, To.HOME, made=False),
    Step("another cell has prepared its part", Kind.PREPARE, To.ANOTHER, made=False),
    Step("all have prepared", Kind.PREPARE, To.ALL, made=False),
    Step("all have promised", Kind.PROMISE, To.ALL, made=False),
    Step("home has accepted the outcome", Kind.ACCEPT, To.HOME, made=False),
    Step("another cell has accepted the outcome", Kind.ACCEPT, To.ANOTHER, made=True),
    Step("all have accepted: it is decided", Kind.ACCEPT, To.ALL, made=True),
    Step("home was told", Kind.TELL, To.HOME, made=True),
    Step("another cell was told", Kind.TELL, To.ANOTHER, made=True),
    Step("all were told", Kind.TELL, To.ALL, made=True),
)
