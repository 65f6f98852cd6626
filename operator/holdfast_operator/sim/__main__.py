"""`python -m holdfast_operator.sim`: run seeds of the simulated world, one with its trace, or the mutants."""

from __future__ import annotations

import argparse
import sys

from holdfast_operator.sim.mutants import MUTANTS
from holdfast_operator.sim.runner import Summary, find_mutants, run_seeds
from holdfast_operator.sim.simulation import Result, simulate

SHOWN_LINES = 25
MUTANT_SEEDS = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m holdfast_operator.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--from", type=int, default=0, dest="first_seed", help="the first seed")
    parser.add_argument("--seed", type=int, help="run only this seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happened")
    parser.add_argument("--events", help="with --seed: these events, separated by commas, instead of the seed's own")
    parser.add_argument("--first", action="store_true", help="stop at the first seed that fails")
    parser.add_argument("--jobs", type=int, default=0, help="processes; one for each core if absent")
    parser.add_argument("--mutants", nargs="*", metavar="NAME", help="break the operator's rules (or those named)")
    parser.add_argument("--limit", type=int, default=MUTANT_SEEDS, help="with --mutants: seeds for each at most")
    parser.add_argument("--search", action="store_true", help="with --mutants: from seed 0 on, without the known one")
    options = parser.parse_args()
    if options.mutants is not None:
        return _mutants(options.mutants, options.limit, options.jobs, hinted=not options.search)
    if options.seed is not None:
        events = None if options.events is None else tuple(e for e in options.events.split(",") if e)
        result = simulate(options.seed, events=events, keep=options.trace)
        _show(result, len(result.lines) if options.trace else SHOWN_LINES)
        print(f"events: {', '.join(result.events)}; {result.simulated:.0f} simulated seconds in {result.seconds:.2f} s")
        return result.violation is not None
    return _many(range(options.first_seed, options.first_seed + options.seeds), options.jobs, options.first)


def _mutants(names: list[str], limit: int, jobs: int, *, hinted: bool) -> bool:
    survived = 0
    print("| mutant | rule that it breaks | seed | found by |\n|---|---|---|---|")
    for found in find_mutants(limit, jobs=jobs, hinted=hinted, names=names):
        survived += found.seed is None
        seed = "survives" if found.seed is None else found.seed
        print(f"| `{found.mutant}` | {MUTANTS[found.mutant].rule} | {seed} | {found.violation[0]} |", flush=True)
    return bool(survived)


def _many(seeds: range, jobs: int, only_first: bool) -> int:
    summary = Summary()
    for result in run_seeds(summary, seeds, jobs):
        if result.violation is not None:
            name, what = result.violation
            print(f"seed {result.seed}: {name}: {what}  [{', '.join(result.events)}]", flush=True)
            if only_first:
                _show(result, SHOWN_LINES)
                break
    print(summary)
    for name, times in summary.kinds.most_common():
        print(f"  violated by {times}: {name}")
    for name, times in sorted(summary.reached.items()):
        print(f"  reached by {times}: {name}")
    if summary.failures:
        print(f"repeat one: python -m holdfast_operator.sim --seed {summary.failures[0].seed} --trace")
    return bool(summary.failures)


def _show(result: Result, lines: int) -> None:
    for line in result.lines[-lines:]:
        print(line)


if __name__ == "__main__":
    sys.exit(main())
