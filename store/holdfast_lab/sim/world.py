"""The simulated world: time, random choices, and the trace, which is the same to the bit in all runs of one seed.

Everything that happens is an event in one queue, ordered by time and then by number. Each kind of choice has its own
generator, so that an additional fault does not change all other choices.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any

from holdfast_lab.sim.violation import Violation

TAIL_LINES = 400
SPINNING = 50_000  # more events at one instant than any correct run needs


class World:
    """Clock, queue, random generators and trace of one run."""

    def __init__(self, seed: int, keep_trace: int = TAIL_LINES) -> None:
        self.seed = seed
        self.now = 0
        self.reached: set[str] = set()
        self.tail: deque[str] = deque(maxlen=keep_trace or None)
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._counter = 0
        self._hash = blake2b(digest_size=16)
        self._lines: list[str] = []

    def chance(self, name: str) -> Random:
        """The random generator for one kind of choice."""
        return Random(f"{self.seed}/{name}")

    def at(self, when: int, what: Callable[..., None], *arguments: Any) -> None:
        """Call `what` at `when`, or now if that time has passed."""
        self._counter += 1
        heapq.heappush(self._queue, (when if when > self.now else self.now, self._counter, what, arguments))

    @property
    def due(self) -> int | None:
        """When the next event is."""
        return self._queue[0][0] if self._queue else None

    def run_until(self, end: int) -> None:
        queue, pop = self._queue, heapq.heappop
        at_once = 0
        while queue and queue[0][0] <= end:
            when, _, what, arguments = pop(queue)
            at_once = at_once + 1 if when == self.now else 0
            if at_once == SPINNING:
                raise Violation("L1", f"{SPINNING} events at {when / 1e9} s: something never rests")
            self.now = when
            what(*arguments)
        self.now = end

    def note(self, line: str) -> None:
        """Add something that happened to the trace."""
        text = f"{self.now / 1e9:10.6f} {line}"
        self.tail.append(text)
        self._lines.append(text)
        if len(self._lines) >= 512:
            self._digest()

    def sometimes(self, what: str) -> None:
        """Record that this run reached an interesting state ("sometimes" assertions)."""
        self.reached.add(what)

    def _digest(self) -> None:
        self._hash.update("\n".join(self._lines).encode())
        self._lines.clear()

    def trace(self) -> str:
        """A hash of everything that happened."""
        self._digest()
        return self._hash.hexdigest()
