"""Which worlds are explored, and what is found there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from holdfast_lab.cells import commits, handovers, leases, registers
from holdfast_lab.cells.explore import State, explore

# Rounds of each proposer, requests that arrive twice, answers that get lost.
REGISTERS = (((1, 1), 1, 0), ((2, 1), 0, 0), ((1, 1), 1, 1))
# Both proposers begin twice: more states than memory holds, of which the first ones lead to what only that can show.
DEEP = ((2, 2), 0, 0)
# Transactions, parts that arrive twice, and whether what is over is forgotten.
COMMITS = (("t", 1, False), ("t", 1, True), ("tu", 0, False))
# Attempts of each process to take the lease, renewals of each, answers that get lost.
LEASES = (((1, 1), 1, 1), ((2, 1), 0, 1), ((2, 1), 1, 0))


class Explored(NamedTuple):
    world: str
    states: int
    seconds: float
    wrong: str
    way: tuple[object, ...]


def explore_registers(rules: registers.Registers, *, deep: bool = False) -> Iterator[Explored]:
    """`deep`: also the world of which only a part can be visited; it raises TooManyStates if it finds nothing there."""
    for rounds, duplicates, losses in (*REGISTERS, *([DEEP] if deep else [])):
        counts = " + ".join(map(str, rounds))
        first = registers.beginning(rounds, duplicates, losses)
        world = f"a register: {counts} rounds, {duplicates} requests twice, {losses} answers lost"
        yield _explored(world, first, rules.nexts, rules.wrong)


def explore_commits(rules: commits.Commits) -> Iterator[Explored]:
    for txns, duplicates, forgetting in COMMITS:
        first = commits.beginning(txns, duplicates=duplicates, forgetting=forgetting)
        ending = ", what is over is forgotten" if forgetting else ""
        world = f"{len(txns)} transactions: {duplicates} parts twice{ending}"
        yield _explored(world, first, rules.nexts, rules.wrong)


def explore_handovers(rules: handovers.Handovers) -> Iterator[Explored]:
    yield _explored("a queue: 3 messages", handovers.World(), rules.nexts, rules.wrong)


def explore_leases(rules: leases.Leases) -> Iterator[Explored]:
    for takes, renewals, losses in LEASES:
        counts = " + ".join(map(str, takes))
        world = f"a lease: {counts} attempts to take it, {renewals} renewals, {losses} answers lost"
        yield _explored(world, leases.beginning(takes, renewals, losses), rules.nexts, rules.wrong)


def _explored(
    world: str, first: State, nexts: Callable[[State], Iterable[State]], wrong: Callable[[State], str]
) -> Explored:
    began = time.monotonic()
    found = explore(first, nexts, wrong)
    return Explored(world, found.states, time.monotonic() - began, found.wrong, found.way)


def first_violation(explored: Iterator[Explored]) -> Explored | None:
    return next((found for found in explored if found.wrong), None)
