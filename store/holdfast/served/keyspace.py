"""One key space as it is served: with its watches, reads over several turns, and the pruning of its history.

A member, an edge replica and the simulator serve a key space in the same way: publish what was applied, let watchers
that are behind catch up, remove compacted rows in slices, and keep rows that a running read still needs. They all drive
this object. It has no clock and does no I/O of its own: its driver calls each step when it is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from holdfast.kv.pruning import HistoryPruner
from holdfast.kv.rows import Change
from holdfast.kv.space import KeySpace
from holdfast.kv.store import StoreBusy, Write
from holdfast.served.scans import Scans
from holdfast.watch.hub import Delivery, Hub


class Pruning(Enum):
    """The result of a pruning step."""

    DONE = "done"  # no compacted rows are left
    MORE = "more"  # a slice was processed
    HELD = "held"  # a read still needs the rows, or applied rows are not in the store yet
    BUSY = "busy"  # the store was busy; the same removals are tried again

    @property
    def pause(self) -> float:
        """Seconds to wait before the next step, so that pruning leaves time for everything else."""
        return _PAUSES[self]


_PAUSES = {Pruning.DONE: 0.0, Pruning.MORE: 0.002, Pruning.HELD: 0.01, Pruning.BUSY: 0.05}


class ServedSpace:
    """A key space, its watch hub, its running reads and the removal of its history."""

    def __init__(self, space: KeySpace, scans: Scans) -> None:
        self.space = space
        self.hub = Hub(space)
        self.scans = scans
        self._pruner: HistoryPruner | None = None
        self._removals: list[Write] = []  # found by the pruner, not in the store yet
        self._pruned = space.compacted  # history below this revision is pruned

    # ---- watches -------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether watchers that are behind can be sent more: call `publish` again soon."""
        return self.hub.busy

    def publish(self, revisions: Sequence[list[Change]] = ()) -> list[Delivery]:
        """Deliver these applied revisions, in order. Also sends a slice of history to watchers that are behind."""
        deliveries = self.hub.publish(revisions) if revisions else []
        if self.hub.busy:
            deliveries += self.hub.catch_up()
        return deliveries

    def replace(self, space: KeySpace, *, another_history: bool = False) -> None:
        """A snapshot replaced the key space served so far by `space`. `another_history`: no watch can continue."""
        self.space = space
        if another_history:
            self.hub.begin_anew(space)
        else:
            self.hub.replace_space(space)
        self._pruner, self._removals = None, []
        self._pruned = space.compacted

    # ---- history -------------------------------------------------------------------------------------------

    @property
    def pruned(self) -> bool:
        """Whether no step of pruning is due."""
        return self._pruner is None and self._pruned >= self.space.compacted

    def prune(self, rows: int) -> Pruning:
        """Examine so many more rows and remove the compacted ones. Call between turns. Raises StateDamaged."""
        if self.pruned:
            return Pruning.DONE
        pruner = self._pruner
        if pruner is None:
            pruner = self._pruner = HistoryPruner(self.space, self.space.store)
        if not self.space.settled or self._read_before(pruner.target):
            return Pruning.HELD
        if not self._removals:
            found = pruner.advance(rows)
            if found is None:
                self._pruner, self._pruned = None, pruner.target
                return Pruning.DONE if pruner.target >= self.space.compacted else Pruning.MORE
            self._removals = found
        if self._removals:
            try:
                self.space.store.apply(self._removals)
            except StoreBusy:
                return Pruning.BUSY
            self._removals = []
        return Pruning.MORE

    def _read_before(self, revision: int) -> bool:
        floor = self.scans.floor
        return floor is not None and floor < revision
