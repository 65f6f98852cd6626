"""Reads of many rows, a slice at a time, in turns: however many there are, one slice a turn of the loop is read.

A request for everything there is must not hold up heartbeats, writes, or somebody else's request for one key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

SLICE = 1000  # rows; a KiB of a row counts as one more


class Scan(Protocol):
    def advance(self, budget: int, /) -> bool:
        """Look at so many more rows or KiB. True: finished."""
        ...


S = TypeVar("S", bound=Scan)


class Scans:
    """`soon` has a function called in the loop's next turn; `ended` is called when a scan has finished there."""

    def __init__(self, soon: Callable[[Callable[[], None]], object], ended: Callable[[], None]) -> None:
        self._soon = soon
        self._ended = ended
        self._waiting: deque[tuple[Callable[[], bool], Callable[[], None], int | None]] = deque()

    @property
    def floor(self) -> int | None:
        """The oldest revision that a scan still reads at; None: none reads the past."""
        return min((floor for _, _, floor in self._waiting if floor is not None), default=None)

    def run(self, scan: S, done: Callable[[S], None], *, floor: int | None) -> None:
        """Call `done` when `scan` has seen all of its rows: at once, if that takes no more than one slice. `floor`: the
        revision of the past that it reads at, whose rows have to stay until it is done."""
        if scan.advance(SLICE):
            done(scan)
            return
        self._waiting.append((lambda: scan.advance(SLICE), lambda: done(scan), floor))
        if len(self._waiting) == 1:
            self._soon(self._turn)

    def _turn(self) -> None:
        if not self._waiting:
            return
        advance, done, _ = self._waiting[0]
        finished = advance()
        if finished:
            self._waiting.popleft()
        else:
            self._waiting.rotate(-1)
        if self._waiting:
            self._soon(self._turn)
        if finished:
            done()
            self._ended()

    def stop(self) -> None:
        """Nothing is read any more."""
        self._waiting.clear()
