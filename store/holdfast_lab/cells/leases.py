"""All states of a lease that two processes take from each other, while real time goes on in ticks without end.

One clock is as slow as is allowed, the other one as fast, so that the rules have no time to spare; they differ from
real time by half here, to need few ticks. Between what a process decides, what comes of it, and what it hears of it,
any time may go by. An answer gets lost; its request may arrive whenever it likes, or never. The register is atomic:
`registers` explores that.

Each clock shows 0 at any time: a tick moves back the times that its process remembers. What is so old that no rule can
tell is not moved any more, so there are finitely many states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

from holdfast.cells.lease_rules import LeaseRecord, Tenure, Watched, holds, release, renew, take, watch

RHO = 0.5
RATES = (1 - RHO, 1 + RHO)  # of the clock of each process
TTLS_MS = (3000, 1000)  # of each process; a tick is a second
NOW = 0.0
HOLDERS = (b"eu", b"us")


class Kind(Enum):
    READ = "read"
    TAKE = "take"
    RENEW = "renew"
    RELEASE = "release"


class Asked(NamedTuple):
    """A request. `since`: when it was decided."""

    kind: Kind
    by: int
    since: float
    tenure: Tenure | None = None
    watched: LeaseRecord | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """`takes`, `renewals`: that it may still ask for."""

    takes: int
    renewals: int
    watched: Watched | None = None
    tenure: Tenure | None = None  # its own
    holding: bool = False  # it knows that it has taken the lease
    asked: Asked | None = None
    answer: tuple[LeaseRecord | None] | None = None  # on its way


@dataclass(frozen=True, slots=True)
class World:
    processes: tuple[Process, Process]
    losses: int
    record: LeaseRecord | None = None
    fences: tuple[int, ...] = ()  # of the tenures, in their order
    late: frozenset[Asked] = frozenset()


def beginning(takes: tuple[int, int], renewals: int, losses: int) -> World:
    first, second = (Process(count, renewals) for count in takes)
    return World((first, second), losses)


class Leases:
    """What stands for a rule, or for what the process does by it, may be replaced by mutants."""

    take = staticmethod(take)
    renew = staticmethod(renew)
    holds = staticmethod(holds)

    def free_at(self, by: int, watched: Watched) -> float:
        return watched.free_at(RHO)

    def valid_until(self, tenure: Tenure) -> float:
        return tenure.valid_until(RHO)

    def seen_at(self, asked: float) -> float:
        """From when on a record is watched that has just been received."""
        return NOW

    def extended_from(self, asked: float) -> float:
        """From when on a change of one's own counts whose answer has just been received."""
        return asked

    def tenure_id(self, by: int, takes: int) -> bytes:
        return bytes([by, takes])

    def releasing(self, process: Process) -> Process:
        """It decides to release the lease."""
        return replace(process, holding=False, tenure=None)

    def unanswered(self, process: Process, asked: Asked) -> Process:
        """It hears nothing of what it asked for."""
        return process

    # ---- steps ---------------------------------------------------------------------------------------------

    def nexts(self, world: World) -> Iterator[World]:
        first, second = (_older(process, rate) for process, rate in zip(world.processes, RATES, strict=True))
        yield replace(world, processes=(first, second))
        for by, process in enumerate(world.processes):
            if process.asked is not None:
                yield from self._goes_on(world, by, process, process.asked)
                continue
            yield from (_with(world, by, asking) for asking in self._decide(by, process))
        for asked in world.late:
            yield replace(self._arrive(world, asked), late=world.late - {asked})

    def _decide(self, by: int, process: Process) -> Iterator[Process]:
        if not self._valid(process):
            yield replace(process, asked=Asked(Kind.READ, by, NOW))
        if process.holding and process.tenure is not None:
            own = replace(process.tenure, since=NOW)  # when it began does not matter for what is asked
            if process.renewals:
                asked = Asked(Kind.RENEW, by, NOW, own)
                yield replace(process, renewals=process.renewals - 1, asked=asked)
            yield replace(self.releasing(process), asked=Asked(Kind.RELEASE, by, NOW, own))
        elif self._may_take(by, process) and process.watched is not None:
            tenure = Tenure(self.tenure_id(by, process.takes), NOW, TTLS_MS[by])
            asked = Asked(Kind.TAKE, by, NOW, tenure, process.watched.record)
            yield replace(process, takes=process.takes - 1, tenure=tenure, asked=asked)

    def _may_take(self, by: int, process: Process) -> bool:
        if process.tenure is not None or not process.takes or process.watched is None:
            return False
        return self.free_at(by, process.watched) <= NOW

    def _goes_on(self, world: World, by: int, process: Process, asked: Asked) -> Iterator[World]:
        if asked.kind is Kind.READ:
            yield self._received(world, by, process, asked, world.record)
        elif process.answer is not None:
            yield self._received(world, by, process, asked, process.answer[0])
        else:
            arrived = self._arrive(world, asked)
            yield _with(arrived, by, replace(process, answer=(arrived.record,)))
        if world.losses and asked.kind is not Kind.READ:
            late = world.late if process.answer is not None else world.late | {asked._replace(since=NOW)}
            lost = replace(self.unanswered(process, asked), asked=None, answer=None)
            yield replace(_with(world, by, lost), losses=world.losses - 1, late=late)

    def _arrive(self, world: World, asked: Asked) -> World:
        after = self._change(world.record, asked)
        if after is None:
            return world
        begins = world.record is None or after.tenure != world.record.tenure
        return replace(world, record=after, fences=(*world.fences, after.fence) if begins else world.fences)

    def _change(self, record: LeaseRecord | None, asked: Asked) -> LeaseRecord | None:
        assert asked.tenure is not None
        if asked.kind is Kind.TAKE:
            return self.take(record, asked.watched, asked.tenure, HOLDERS[asked.by])
        return self.renew(record, asked.tenure) if asked.kind is Kind.RENEW else release(record, asked.tenure)

    def _received(self, world: World, by: int, process: Process, asked: Asked, record: LeaseRecord | None) -> World:
        """The record, as it is now or was when the request arrived that is answered."""
        process, tenure = replace(process, asked=None, answer=None), process.tenure
        if tenure is None or asked.kind is Kind.RELEASE or not self.holds(record, tenure):
            watched = watch(process.watched, record, self.seen_at(asked.since))
            return _with(world, by, replace(process, watched=watched, tenure=None, holding=False))
        if asked.kind is not Kind.READ:
            tenure = replace(tenure, since=self.extended_from(asked.since))
        return _with(world, by, replace(process, watched=None, tenure=tenure, holding=True))

    # ---- what must hold ------------------------------------------------------------------------------------

    def _valid(self, process: Process) -> bool:
        return process.holding and process.tenure is not None and self.valid_until(process.tenure) > NOW

    def wrong(self, world: World) -> str:
        if all(self._valid(process) for process in world.processes):
            return "both hold the lease"
        if any(later <= earlier for earlier, later in pairwise(world.fences)):
            return f"the fences of the tenures, in their order, were {world.fences}"
        return ""


def _older(process: Process, passed: float) -> Process:
    """The same some time later."""
    watched, tenure, asked = process.watched, process.tenure, process.asked
    if watched is not None:
        ttl_ms = 0 if watched.record is None or watched.record.released else watched.record.ttl_ms
        watched = replace(watched, since=max(-ttl_ms / 1000 * (1 + RHO), watched.since - passed))
    if tenure is not None:
        tenure = replace(tenure, since=max(-tenure.ttl_ms / 1000, tenure.since - passed))
    if asked is not None:
        oldest = passed if asked.tenure is None else asked.tenure.ttl_ms / 1000  # a read of one tick is slow enough
        asked = asked._replace(since=max(-oldest, asked.since - passed))
    return replace(process, watched=watched, tenure=tenure, asked=asked)


def _with(world: World, by: int, process: Process) -> World:
    first, second = world.processes
    return replace(world, processes=(process, second) if by == 0 else (first, process))
