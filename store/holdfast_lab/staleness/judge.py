"""Checks each answer of a replica when it comes, at the cost of a logarithm of what was written.

S1. A read `bounded=d` that began at t has every write that was acknowledged before t - d.
S2. An answer that says a bound b, to a read that began at t, has every write that was acknowledged before t - b.
S3. A read `at-least=p` is answered at p or later.
S4. What a replica shows of a key never goes back, not even when it was killed. Its position does not go back while its
    process runs.
S5. An answer has every change up to its position, and none after it.

One clock, that of the tester, says when a write was acknowledged and when a read began: after the first and before the
second has left the tester. So whatever delays the tester can hide a fault, but never makes one up.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

from holdfast_lab.sim.edges.acknowledged import Acknowledged
from holdfast_lab.sim.violation import check


@dataclass(frozen=True, slots=True)
class Mode:
    """How fresh a read has to be. `within`: of a bounded one, in nanoseconds. `revision`: of at-least."""

    name: str
    metadata: str
    within: int | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A read that begins. `number` and `revision`: what the replica has shown before it."""

    replica: str
    key: str
    mode: Mode
    at: int
    number: int
    revision: int
    start: int


@dataclass(frozen=True, slots=True)
class Answer:
    """`number`: the value; 0 if there was none. `bound` in nanoseconds; None: unknown."""

    mode: str
    number: int
    changed: int
    revision: int
    bound: int | None


class Written:
    """The writes of one key: numbers that grow, when they were acknowledged, and their revisions."""

    def __init__(self) -> None:
        self.acknowledged = Acknowledged()
        self._revisions: list[int] = []
        self._numbers: list[int] = []

    def note(self, now: int, number: int, revision: int) -> None:
        self.acknowledged.note(now, number)
        self._revisions.append(revision)
        self._numbers.append(number)

    def upto(self, revision: int) -> int:
        """The highest number acknowledged so far whose revision is at most this one; 0: none."""
        found = bisect_right(self._revisions, revision)
        return self._numbers[found - 1] if found else 0


@dataclass(slots=True)
class Shown:
    """What a replica has shown. `starts`: how often it was started again."""

    numbers: Counter[str] = field(default_factory=Counter)
    revision: int = 0
    starts: int = 0


class Judge:
    """Raises Violation when an answer is wrong."""

    def __init__(self) -> None:
        self._written: dict[str, Written] = {}
        self._revisions = Acknowledged()
        self._shown: dict[str, Shown] = {}
        self.writes = 0
        self.behind = 0  # answers that lacked a write which was acknowledged before the read began
        self.oldest = 0  # of all answers: how long before the read a write was acknowledged that it lacked, at least

    def acknowledged(self, key: str, number: int, revision: int) -> None:
        now = time.monotonic_ns()
        self._written.setdefault(key, Written()).note(now, number, revision)
        self._revisions.note(now, revision)
        self.writes += 1

    def restarted(self, replica: str) -> None:
        """The process of this replica is gone: its position may be an older one from now on."""
        shown = self._of(replica)
        shown.revision, shown.starts = 0, shown.starts + 1

    def _of(self, replica: str) -> Shown:
        return self._shown.setdefault(replica, Shown())

    def asked(self, replica: str, key: str, mode: Mode) -> Asked:
        shown = self._of(replica)
        return Asked(replica, key, mode, time.monotonic_ns(), shown.numbers[key], shown.revision, shown.starts)

    def answered(self, asked: Asked, answer: Answer) -> None:
        mode, at = asked.mode, asked.at
        check(answer.mode == mode.name, "S1", f"a read {mode.metadata} was answered as {answer.mode}: {asked}")
        if mode.within is not None:
            self._check_has("S1", at - mode.within, asked, answer)
        if answer.bound is not None:
            self._check_has("S2", at - answer.bound, asked, answer)
        if answer.revision < mode.revision:
            check(False, "S3", f"{asked} was answered by {answer}")
        least = self._written[asked.key].upto(answer.revision)
        if answer.number < least or answer.changed > answer.revision:
            check(False, "S5", f"{least} was written up to the position of {answer}, to {asked}")
        self._check_forward(asked, answer)
        self._count(asked, answer)

    def _check_has(self, rule: str, before: int, asked: Asked, answer: Answer) -> None:
        number = self._written[asked.key].acknowledged.before(before)
        revision = self._revisions.before(before)
        if answer.number < number or answer.revision < revision:
            seconds = (asked.at - before) / 1e9
            what = f"number {number} and revision {revision} were acknowledged {seconds:.3f} s before it or earlier"
            check(False, rule, f"{what}: {asked} was answered by {answer}")

    def _check_forward(self, asked: Asked, answer: Answer) -> None:
        shown = self._of(asked.replica)
        check(answer.number >= asked.number, "S4", f"it went back: {asked} was answered by {answer}")
        shown.numbers[asked.key] = max(shown.numbers[asked.key], answer.number)
        if asked.start == shown.starts:
            check(answer.revision >= asked.revision, "S4", f"its position went back: {asked} was answered by {answer}")
            shown.revision = max(shown.revision, answer.revision)

    def _count(self, asked: Asked, answer: Answer) -> None:
        lacked = self._written[asked.key].acknowledged.after(answer.number)
        if lacked is not None and lacked < asked.at:
            self.behind += 1
            self.oldest = max(self.oldest, asked.at - lacked)
