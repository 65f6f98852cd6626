"""Work on many rows in slices: a caller decides how many rows may be read before others have their turn.

Work is a generator that yields the cost of each step, in rows. So code that reads rows is written in one piece, and can
be interrupted after any row.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

T = TypeVar("T")

RUN = 1000  # items that are sorted in one go


class Sliced:
    """Work that a generator does: the one given, or `steps` of a subclass. `floor`: the oldest revision whose rows it
    still needs; None if it needs no history. `held`: bytes of rows that it keeps."""

    floor: int | None = None
    held = 0

    def __init__(self, going: Iterator[int] | None = None) -> None:
        self._going = going

    def steps(self) -> Iterator[int]:
        """Do the work. Yields the cost of each step."""
        raise NotImplementedError

    def advance(self, budget: int) -> int:
        """Go on until the cost reaches `budget`. Returns what is left of it when the work is finished, else 0."""
        if self._going is None:  # not before: it refers to this object, and what refers to itself is freed late
            self._going = self.steps()
        for cost in self._going:
            budget -= cost
            if budget <= 0:
                return 0
        return budget

    def close(self) -> None:
        """Give up, so that what is kept can be freed."""
        self._going = iter(())


class SlicedSort(Generic[T]):
    """Sorts items in steps of RUN, and keeps only those that can be among the first `limit` (0: all). Like `sorted`, it
    keeps the order of items with equal keys, also with `reverse`."""

    def __init__(self, key: Callable[[T], Any] = lambda item: item, *, reverse: bool = False, limit: int = 0) -> None:
        self._key = key
        self._reverse = reverse
        self._limit = limit
        self._runs: list[list[T]] = []  # sorted
        self._run: list[T] = []  # not sorted yet

    def add(self, item: T) -> None:
        self._run.append(item)
        if len(self._run) == RUN:
            self._end_run()

    def _end_run(self) -> None:
        run, self._run = self._run, []
        run.sort(key=self._key, reverse=self._reverse)
        if self._limit:
            del run[self._limit :]
        self._runs.append(run)

    def merged(self) -> Iterator[T]:
        """The items in order. Call when all are added."""
        self._end_run()
        merged = heapq.merge(*self._runs, key=self._key, reverse=self._reverse)
        return islice(merged, self._limit or None)
