"""Measures how long the client's own event loop did not run, so that a server is not blamed for it.

A loop that an application holds up for a second sees every answer a second late. If those seconds counted, all servers
would look slow, the percentiles would grow, and an attempt at a frozen server would be given up too late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICK_SECONDS = 0.05
LEAST_SECONDS = 0.1  # what is shorter is the loop's usual work


Clock = Callable[[], float]  # seconds


class Stalls:
    """A timer that is late by as much as the loop was held up. It runs while there are calls."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls = 0
        self._ticks = False
        self._due = 0.0
        self._lost = 0.0

    def began(self) -> None:
        """A call begins."""
        self._calls += 1
        if not self._ticks:
            self._ticks = True
            self._next()

    def ended(self) -> None:
        """A call has ended."""
        self._calls -= 1

    def seconds(self, now: float) -> float:
        """How long the loop was held up while there were calls: a sum that only grows."""
        late = now - self._due if self._ticks else 0.0
        return self._lost + (late if late >= LEAST_SECONDS else 0.0)

    def _next(self) -> None:
        self._due = self._clock() + TICK_SECONDS
        asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._lost = self.seconds(self._clock())
        if self._calls:
            self._next()
        else:
            self._ticks = False
