"""The simulator finds nothing in production code, repeats a seed exactly, and finds every broken rule."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from holdfast_lab.sim.mix import CLASSES
from holdfast_lab.sim.mutation import broken
from holdfast_lab.sim.runner import Failure, Found, attempt, find_mutants
from holdfast_lab.sim.shrink import shrink, trace
from holdfast_lab.sim.simulation import LEAST_FAULTS, LEAST_OPERATIONS, simulate
from holdfast_lab.sim.subject import MEMBERS, SUBJECTS

from ..member import test_cache_leases as caches
from ..raft import test_scenarios_replication as replication
from .clean import clean

SEEDS = 200
MUTANT_SEEDS = 400  # the most that a mutant may need; docs/consensus.md says how many each does
MUTANTS = SUBJECTS[MEMBERS].mutants
# What breaks these rules needs a rare coincidence, such as an answer that is late by a whole round. Few seeds have it;
# a scenario always does.
SELDOM: dict[str, Callable[[], None]] = {
    "any-answer-confirms-a-read": replication.test_scenario_10_an_answer_to_an_older_round_confirms_no_newer_read,
    "lease-without-a-quorum": caches.test_no_lease_without_a_majority,
    "prefix-taken-back-at-once": caches.test_a_prefix_is_taken_back_once_its_copies_are_invalid,
    "elected-leader-appends-at-once": caches.test_a_leader_that_is_elected_in_the_turn_of_a_write_waits_too,
}


@pytest.mark.sim
@pytest.mark.timeout(600)
def test_many_seeds_find_nothing() -> None:
    summary = clean(SEEDS)
    # A simulation in which nothing happens proves nothing.
    assert summary.operations >= LEAST_OPERATIONS * SEEDS
    assert summary.faults >= LEAST_FAULTS * SEEDS
    assert summary.simulated_ns >= 60_000_000_000 * SEEDS
    assert len(summary.unreached) < 5, summary.unreached


@pytest.mark.parametrize("seed", [3, 92, 117])
def test_the_same_seed_is_the_same_run_whatever_the_hash_seed(seed: int) -> None:
    program = f"from holdfast_lab.sim.simulation import simulate; print(simulate({seed}).trace)"
    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("random", "0", "4242")
    }
    assert len(traces) == 1


def test_another_seed_is_another_run() -> None:
    assert simulate(1, seconds=5).trace != simulate(2, seconds=5).trace


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    return {f.mutant: f for f in find_mutants(MUTANT_SEEDS, names=[name for name in MUTANTS if name not in SELDOM])}


@pytest.mark.sim
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in SELDOM])
def test_a_broken_rule_is_found(name: str, found: dict[str, Found]) -> None:
    assert found[name].seeds, f"{MUTANT_SEEDS} seeds did not notice that {MUTANTS[name].rule!r} does not hold"


@pytest.mark.parametrize("name", SELDOM)
def test_a_broken_rule_that_few_seeds_notice_is_found_by_its_scenario(name: str) -> None:
    scenario = SELDOM[name]
    scenario()
    with broken(MUTANTS[name]), pytest.raises(AssertionError):
        scenario()


def test_a_mutant_is_taken_back() -> None:
    with broken(MUTANTS["ack-before-sync"]):
        assert isinstance(attempt(0), Failure)
    assert not isinstance(attempt(0), Failure)


def test_a_failing_run_is_made_small() -> None:
    with broken(MUTANTS["minority-commits"]):
        failure = attempt(0)
        assert isinstance(failure, Failure)
        small = shrink(failure)
        error, run = trace(0, small.seconds, small.without)
    assert small.name == failure.name
    assert len(small.without) > len(CLASSES) // 2
    assert error is not None
    assert small.trace
    assert small.seconds < 60
    assert small.command.startswith("python -m holdfast_lab sim --seed 0 --seconds ")
    assert run.world.now < 60_000_000_000
