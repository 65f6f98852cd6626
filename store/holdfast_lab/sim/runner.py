"""Runs many seeds and mutants on all cores, and collects what is printed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from holdfast.workers import pool

from holdfast_lab.sim.linear import BROKEN_STEPS, limited
from holdfast_lab.sim.mutation import broken
from holdfast_lab.sim.simulation import FAILURES, Result
from holdfast_lab.sim.subject import MEMBERS, SUBJECTS

CHUNK = 4


@dataclass(slots=True)
class Failure:
    """A seed that failed. `name` is the id of the violated invariant."""

    seed: int
    name: str
    what: str


@dataclass(slots=True)
class Summary:
    """The sums over many seeds."""

    of: str = MEMBERS
    seeds: int = 0
    seconds: float = 0.0
    steps: int = 0
    simulated_ns: int = 0
    operations: int = 0
    acknowledged: int = 0
    faults: int = 0
    elections: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, outcome: Result | Failure) -> None:
        self.seeds += 1
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            return
        self.steps += outcome.steps
        self.simulated_ns += outcome.simulated_ns
        self.operations += outcome.operations
        self.acknowledged += outcome.acknowledged
        self.faults += outcome.faults
        self.elections += outcome.elections
        self.reached.update(outcome.reached)

    @property
    def unreached(self) -> list[str]:
        """Interesting states that no run reached, so that nothing in them was tested."""
        return [what for what in SUBJECTS[self.of].sometimes if not self.reached[what]]

    def __str__(self) -> str:
        hours = self.simulated_ns / 3.6e12
        return (
            f"{self.seeds} seeds, {hours:.1f} simulated hours in {self.seconds:.0f} s "
            f"({self.steps / max(self.seconds, 1e-9):,.0f} steps/s): {self.steps:,} steps, "
            f"{self.operations:,} operations ({self.acknowledged:,} acknowledged), {self.faults:,} faults, "
            f"{self.elections:,} elections; {len(self.failures)} failed"
        )


def name_of(error: BaseException) -> str:
    """The id of the violated invariant, or the name of the production code's exception."""
    return str(getattr(error, "name", type(error).__name__))


def attempt(seed: int, seconds: int = 0, without: Collection[str] = (), of: str = MEMBERS) -> Result | Failure:
    """Run one seed of this subject."""
    try:
        return SUBJECTS[of].make(seed, seconds=seconds, without=without).run()
    except FAILURES as error:
        return Failure(seed, name_of(error), str(error))


def _attempt(job: tuple[int, int, tuple[str, ...], str]) -> Result | Failure:
    return attempt(*job)


def run_seeds(
    seeds: Iterable[int], *, seconds: int = 0, without: Collection[str] = (), jobs: int = 0, of: str = MEMBERS
) -> Iterator[tuple[Summary, Result | Failure]]:
    """Run seeds on `jobs` processes (0 = one for each core); yields each result, in the order of the seeds."""
    summary, began = Summary(of), time.monotonic()
    with pool(jobs) as workers:
        work = [(seed, seconds, tuple(without), of) for seed in seeds]
        for outcome in workers.map(_attempt, work, chunksize=CHUNK):
            summary.add(outcome)
            summary.seconds = time.monotonic() - began
            yield summary, outcome


@dataclass(slots=True)
class Found:
    """The result of a mutant: which invariant failed, after how many seeds; `seeds` 0 = none failed."""

    mutant: str
    seeds: int
    name: str = ""
    what: str = ""


def find_mutant(name: str, limit: int, of: str = MEMBERS) -> Found:
    """Run seeds from 0 on with this rule broken, until one fails that passes with the unbroken code."""
    mutant = SUBJECTS[of].mutants[name]
    for seed in range(limit):
        with broken(mutant), limited(BROKEN_STEPS):
            outcome = attempt(seed, of=of)
        if isinstance(outcome, Failure) and isinstance(attempt(seed, of=of), Result):
            return Found(name, seed + 1, outcome.name, outcome.what.splitlines()[0])
    return Found(name, 0)


def _find(job: tuple[str, int, str]) -> Found:
    return find_mutant(*job)


def find_mutants(limit: int, jobs: int = 0, names: Collection[str] = (), of: str = MEMBERS) -> Iterator[Found]:
    """Run all mutants (or those named), several in parallel."""
    with pool(jobs) as workers:
        yield from workers.map(_find, [(name, limit, of) for name in names or SUBJECTS[of].mutants])
