"""How long parts of transactions stay prepared, as watches tell it: and those of coordinators that were killed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast.cells import part_wire
from holdfast.proto import cells_pb2

from holdfast_lab.cells.bank.ledger import life_of, unpacked

IN_FLIGHT = 0.1  # seconds after a kill within which something may arrive that the coordinator sent itself


class _Open(NamedTuple):
    since: float
    life: int  # of its coordinator


@dataclass(slots=True)
class Parts:
    """`oldest`: seconds that any part was prepared. `resolved`: seconds from the kill of a coordinator until each of
    its parts was resolved by another one."""

    oldest: float = 0.0
    resolved: list[float] = field(default_factory=list)
    _open: dict[tuple[str, str], _Open] = field(default_factory=dict)
    _killed: dict[int, float] = field(default_factory=dict)

    def seen(self, cell: str, txn: str, mark: bytes, now: float) -> None:
        """The cell has this of the transaction now; empty: nothing any more."""
        if mark and part_wire.is_outcome(mark) is None:
            part = cells_pb2.TransactionPart.FromString(mark)
            _, memo = unpacked(part.writes[0].request_put.value)
            self._open[cell, txn] = _Open(now, life_of(memo))
            return
        before = self._open.pop((cell, txn), None)
        if before is None:
            return
        self.oldest = max(self.oldest, now - before.since)
        if before.life in self._killed and now - self._killed[before.life] > IN_FLIGHT:
            self.resolved.append(now - self._killed[before.life])

    def killed(self, life: int, now: float) -> None:
        self._killed[life] = now

    def settled(self) -> None:
        """What is resolved from now on is not resolved by those who want the keys."""
        self._killed.clear()
