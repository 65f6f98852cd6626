"""Pruning in the background, one slice at a time, in the same way for a member and a replica."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.kv.store import StateDamaged
from holdfast.served.keyspace import Pruning, ServedSpace

PRUNE_ROWS = 250  # per slice


class PruneTask:
    """`later` schedules a function after some seconds; `ended` is called after waiting callers have been told."""

    def __init__(
        self,
        served: ServedSpace,
        later: Callable[[float, Callable[[], None]], object],
        ended: Callable[[], None],
    ) -> None:
        self._served = served
        self._later = later
        self._ended = ended
        self._running = False  # a slice is scheduled
        self._stopped = False
        self._waiting: list[Callable[[], None]] = []

    def start(self) -> None:
        """Prune if there is something to prune. Call this whenever history may have been compacted."""
        if not self._served.pruned and not self._running:
            self._running = True
            self._later(0, self._step)

    def when_done(self, done: Callable[[], None]) -> None:
        """Call `done` once all compacted rows are removed."""
        if self._served.pruned:
            done()
        else:
            self._waiting.append(done)

    def stop(self) -> None:
        self._stopped = True

    def _step(self) -> None:
        if self._stopped:
            return
        try:
            step = self._served.prune(PRUNE_ROWS)
        except StateDamaged:
            return  # the store has reported it
        if step is not Pruning.DONE:
            self._later(step.pause, self._step)
            return
        self._running = False
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()
        self._ended()
