"""How old a replica's data can be, without clocks that agree: the time since the last probe that was answered was sent.

A probe asks the cluster which revision is applied, with leadership confirmed. Once the replica is complete up to the
revision in the answer, it has every write that was acknowledged before the probe was sent. A replica that feeds others
answers their probes with the answer to a probe of its own which it sent after theirs came; so the bounds add up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from holdfast.edge.lineage import Lineage, Relation

MAX_SENT = 32  # not answered
MAX_WAITING = 10_000  # questions of replicas below; further ones get no answer

Confirmed = Callable[[int | None], None]


class Probes:
    """The probes of one replica. Times are those of one clock, in nanoseconds."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._sent: dict[int, tuple[int, list[Confirmed]]] = {}  # when, and who waits for the answer
        self._waiting: list[Confirmed] = []  # for a probe that is sent from now on
        self._answered: list[tuple[int, int]] = []  # (revision to reach, when its probe was sent)
        self.newest = 0  # id of the last probe
        self.fresh_at: int | None = None  # all writes acknowledged before this time are here
        self._lineage: Lineage | None = None  # of the upstream
        self._here: Lineage | None = None  # of the data

    @property
    def outstanding(self) -> bool:
        """Whether the newest probe is not answered."""
        return self.newest in self._sent

    def confirm(self, confirmed: Confirmed) -> None:
        """Call `confirmed` with a revision that includes every write acknowledged before now; with None if that cannot
        be found."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(confirmed)
        else:
            confirmed(None)

    def send(self, now: int) -> int:
        """The id of a probe that is sent now."""
        self.newest = next(self._ids)
        self._sent[self.newest] = (now, self._waiting)
        self._waiting = []
        while len(self._sent) > MAX_SENT:
            _, forgotten = self._sent.pop(next(iter(self._sent)))
            _give_up(forgotten)
        return self.newest

    def answered(self, id: int, revision: int) -> None:
        sent = self._sent.pop(id, None)
        if sent is None:
            return
        at, waiting = sent
        self._answered.append((revision, at))
        if self._here is not None and not self._same(self._here):
            _give_up(waiting)  # those below have what is here: for them the revision means another one
            return
        for confirmed in waiting:
            confirmed(revision)

    def greeted(self, lineage: Lineage) -> None:
        """An upstream that has this history answers from now on. What those of another one said does not count."""
        if not self._same(lineage):
            self.fresh_at, self._answered = None, []
        self._lineage = lineage

    def _same(self, lineage: Lineage) -> bool:
        """Whether the upstream has this history, or there was none yet."""
        return self._lineage is None or self._lineage.relation(lineage) is Relation.SAME

    def reached(self, watermark: int, lineage: Lineage) -> None:
        """The replica is complete up to this revision of this history."""
        self._here = lineage if lineage.cluster_id else None
        if self._here is not None and not self._same(lineage):
            return
        left: list[tuple[int, int]] = []
        for revision, at in self._answered:
            if revision <= watermark:
                self.fresh_at = at if self.fresh_at is None else max(at, self.fresh_at)
            else:
                left.append((revision, at))
        self._answered = left

    def lost(self) -> None:
        """The connection has ended. What was answered stays true."""
        sent, self._sent = self._sent, {}
        waiting, self._waiting = self._waiting, []
        _give_up([confirmed for _, of in sent.values() for confirmed in of] + waiting)


def _give_up(waiting: list[Confirmed]) -> None:
    for confirmed in waiting:
        confirmed(None)


def bound_seconds(staleness_ms: int | None) -> int:
    """How old the data can be, rounded up to 1, 2, 5, 10, 20, 50, … seconds; 0: unknown. Coarse, so that it is the same
    from one report of a steady replica to the next."""
    if staleness_ms is None:
        return 0
    power = 1
    while True:
        for step in (power, 2 * power, 5 * power):
            if staleness_ms < 1000 * step:  # whole milliseconds: up to one more has passed
                return step
        power *= 10
