"""Reads of many rows, in slices: all running reads together read one slice per turn of the loop, round-robin.

A request for the whole store must not delay heartbeats, writes, or another client's request for one key.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from holdfast.kv.store import StateDamaged
from holdfast.status import STATE_DAMAGED, TOO_MANY_REQUESTS, Refusal, RequestError

SLICE = 1000  # rows; a KiB of a row counts as one more
MAX_WAITING = 1000


class Scan(Protocol):
    def advance(self, budget: int, /) -> bool:
        """Read more rows, for `budget`. True: finished. Raises RequestError if it fails."""
        ...


S = TypeVar("S", bound=Scan)


class _Running(NamedTuple):
    advance: Callable[[], bool]
    done: Callable[[], None]
    failed: Callable[[Refusal], None]
    floor: int | None


class Scans:
    """`soon` schedules a function for the loop's next turn; `ended` is called when a scan has ended in such a turn."""

    def __init__(self, soon: Callable[[Callable[[], None]], object], ended: Callable[[], None]) -> None:
        self._soon = soon
        self._ended = ended
        self._ids = itertools.count()
        self._running: dict[int, _Running] = {}  # the next to run first
        self._scheduled = False

    @property
    def floor(self) -> int | None:
        """The oldest revision that a running scan still needs; None if none needs history."""
        return min((scan.floor for scan in self._running.values() if scan.floor is not None), default=None)

    @property
    def idle(self) -> bool:
        return not self._running

    def run(
        self, scan: S, done: Callable[[S], None], failed: Callable[[Refusal], None], *, floor: int | None
    ) -> Callable[[], None]:
        """Run `scan`, and call `done` when it is finished: at once, if one slice is enough. Call `failed` if a later
        slice cannot be read. `floor`: the old revision that it reads at, whose rows have to stay until it is done.
        Returns a function that cancels it, to be called when its client does not wait any more. Raises RequestError if
        too many scans are running, or the first slice cannot be read."""
        try:
            finished = scan.advance(SLICE)
        except StateDamaged as error:
            raise RequestError(STATE_DAMAGED) from error
        if finished:
            done(scan)
            return lambda: None
        if len(self._running) >= MAX_WAITING:
            raise RequestError(TOO_MANY_REQUESTS)
        id = next(self._ids)
        self._running[id] = _Running(lambda: scan.advance(SLICE), lambda: done(scan), failed, floor)
        self._schedule()

        def cancel() -> None:
            self._running.pop(id, None)

        return cancel

    def _schedule(self) -> None:
        if self._running and not self._scheduled:
            self._scheduled = True
            self._soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        id = next(iter(self._running), None)
        if id is None:
            return
        scan = self._running.pop(id)
        try:
            finished = scan.advance()
            if not finished:
                self._running[id] = scan  # behind the others
        except (StateDamaged, RequestError) as error:
            scan.failed(STATE_DAMAGED if isinstance(error, StateDamaged) else error.refusal)
            self._ended()
            return
        finally:
            self._schedule()
        if finished:
            scan.done()
            self._ended()

    def stop(self) -> None:
        """Drop all running scans."""
        self._running.clear()
