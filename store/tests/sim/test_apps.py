"""Simulated applications find nothing in the recipes, and every broken rule of them is found."""

from __future__ import annotations

import pytest
from holdfast_lab.sim.apps.mutants import RECIPE_MUTANTS
from holdfast_lab.sim.mutation import broken
from holdfast_lab.sim.runner import Failure, Found, attempt, find_mutants
from holdfast_lab.sim.subject import RECIPES

from .clean import clean

SEEDS = 100
MUTANT_SEEDS = 120  # the most that a mutant may need
# What breaks these needs another holder within a few hundredths of a second, participants that are lost in the moment
# a barrier opens, or an answer that is lost while another one is late, which few seeds have; tests/recipes has a test
# for each that always does.
SELDOM = (
    "back-on-etcd",
    "barrier-opens-for-the-lost",
    "deadline-from-the-answer",
    "given-up-without-barrier",
    "no-drift",
)


@pytest.mark.sim
@pytest.mark.timeout(600)
def test_many_seeds_find_nothing() -> None:
    summary = clean(SEEDS, RECIPES)
    assert len(summary.unreached) < 3, summary.unreached


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    names = [name for name in RECIPE_MUTANTS if name not in SELDOM]
    return {f.mutant: f for f in find_mutants(MUTANT_SEEDS, names=names, of=RECIPES)}


@pytest.mark.sim
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [name for name in RECIPE_MUTANTS if name not in SELDOM])
def test_a_broken_rule_is_found(name: str, found: dict[str, Found]) -> None:
    assert found[name].seeds, f"{MUTANT_SEEDS} seeds did not notice that {RECIPE_MUTANTS[name].rule!r} does not hold"


def test_a_mutant_is_taken_back() -> None:
    with broken(RECIPE_MUTANTS["order-of-names"]):
        assert isinstance(attempt(1, of=RECIPES), Failure)
    assert not isinstance(attempt(1, of=RECIPES), Failure)
