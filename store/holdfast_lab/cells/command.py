"""The command `cells`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Annotated

import typer
from holdfast.cli.errors import fail

from holdfast_lab.cells.check import (
    Explored,
    explore_commits,
    explore_handovers,
    explore_leases,
    explore_registers,
    first_violation,
)
from holdfast_lab.cells.commits import Commits
from holdfast_lab.cells.handovers import Handovers
from holdfast_lab.cells.lease_mutants import LEASES
from holdfast_lab.cells.leases import Leases
from holdfast_lab.cells.mutants import COMMITS, HANDOVERS, REGISTERS
from holdfast_lab.cells.registers import Registers


def cells(
    mutants: Annotated[bool, typer.Option(help="Check that broken rules are found, instead.")] = False,
) -> None:
    """Explore all states of the protocols between cells: registers, transactions that they decide, queues, and
    leases.

    There are three cells. Requests arrive in every order, late, twice or never; proposers and coordinators stop at any
    point. Fails if a state violates what is promised, or if a mutant is not found.
    """
    if mutants:
        _mutants()
        return
    for found in chain(
        explore_registers(Registers()),
        explore_commits(Commits()),
        explore_handovers(Handovers()),
        explore_leases(Leases()),
    ):
        print(f"{found.world}: {found.states:,} states in {found.seconds:.0f} s", flush=True)
        if found.wrong:
            fail(_told(found))
    print("no state violates what is promised")


def _mutants() -> None:
    missed = []
    explored: list[tuple[type[Registers | Commits | Handovers | Leases], Iterator[Explored]]] = [
        *((mutant, explore_registers(mutant(), deep=True)) for mutant in REGISTERS),
        *((mutant, explore_commits(mutant())) for mutant in COMMITS),
        *((mutant, explore_handovers(mutant())) for mutant in HANDOVERS),
        *((mutant, explore_leases(mutant())) for mutant in LEASES),
    ]
    for mutant, worlds in explored:
        found = first_violation(worlds)
        told = f"{found.wrong} (after {len(found.way) - 1} steps; {found.states:,} states)" if found else "NOT FOUND"
        print(f"{mutant.__name__}, without '{mutant.__doc__}': {told}", flush=True)
        if found is None:
            missed.append(mutant.__name__)
    if missed:
        fail(f"not found: {', '.join(missed)}")


def _told(found: Explored) -> str:
    return "\n".join([found.wrong, *(f"  {state}" for state in found.way)])
