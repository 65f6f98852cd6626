"""Simulated replications find nothing, a seed determines its run, and broken rules of replications are found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from holdfast_lab.sim.replications.mutants import REPLICATION_MUTANTS
from holdfast_lab.sim.runner import Found, find_mutants
from holdfast_lab.sim.subject import REPLICATIONS

from .clean import clean

SEEDS = 40
MUTANT_SEEDS = 40  # the most that a mutant may need


@pytest.mark.sim
@pytest.mark.timeout(600)
def test_many_seeds_find_nothing() -> None:
    summary = clean(SEEDS, REPLICATIONS)
    assert not summary.unreached, summary.unreached


@pytest.mark.sim
def test_a_seed_determines_its_run() -> None:
    """Also where the order of sets is another one."""
    said = set()
    for hashes in "123":
        environment = {**os.environ, "PYTHONHASHSEED": hashes}
        words = [sys.executable, "-m", "holdfast_lab", "sim", "--replications", "--seed", "7"]
        said.add(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(said) == 1, said


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    return {f.mutant: f for f in find_mutants(MUTANT_SEEDS, of=REPLICATIONS)}


@pytest.mark.sim
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(REPLICATION_MUTANTS))
def test_a_broken_rule_is_found(name: str, found: dict[str, Found]) -> None:
    assert found[name].seeds, (
        f"{MUTANT_SEEDS} seeds did not notice that {REPLICATION_MUTANTS[name].rule!r} does not hold"
    )
