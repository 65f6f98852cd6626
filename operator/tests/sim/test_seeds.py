"""Many seeds of the simulated world find nothing in the operator, and every broken rule is found."""

from __future__ import annotations

import pytest
from holdfast_operator.sim.mutants import MUTANTS, broken
from holdfast_operator.sim.runner import Found, Summary, find_mutant, find_mutants, run_seeds

SEEDS = 500
MUTANT_SEEDS = 40  # the most that a mutant may need; docs/operator-mutants.md says which seed finds each
# What the seeds have to meet at least, or they prove little.
REACHED = {"settled": 400, "scaled": 20, "node not ready": 50, "image typo": 20, "cluster made again": 20, "drain": 20}


@pytest.mark.sim
@pytest.mark.timeout(600)
def test_many_seeds_find_nothing() -> None:
    summary = Summary()
    for result in run_seeds(summary, range(SEEDS)):
        assert result.violation is None, f"--seed {result.seed}: {result.violation}"
    print(summary)
    too_few = {what: summary.reached[what] for what, least in REACHED.items() if summary.reached[what] < least}
    assert not too_few


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    return {f.mutant: f for f in find_mutants(MUTANT_SEEDS)}


@pytest.mark.sim
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_is_found(name: str, found: dict[str, Found]) -> None:
    assert found[name].seed is not None, f"{found[name].tried} seeds did not notice: {MUTANTS[name].rule}"


def test_a_mutant_is_taken_back() -> None:
    name = "applies-every-time"
    assert find_mutant(name, 1).violation[0] == "settled costs no write"
    with broken(name):
        pass
    summary = Summary()
    assert [r.violation for r in run_seeds(summary, [0], jobs=1)] == [None]
