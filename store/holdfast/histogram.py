"""Histograms of durations: a few numbers, cheap enough for every code path."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

# Bounds in seconds, as in etcd: for computations, for disk operations, for calls of clients.
FAST = tuple(0.0001 * 2**n for n in range(20))
DISK = tuple(0.001 * 2**n for n in range(14))
CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """Counts durations in seconds by these upper bounds."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[float, int]]:
        """(bound, number of durations up to it) for each bound; the last bound is infinite."""
        found, total = [], 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            found.append((bound, total))
        return found
