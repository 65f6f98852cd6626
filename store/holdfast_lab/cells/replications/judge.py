"""What is written and what has to be seen of it: each transaction writes a pair of keys, or deletes both.

After each revision of a destination both keys of a pair are equal, else a transaction is torn; and the number of a pair
never becomes less, else something was applied twice or out of order.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from holdfast.client.txn import Op, Ops
from holdfast.client.values import Event

from holdfast_lab.sim.violation import check

PREFIX = "/replicated/"
PAIRS = f"{PREFIX}pairs/"
DELETE_EVERY = 10  # transactions of a pair


def transaction(pair: int, number: int, size: int) -> list[Op]:
    """The writes of transaction `number` of this pair; values have about `size` bytes."""
    keys = [f"{PAIRS}{pair:04d}/{side}" for side in ("one", "two")]
    if number % DELETE_EVERY == 0:
        return [Ops.delete(key) for key in keys]
    value = f"{number} {time.time_ns()} ".ljust(size, ".")
    return [Ops.put(key, value) for key in keys]


@dataclass(slots=True)
class Judge:
    """Of one destination. `delays`: in seconds, of what was seen, from before it was written at the source."""

    name: str
    delays: list[float] = field(default_factory=list)
    changes: int = 0
    _pairs: dict[bytes, dict[bytes, bytes | None]] = field(default_factory=dict)
    _newest: dict[bytes, int] = field(default_factory=dict)

    def revision(self, events: Iterable[Event]) -> None:
        """All changes of one revision. Raises Violation."""
        touched = set()
        for event in events:
            pair, _, side = event.kv.key.rpartition(b"/")
            self._pairs.setdefault(pair, {})[side] = None if event.type == "delete" else event.kv.value
            self.changes += 1
            touched.add(pair)
        for pair in touched:
            one, two = (self._pairs[pair].get(side) for side in (b"one", b"two"))
            check(one == two, "torn", f"{self.name}: the keys of {pair!r} differ: {one!r}, {two!r}")
            if one is not None:
                self._written(pair, one)

    def _written(self, pair: bytes, value: bytes) -> None:
        number, written, *_ = value.split()
        newer = int(number) > self._newest.get(pair, 0)
        check(newer, "order", f"{self.name}: {pair!r} has number {number.decode()} late")
        self._newest[pair] = int(number)
        self.delays.append((time.time_ns() - int(written)) / 1e9)
