"""Simulated cells find nothing, a seed determines its run, and broken rules of cells are found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from holdfast_lab.sim.cells.mutants import CELLS_MUTANTS
from holdfast_lab.sim.runner import Found, find_mutants
from holdfast_lab.sim.subject import CELLS

from .clean import clean

SEEDS = 40
MUTANT_SEEDS = 60  # the most that a mutant may need
SELDOM = (  # the simulation needs some hundreds of seeds for them
    "any-version-counts",
    "a-cell-brings-what-it-had",  # tests/cells/test_set_changes.py finds it
)


@pytest.mark.sim
@pytest.mark.timeout(600)
def test_many_seeds_find_nothing() -> None:
    summary = clean(SEEDS, CELLS)
    assert not summary.unreached, summary.unreached


@pytest.mark.sim
@pytest.mark.parametrize("seed", ["7", "24"])  # in the second one cells are clusters of members
def test_a_seed_determines_its_run(seed: str) -> None:
    """Also where the order of sets is another one."""
    said = set()
    for hashes in "123":
        environment = {**os.environ, "PYTHONHASHSEED": hashes}
        words = [sys.executable, "-m", "holdfast_lab", "sim", "--cells", "--seed", seed]
        said.add(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(said) == 1, said


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    names = [name for name in CELLS_MUTANTS if name not in SELDOM]
    return {f.mutant: f for f in find_mutants(MUTANT_SEEDS, names=names, of=CELLS)}


@pytest.mark.sim
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in CELLS_MUTANTS if name not in SELDOM])
def test_a_broken_rule_is_found(name: str, found: dict[str, Found]) -> None:
    assert found[name].seeds, f"{MUTANT_SEEDS} seeds did not notice that {CELLS_MUTANTS[name].rule!r} does not hold"
