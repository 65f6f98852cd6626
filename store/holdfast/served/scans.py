"""Reads of many rows, in slices: a turn of the loop reads a bounded number of rows, and connections take turns.

A request for the whole store must not delay heartbeats, writes, or another client's request for one key; nor must a
thousand requests that arrive together. Nor may these fill the memory: no scan begins for a connection that has not read
its answers, or whose scans keep much already; it waits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

from holdfast.kv.store import StateDamaged
from holdfast.outbox import Outbox
from holdfast.served.memory import Memory
from holdfast.status import STATE_DAMAGED, TOO_MANY_REQUESTS, Refusal, RequestError
from holdfast.turns import Turns

SLICE = 500  # rows; a KiB of a row counts as one more. A turn of the loop reads less than twice as many in all
MAX_RUNNING = 1000
RELEASED = 16  # parked scans of an owner that are tried again when one has ended


class Scan(Protocol):
    """`floor`: the oldest revision whose rows it still needs; None if it needs no history. `held`: bytes of rows that
    it keeps."""

    floor: int | None

    @property
    def held(self) -> int: ...

    def advance(self, budget: int, /) -> int:
        """Go on until the cost reaches `budget`. Returns what is left of it when the scan is finished, else 0. Raises
        RequestError if it fails."""
        ...

    def close(self) -> None:
        """It has ended, or nobody waits for it any more: free what it keeps."""
        ...


S = TypeVar("S", bound=Scan)
Failed = Callable[[Refusal], None]


class _Job:
    """A scan that waits for its turn; `scan` is None until its first."""

    __slots__ = ("_begin", "_done", "failed", "held", "outbox", "running", "scan")

    def __init__(
        self, begin: Callable[[], Scan], done: Callable[[Any], None], failed: Failed, outbox: Outbox | None
    ) -> None:
        self._begin = begin
        self._done = done
        self.failed = failed
        self.outbox = outbox
        self.held = 0  # as counted while it waits
        self.running = False  # it has begun, is not finished, and is counted
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
        self._waiting: Turns[_Job] = Turns()  # for their turn
        self._parked: tuple[Turns[_Job], Turns[_Job]] = (Turns(), Turns())  # that may not go on; that may not begin
        self._memory = Memory()
        self._running = 0  # that have begun and are not finished
        self._spent = 0  # rows read since the last turn of this queue began
        self._scheduled = False

    @property
    def floor(self) -> int | None:
        """The oldest revision that a running scan still needs; None if none needs history."""
        jobs = itertools.chain(self._waiting, self._parked[0])
        floors = (job.scan.floor for job in jobs if job.scan is not None)
        return min((floor for floor in floors if floor is not None), default=None)

    @property
    def idle(self) -> bool:
        return not (self._waiting or self._parked[0] or self._parked[1])

    def run(
        self,
        begin: Callable[[], S],
        done: Callable[[S], None],
        failed: Failed,
        *,
        owner: Hashable,
        outbox: Outbox | None = None,
    ) -> Callable[[], None] | None:
        """Begin a scan, and call `done` when it is finished: at once, if one slice is enough and not too much was read
        in this turn of the loop; else it waits for the turn of its `owner`, a connection, whose `outbox` may be given.
        Call `failed` if it fails later. Returns a function that cancels it, to be called when its client does not wait
        any more; None if it is already finished. Raises RequestError if the scan fails at once."""
        job = _Job(begin, done, failed, outbox)
        id = next(self._ids)
        if self._spent < SLICE and not self._has_to_wait(owner, job) and self._step(owner, job):
            job.done()
            return None
        self._put_back(owner, id, job)

        def cancel() -> None:
            if any(jobs.remove(owner, id) for jobs in (self._waiting, *self._parked)):
                self._over(owner, job)

        return cancel

    def _step(self, owner: Hashable, job: _Job) -> bool:
        """Read a slice. Returns whether the scan is finished. Raises RequestError."""
        left = SLICE - 1  # if it is refused
        try:
            job.begin()
            left = 0
            left = job.advance(SLICE)
        finally:
            self._spent += SLICE - left
        if left:
            return True
        assert job.scan is not None
        if not job.running:
            if self._running >= MAX_RUNNING:
                job.scan.close()
                raise RequestError(TOO_MANY_REQUESTS)
            job.running = True
            self._running += 1
        self._memory.keeps(owner, job, job.scan.held)
        return False

    def _put_back(self, owner: Hashable, id: int, job: _Job) -> None:
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
                if self._has_to_wait(owner, job):
                    self._park(owner, id, job)
                    continue
                try:
                    finished = self._step(owner, job)
                except RequestError as error:
                    job.failed(error.refusal)
                    self._over(owner, job)
                    ended = True
                    continue
                if finished:
                    job.done()
                    self._over(owner, job)
                    ended = True
                else:
                    self._put_back(owner, id, job)
        finally:
            self._schedule()
            if ended:
                self._ended()

    def _over(self, owner: Hashable, job: _Job) -> None:
        """The job has ended."""
        self._running -= job.running
        self._memory.keeps(owner, job, 0)
        if job.scan is not None:
            job.scan.close()
        self._release(owner)

    # ---- scans that keep too much, or whose client reads nothing ---------------------------------------------

    def _has_to_wait(self, owner: Hashable, job: _Job) -> bool:
        if job.scan is None and job.outbox is not None and job.outbox.full:
            return True
        return not self._memory.allows(owner, job, begun=job.scan is not None)

    def _park(self, owner: Hashable, id: int, job: _Job) -> None:
        """Put the job aside until another one of its owner has ended, or its outbox has room."""
        self._parked[job.scan is None].add(owner, id, job)
        if job.outbox is not None and job.outbox.full:
            job.outbox.when_room(owner, lambda: self._release(owner))

    def _release(self, owner: Hashable) -> None:
        """Try some of an owner's parked jobs again: first those that have begun, one of which may always go on."""
        for jobs in self._parked:
            for id, job in jobs.take(owner, RELEASED):
                self._put_back(owner, id, job)

    def stop(self) -> None:
        """Drop all running scans."""
        for jobs in (self._waiting, *self._parked):
            jobs.clear()
        self._memory = Memory()
        self._running = 0
