"""The command `sim`: runs whole clusters under faults, many times, in simulated time."""

from __future__ import annotations

from typing import Annotated

import typer
from holdfast.cli.errors import fail

from holdfast_lab.sim.mix import CLASSES
from holdfast_lab.sim.runner import Failure, Summary, find_mutants, name_of, run_seeds
from holdfast_lab.sim.shrink import shrink
from holdfast_lab.sim.shrink import trace as trace_of
from holdfast_lab.sim.subject import CELLS, EDGES, MEMBERS, RECIPES, REPLICATIONS, SUBJECTS


def sim(
    seeds: Annotated[int, typer.Option(help="How many seeds to run.")] = 100,
    first: Annotated[int, typer.Option(help="The first of them.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Run this one only.")] = None,
    seconds: Annotated[
        int, typer.Option(help="Simulated seconds of trouble; 0: at least 60, 300 operations and 10 faults.")
    ] = 0,
    without: Annotated[str, typer.Option(help="Classes of fault to leave out, separated by commas.")] = "",
    trace: Annotated[bool, typer.Option(help="With --seed: print everything that happened.")] = False,
    mutant: Annotated[str, typer.Option(help="Break this rule of the production code and look who notices.")] = "",
    mutants: Annotated[bool, typer.Option(help="Break every rule, one after the other, and print the table.")] = False,
    limit: Annotated[int, typer.Option(help="Seeds that a mutant must be found within.")] = 300,
    marks: Annotated[bool, typer.Option(help="Print how many seeds reached each interesting state.")] = False,
    recipes: Annotated[bool, typer.Option(help="Run applications that use the recipes, too.")] = False,
    edges: Annotated[bool, typer.Option(help="Run edge replicas that follow each other.")] = False,
    cells: Annotated[bool, typer.Option(help="Run clusters that agree with each other.")] = False,
    replications: Annotated[bool, typer.Option(help="Run clusters of which a prefix is replicated.")] = False,
    jobs: Annotated[int, typer.Option(help="Processes; 0: one a core.")] = 0,
) -> None:
    """Run the deterministic simulator. Fails if a seed finds a violation, or a mutant is not found.

    It runs the production member core on simulated disks, networks and clocks; a seed determines its run, to the
    bit. A failing seed is printed with the command that repeats it and a smaller run that fails in the same way.
    """
    left_out = [name for name in without.split(",") if name]
    for name in left_out:
        if name not in CLASSES:
            fail(f"--without: {name!r} is not a class of fault; there are {', '.join(CLASSES)}")
    of = RECIPES if recipes else EDGES if edges else CELLS if cells else REPLICATIONS if replications else MEMBERS
    if left_out and of in (CELLS, REPLICATIONS):
        fail("--without: the faults of cells cannot be left out")
    if mutant and mutant not in SUBJECTS[of].mutants:
        fail(f"--mutant: {mutant!r} is none; there are {', '.join(SUBJECTS[of].mutants)}")
    if mutant or mutants:
        _mutants([mutant] if mutant else [], limit, jobs, of)
    elif seed is not None:
        _one(seed, seconds, left_out, trace, of)
    else:
        _many(range(first, first + seeds), seconds, left_out, marks, jobs, of)


def _one(seed: int, seconds: int, without: list[str], whole: bool, of: str) -> None:
    error, run = trace_of(seed, seconds, without, keep=0 if whole else 60, of=of)
    if whole or error is not None:
        print("\n".join(run.world.tail))
    print(f"seed {seed}: {run.world.now / 1e9:.1f} simulated seconds, {run.steps} steps, trace {run.world.trace()}")
    if error is not None:
        fail(f"{name_of(error)}: {error}")


def _many(seeds: range, seconds: int, without: list[str], marks: bool, jobs: int, of: str) -> None:
    summary = Summary(of)
    for summary, outcome in run_seeds(seeds, seconds=seconds, without=without, jobs=jobs, of=of):
        if isinstance(outcome, Failure):
            print(f"seed {outcome.seed} FAILED: {outcome.what}", flush=True)
        if summary.seeds % 500 == 0:
            print(summary, flush=True)
    print(summary)
    if marks:
        for name, count in sorted(summary.reached.items(), key=lambda item: -item[1]):
            print(f"{count:7d}  {name}")
    _unreached(summary)
    if summary.failures:
        _explain(summary.failures[0], of)
        raise typer.Exit(1)


def _unreached(summary: Summary) -> None:
    if summary.unreached:
        print(f"never reached: {', '.join(summary.unreached)}")
    else:
        print("every interesting state was reached")


def _explain(failure: Failure, of: str) -> None:
    """Minimize and explain the first failure."""
    print(f"\nmaking seed {failure.seed} small …", flush=True)
    small = shrink(failure, of)
    print("\n".join(small.trace[-60:]))
    print(f"\n{small.what}\nrepeat it with: {SUBJECTS[of].command} --seed {failure.seed}")
    print(f"the smaller run: {small.command}")


def _mutants(names: list[str], limit: int, jobs: int, of: str) -> None:
    missed, subject = [], SUBJECTS[of]
    print("| mutant | rule that it breaks | seeds | found by |\n|---|---|---|---|")
    for found in find_mutants(limit, jobs, names, of):
        if not found.seeds:
            missed.append(found.mutant)
        seeds = str(found.seeds) if found.seeds else f"not in {limit}"
        print(f"| `{found.mutant}` | {subject.mutants[found.mutant].rule} | {seeds} | {found.name} |", flush=True)
        if names and found.seeds:
            print(f"\n{found.what}\nrepeat it with: {subject.command} --mutant {found.mutant} --limit {found.seeds}")
    if missed:
        fail(f"not found: {', '.join(missed)}")
