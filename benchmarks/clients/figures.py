"""Figures from what was recorded: percentiles, shares, and how long a watch heard nothing. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least of these, which are sorted, that `share` of them (0 to 1) do not exceed. NaN if there are none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def shares(counts: Mapping[str, float]) -> dict[str, float]:
    """Each count as a share of all, 0 to 1."""
    total = sum(counts.values())
    return {name: count / total if total else 0.0 for name, count in counts.items()}


def imbalance(counts: Mapping[str, float]) -> float:
    """How far the count that is farthest from the mean is from it, as a share of the mean."""
    mean = sum(counts.values()) / len(counts)
    return max(abs(count - mean) for count in counts.values()) / mean if mean else 0.0


def deafness(committed: Mapping[str, float], watches: Iterable[Iterable[tuple[str, float]]]) -> tuple[list[float], int]:
    """Of each watch the most seconds from a commit to its event, and how many events are missing in all. `committed`:
    when each value was acknowledged. An event may come before the acknowledgement: that is no time."""
    longest, missing = [], 0
    for events in watches:
        heard = dict(events)
        missing += len(committed.keys() - heard.keys())
        waits = [heard[value] - at for value, at in committed.items() if value in heard]
        longest.append(max(0.0, *waits) if waits else 0.0)
    return longest, missing
