"""When which revision was acknowledged to some client."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Acknowledged:
    """Times in order."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._highest: list[int] = []

    def note(self, now: int, revision: int) -> None:
        if not self._highest or revision > self._highest[-1]:
            self._times.append(now)
            self._highest.append(revision)

    def before(self, at: int) -> int:
        """The highest revision that was acknowledged before this time; 0: none."""
        found = bisect_left(self._times, at)
        return self._highest[found - 1] if found else 0

    def after(self, revision: int) -> int | None:
        """When the first one higher than this was acknowledged; None: none yet."""
        found = bisect_right(self._highest, revision)
        return self._times[found] if found < len(self._times) else None
