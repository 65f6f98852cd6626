"""Small worlds of the protocols between cells, whole, and that each broken rule is found.

`python -m holdfast_lab cells` explores the larger ones.
"""

from __future__ import annotations

import pytest
from holdfast_lab.cells import commits, handovers, registers
from holdfast_lab.cells.check import explore_commits, explore_handovers, explore_registers, first_violation
from holdfast_lab.cells.explore import explore
from holdfast_lab.cells.mutants import COMMITS, HANDOVERS, REGISTERS

LARGE = {"OldestCounts"}  # its violation needs two rounds of each proposer: left to the command


def test_registers_are_linearizable() -> None:
    rules = registers.Registers()
    found = explore(registers.beginning((1, 2), 0, 0), rules.nexts, rules.wrong)
    assert not found.wrong, found.way
    assert found.states > 10_000


@pytest.mark.parametrize("duplicates", [0, 1])
def test_a_transaction_is_whole_and_never_applied_twice(duplicates: int) -> None:
    rules = commits.Commits()
    found = explore(commits.beginning("t", duplicates=duplicates, forgetting=True), rules.nexts, rules.wrong)
    assert not found.wrong, found.way
    assert found.states > 4_000


@pytest.mark.parametrize("mutant", [m for m in REGISTERS if m.__name__ not in LARGE], ids=lambda m: str(m.__name__))
def test_broken_registers_are_found(mutant: type[registers.Registers]) -> None:
    assert first_violation(explore_registers(mutant())), mutant.__doc__


@pytest.mark.parametrize("mutant", COMMITS, ids=lambda mutant: str(mutant.__name__))
def test_broken_transactions_are_found(mutant: type[commits.Commits]) -> None:
    assert first_violation(explore_commits(mutant())), mutant.__doc__


def test_messages_are_carried_out_once_and_in_order() -> None:
    rules = handovers.Handovers()
    found = explore(handovers.World(), rules.nexts, rules.wrong)
    assert not found.wrong, found.way
    assert found.states > 20


@pytest.mark.parametrize("mutant", HANDOVERS, ids=lambda mutant: str(mutant.__name__))
def test_broken_queues_are_found(mutant: type[handovers.Handovers]) -> None:
    assert first_violation(explore_handovers(mutant())), mutant.__doc__
