"""Work that waits until a number has grown enough: the watermark, or the time before which everything is here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from sortedcontainers import SortedDict


class Waiting:
    """To wait, to give up and to go on cost the logarithm of how many wait, not their number."""

    def __init__(self) -> None:
        self._arrivals = itertools.count()
        # (number to reach, order of arrival) -> what to do then, and the timer that gives up
        self._due: SortedDict[tuple[int, int], tuple[Callable[[], None], asyncio.TimerHandle]] = SortedDict()

    def wait(
        self, number: int, work: Callable[[], None], seconds: float, late: Callable[[], None]
    ) -> Callable[[], None]:
        """Call `work` once `number` is reached, or `late` if that takes longer than `seconds`. Returns a function that
        gives up: then neither is called."""
        key = (number, next(self._arrivals))

        def give_up() -> None:
            found = self._due.pop(key, None)
            if found is not None:
                found[1].cancel()

        def too_late() -> None:
            if self._due.pop(key, None) is not None:
                late()

        self._due[key] = (work, asyncio.get_running_loop().call_later(max(0.0, seconds), too_late))
        return give_up

    def reached(self, number: int) -> None:
        while self._due and self._due.peekitem(0)[0][0] <= number:
            _, (work, timer) = self._due.popitem(0)
            timer.cancel()
            work()
