"""Simulated replicas that follow each other find nothing, and every broken rule of them is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from holdfast_lab.sim.edges.mutants import EDGE_MUTANTS
from holdfast_lab.sim.mutation import broken
from holdfast_lab.sim.runner import Found, find_mutants
from holdfast_lab.sim.subject import EDGES

from ..edge import test_core as core
from ..edge import test_lineage as lineage
from ..edge import test_snapshots as snapshots
from ..edge import test_upstream as upstream
from .clean import clean

SEEDS = 60
MUTANT_SEEDS = 80  # the most that a mutant may need
# What breaks these needs three replicas that come together in one order, or one revision that changes what is shown
# and what arrives; a test always has it. Simulated clusters have no users, which are what is noted.
SELDOM: dict[str, Callable[[], None]] = {
    "path-is-told-once": upstream.test_a_follower_is_told_when_the_way_to_the_cluster_changes,
    "part-is-changed-twice": core.test_a_part_is_shown_when_the_watermark_has_reached_it,
    "streams-continue-across-a-restore": lineage.test_who_follows_a_replica_that_goes_over_begins_anew,
    "notes-stay-behind": lambda: snapshots.test_what_is_noted_besides_the_data_goes_over(snapshots.filled()),
    "part-displaces-rows": core.test_a_part_is_shown_when_the_watermark_has_reached_it,
}


@pytest.mark.sim
@pytest.mark.timeout(600)
def test_many_seeds_find_nothing() -> None:
    summary = clean(SEEDS, EDGES)
    assert len(summary.unreached) < 3, summary.unreached


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    names = [name for name in EDGE_MUTANTS if name not in SELDOM]
    return {f.mutant: f for f in find_mutants(MUTANT_SEEDS, names=names, of=EDGES)}


@pytest.mark.sim
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [name for name in EDGE_MUTANTS if name not in SELDOM])
def test_a_broken_rule_is_found(name: str, found: dict[str, Found]) -> None:
    assert found[name].seeds, f"{MUTANT_SEEDS} seeds did not notice that {EDGE_MUTANTS[name].rule!r} does not hold"


@pytest.mark.parametrize("name", SELDOM)
def test_a_broken_rule_that_few_seeds_notice_is_found_by_its_own_test(name: str) -> None:
    with broken(EDGE_MUTANTS[name]), pytest.raises(AssertionError):
        SELDOM[name]()
