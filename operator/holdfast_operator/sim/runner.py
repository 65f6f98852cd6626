"""Runs many seeds and mutants on all cores, and sums up what they reached and what failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from holdfast.workers import pool

from holdfast_operator.sim.mutants import MUTANTS, Mutant, broken
from holdfast_operator.sim.shape import shape_of
from holdfast_operator.sim.simulation import Result, simulate

CHUNK = 4


@dataclass(slots=True)
class Summary:
    seeds: int = 0
    simulated: float = 0.0
    seconds: float = 0.0  # of the processor, in all processes
    elapsed: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)
    failures: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.simulated += result.simulated
        self.seconds += result.seconds
        self.reached.update(dict.fromkeys((name for name, times in result.reached.items() if times), 1))
        if result.violation is not None:
            self.failures.append(result)

    @property
    def kinds(self) -> Counter[str]:
        """How often each invariant was violated."""
        return Counter(r.violation[0] for r in self.failures if r.violation is not None)

    def __str__(self) -> str:
        speed = self.seeds / max(self.seconds, 1e-9)
        return (
            f"{self.seeds} seeds, {self.simulated / 3600:.1f} simulated hours in {self.elapsed:.0f} s "
            f"({speed:.1f} seeds per second and core); {len(self.failures)} failed"
        )


def run_seeds(summary: Summary, seeds: Iterable[int], jobs: int = 0) -> Iterator[Result]:
    """Run seeds on `jobs` processes (0: one for each core); yields each result in the order of the seeds, and adds it
    to the summary."""
    began = time.monotonic()
    with pool(jobs) as workers:
        for result in workers.map(simulate, seeds, chunksize=CHUNK):
            summary.add(result)
            summary.elapsed = time.monotonic() - began
            yield result


# ---- mutants -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a mutant. `seed`: the one that found it, None if none did; `tried`: how many seeds were run."""

    mutant: str
    tried: int
    seed: int | None = None
    violation: tuple[str, str] = ("", "")


def find_mutant(name: str, limit: int, *, hinted: bool = True) -> Found:
    """Run seeds with this rule broken, until one fails that passes with the right rule. `hinted`: the seed that is
    known to find it comes first, and then all from 0 on."""
    known = MUTANTS[name]
    seeds = dict.fromkeys([*([known.seed] if hinted else []), *range(limit)])
    for tried, seed in enumerate(seeds, 1):
        with broken(name):
            result = _attempt(known, seed)
        if result.violation is not None and _attempt(known, seed).violation is None:
            return Found(name, tried, seed, result.violation)
    return Found(name, len(seeds))


def _attempt(of: Mutant, seed: int) -> Result:
    """One seed in the circumstances in which the mutant's rule matters."""
    shape = replace(shape_of(seed), **of.shape)
    return simulate(seed, shape=replace(shape, nodes=max(shape.nodes, shape.voters + 2)), events=of.events)


def _find(job: tuple[str, int, bool]) -> Found:
    name, limit, hinted = job
    return find_mutant(name, limit, hinted=hinted)


def find_mutants(limit: int, *, jobs: int = 0, hinted: bool = True, names: Collection[str] = ()) -> Iterator[Found]:
    """Run all mutants (or those named), several in parallel."""
    with pool(jobs) as workers:
        yield from workers.map(_find, [(name, limit, hinted) for name in names or MUTANTS])
