"""What all tests of a simulated subject ask for first: that many seeds find nothing."""

from __future__ import annotations

from holdfast_lab.sim.runner import Failure, Summary, run_seeds
from holdfast_lab.sim.subject import MEMBERS


def clean(seeds: int, of: str = MEMBERS) -> Summary:
    """Run so many seeds. Returns the sum of all."""
    summary = Summary(of)
    for so_far, outcome in run_seeds(range(seeds), of=of):
        assert not isinstance(outcome, Failure), f"seed {outcome.seed}: {outcome.what}"
        summary = so_far
    print(summary)
    return summary
