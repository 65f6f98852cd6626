"""Says in the log why something does not go on, without filling the disk of a node that is cut off for weeks.

Each line is said once, then at most every ten minutes for as long as it is met again, with how often that was. Once the
trouble is over, the same lines are new again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

AGAIN_SECONDS = 600.0
MOST = 50  # lines that are remembered


@dataclass(slots=True)
class _Said:
    at: float
    since: int = 0  # how often it was met since


class Reasons:
    """What was said of one trouble."""

    def __init__(self, log: logging.Logger, level: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._level = level
        self._clock = clock
        self._said: dict[str, _Said] = {}

    def say(self, line: str, *, key: str = "", level: int | None = None) -> bool:
        """It was met now. `key`: lines that have the same one are about the same; else all of the line counts. Returns
        whether it is in the log now."""
        key, level = key or line, self._level if level is None else level
        now, said = self._clock(), self._said.get(key)
        if said is None:
            if len(self._said) >= MOST:
                del self._said[next(iter(self._said))]
            self._said[key] = _Said(now)
            self._log.log(level, "%s", line)
            return True
        said.since += 1
        if now < said.at + AGAIN_SECONDS:
            return False
        minutes = round((now - said.at) / 60)
        self._log.log(level, "%s (%d times more in %d min)", line, said.since, minutes)
        said.at, said.since = now, 0
        return True

    def over(self) -> bool:
        """There is no trouble any more. Returns whether anything was said of it."""
        told = bool(self._said)
        self._said.clear()
        return told
