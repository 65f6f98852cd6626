"""Reads of many rows, in slices: a turn of the loop reads a bounded number of rows, and connections take turns.

A request for the whole store must not delay heartbeats, writes, or another client's request for one key; nor must a
thousand requests that arrive together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

from holdfast.kv.store import StateDamaged
from holdfast.status import STATE_DAMAGED, TOO_MANY_REQUESTS, Refusal, RequestError
from holdfast.turns import Turns

SLICE = 500  # rows; a KiB of a row counts as one more. A turn of the loop reads less than twice as many in all
MAX_RUNNING = 1000


class Scan(Protocol):
    """`floor`: the oldest revision whose rows it still needs; None if it needs no history."""

    floor: int | None

    def advance(self, budget: int, /) -> int:
        """Go on until the cost reaches `budget`. Returns what is left of it when the scan is finished, else 0. Raises
        RequestError if it fails."""
        ...


S = TypeVar("S", bound=Scan)
Failed = Callable[[Refusal], None]


class _Job:
    """A scan that waits for its turn; `scan` is None until its first."""

    __slots__ = ("_begin", "_done", "failed", "scan")

    def __init__(self, begin: Callable[[], Scan], done: Callable[[Any], None], failed: Failed) -> None:
        self._begin = begin
        self._done = done
        self.failed = failed
        self.scan: Scan | None = None

    def begin(self) -> None:
        """Raises RequestError."""
        if self.scan is None:
            try:
                self.scan = self._begin()
            except StateDamaged as error:
                raise RequestError(STATE_DAMAGED) from error

    def advance(self, budget: int) -> int:
        """Returns what is left of the budget if the scan is finished, else 0. Raises RequestError."""
        assert self.scan is not None
        try:
            return self.scan.advance(budget)
        except StateDamaged as error:
            raise RequestError(STATE_DAMAGED) from error

    def done(self) -> None:
        self._done(self.scan)


class Scans:
    """`soon` schedules a function for the loop's next turn; `ended` is called when scans have ended in such a turn."""

    def __init__(self, soon: Callable[[Callable[[], None]], object], ended: Callable[[], None]) -> None:
        self._soon = soon
        self._ended = ended
        self._ids = itertools.count()
        self._waiting: Turns[_Job] = Turns()
        self._running = 0  # of those that wait, how many have begun
        self._spent = 0  # rows read since the last turn of this queue began
        self._scheduled = False

    @property
    def floor(self) -> int | None:
        """The oldest revision that a running scan still needs; None if none needs history."""
        floors = (job.scan.floor for job in self._waiting if job.scan is not None)
        return min((floor for floor in floors if floor is not None), default=None)

    @property
    def idle(self) -> bool:
        return not self._waiting

    def run(
        self, begin: Callable[[], S], done: Callable[[S], None], failed: Failed, *, owner: Hashable
    ) -> Callable[[], None] | None:
        """Begin a scan, and call `done` when it is finished: at once, if one slice is enough and not too much was read
        in this turn of the loop; else it waits for the turn of its `owner`, the connection. Call `failed` if it fails
        later. Returns a function that cancels it, to be called when its client does not wait any more; None if it is
        already finished. Raises RequestError if the scan fails at once."""
        job = _Job(begin, done, failed)
        if self._spent < SLICE and self._step(job):
            job.done()
            return None
        id = next(self._ids)
        self._put_back(owner, id, job)

        def cancel() -> None:
            if self._waiting.remove(owner, id):
                self._running -= job.scan is not None

        return cancel

    def _step(self, job: _Job) -> bool:
        """Read a slice. Returns whether the scan is finished. Raises RequestError."""
        left = SLICE - 1  # if it is refused
        try:
            job.begin()
            left = 0
            left = job.advance(SLICE)
        finally:
            self._spent += SLICE - left
        if not left and self._running >= MAX_RUNNING:
            raise RequestError(TOO_MANY_REQUESTS)
        return left > 0

    def _put_back(self, owner: Hashable, id: int, job: _Job) -> None:
        self._running += job.scan is not None
        self._waiting.add(owner, id, job)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._spent = 0
        ended = False
        try:
            while self._waiting and self._spent < SLICE:
                owner, id, job = self._waiting.next()
                self._running -= job.scan is not None
                try:
                    finished = self._step(job)
                except RequestError as error:
                    job.failed(error.refusal)
                    ended = True
                    continue
                if finished:
                    job.done()
                    ended = True
                else:
                    self._put_back(owner, id, job)
        finally:
            self._schedule()
            if ended:
                self._ended()

    def stop(self) -> None:
        """Drop all running scans."""
        self._waiting.clear()
        self._running = 0
