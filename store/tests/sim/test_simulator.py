"""The simulator finds nothing in what ships, and finds what is broken on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest
from holdfast.kv.store import MemoryStore
from holdfast.raft import core as raft_core
from holdfast.raft.conf import ConfState
from holdfast.raft.invariant import InvariantViolation
from holdfast.raft.log import Log
from holdfast.raft.messages import Message
from holdfast.sessions import Sessions
from holdfast.sim.checker import Violation
from holdfast.sim.cluster import Faults, Simulation

SEEDS = 200
MUTANT_SEEDS = 60


def _run(seed: int) -> tuple[int, int, int]:
    result = Simulation(seed).run(10)
    return result.writes, result.crashes, result.elections


@pytest.mark.sim
@pytest.mark.timeout(300)
def test_invariants_hold_over_many_seeds() -> None:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(_run, range(SEEDS), chunksize=5))
    writes, crashes, elections = (sum(column) for column in zip(*results, strict=True))
    print(f"{SEEDS} seeds: {writes} writes, {crashes} crashes, {elections} elections")
    # A simulation in which nothing happens proves nothing.
    assert writes > 20 * SEEDS
    assert crashes > SEEDS
    assert elections > SEEDS


def test_five_members() -> None:
    for seed in range(10):
        Simulation(seed, members=5).run(8)


@pytest.mark.parametrize("seed", [1311, 1606, 2452])
def test_a_write_whose_answer_went_into_a_snapshot_is_answered(seed: int) -> None:
    """Its origin never applies the entry itself; it has to say that the outcome is unknown rather than wait."""
    faults = Faults(crash=0.3 if seed % 3 else 0.1, partition=0.3, compact=0.5, drop=0.1)
    Simulation(seed, members=5 if seed % 4 == 0 else 3, faults=faults).run(10)


def test_same_seed_same_trace_whatever_the_hash_seed() -> None:
    program = "from holdfast.sim.cluster import Simulation; print(Simulation(7).run(8).trace)"
    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    }
    assert len(traces) == 1


# ---- mutants: one rule of the production code broken each ------------------------------------------------------

Raft = raft_core.Raft


def _vote_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Raft._become_follower

    def forgets(self: Raft, term: int, leader: int) -> None:
        original(self, term, leader)
        self.vote = 0

    monkeypatch.setattr(Raft, "_become_follower", forgets)


def _reply_before_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(self: Raft, message: Message) -> None:
        self._outbox.append(message)

    monkeypatch.setattr(Raft, "_reply_gated", at_once)


def _minority_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConfState, "committed", lambda self, match: max(match.get(m, 0) for m in self.voters))


def _any_log_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Log, "up_to_date", lambda self, index, term: True)


def _duplicates_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    def admit(self: Sessions, origin: int, incarnation: int, seq: int, low: int) -> bool:
        return True

    monkeypatch.setattr(Sessions, "admit", admit)


def _reads_without_a_quorum(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: Raft) -> None:
        self._reads_ready += [(read, self.commit) for read in self._reads]
        self._reads = []

    monkeypatch.setattr(Raft, "_start_reads", start)


def _applied_index_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryStore.apply

    def without_index(self: MemoryStore, batch: list[object]) -> None:
        self.writes = getattr(self, "writes", 0) + 1
        original(self, [w for w in batch if w[1] != b"applied" or self.writes % 3])  # type: ignore[index, misc]

    monkeypatch.setattr(MemoryStore, "apply", without_index)


MUTANTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    _vote_twice,
    _reply_before_durable,
    _minority_commits,
    _any_log_is_up_to_date,
    _duplicates_applied,
    _reads_without_a_quorum,
    _applied_index_lost,
]


@pytest.mark.sim
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__.strip("_"))
def test_a_broken_rule_is_found(mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    for seed in range(MUTANT_SEEDS):
        try:
            Simulation(seed).run(10)
        except (Violation, InvariantViolation, AssertionError) as found:
            print(f"seed {seed}: {found}")
            return
    pytest.fail(f"{MUTANT_SEEDS} seeds did not find it")
