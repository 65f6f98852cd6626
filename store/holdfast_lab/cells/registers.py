"""All states of one register of three cells and two proposers, each of which wants one change.

Requests arrive in every order, at any time or never, so a proposer may stop at any point. In each run one request
arrives twice, the second time as late as it likes, and one answer gets lost. An answer that is not lost comes at once:
what a proposer does with it is to send requests, and these may be late.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from holdfast.cells.acceptor import Acceptor, Promise, Refused, Taken, accept, prepare
from holdfast.cells.ballot import NONE, Ballot
from holdfast.cells.cell_set import CellSet
from holdfast.cells.round import Phase, Round

T = TypeVar("T")
CELLS = ("a", "b", "c")
SET = CellSet(1, frozenset(CELLS))
Request = tuple[int, Ballot, str, bytes | None]  # proposer, ballot, cell, value; None: prepare


@dataclass(frozen=True, slots=True)
class World:
    acceptors: tuple[Acceptor, ...]
    rounds: tuple[Round | None, ...]  # of each proposer
    attempts: tuple[int, ...]  # that each may still begin
    requests: frozenset[Request] = frozenset()
    duplicates: int = 0  # that may still happen
    losses: int = 0
    decided: tuple[bytes, ...] = ()  # values, in the order in which their proposers learned that they are decided
    taken: frozenset[tuple[Ballot, bytes, str]] = frozenset()  # which cell ever accepted what

    @property
    def chosen(self) -> set[tuple[Ballot, bytes]]:
        """What a quorum of cells has accepted, each at some time."""
        cells: dict[tuple[Ballot, bytes], set[str]] = {}
        for ballot, value, cell in self.taken:
            cells.setdefault((ballot, value), set()).add(cell)
        return {what for what, by in cells.items() if SET.is_quorum(by)}


def beginning(attempts: tuple[int, ...] = (1, 1), duplicates: int = 1, losses: int = 1) -> World:
    """`attempts`: how many rounds each proposer may begin. It begins another one only if it has lost one."""
    acceptors = (Acceptor(),) * len(CELLS)
    return World(acceptors, (None,) * len(attempts), attempts, duplicates=duplicates, losses=losses)


def change(proposer: int) -> bytes:
    return bytes([ord("x") + proposer])


class Registers:
    """`prepare`, `accept` and the rest may be replaced by mutants."""

    prepare = staticmethod(prepare)
    accept = staticmethod(accept)

    def next_value(self, proposer: int, before: bytes | None) -> bytes:
        """A change that shows all before it: values are the histories that led to them."""
        return (before or b"") + change(proposer)

    def ballot(self, known: Ballot, proposer: int) -> Ballot:
        return known.after(proposer + 1)

    def promise(self, proposer: int, round: Round, cell: str, answer: Promise | Refused) -> Round:
        return round.promise(cell, answer, lambda before: self.next_value(proposer, before))

    # ---- steps ---------------------------------------------------------------------------------------------

    def nexts(self, world: World) -> Iterator[World]:
        for proposer, round in enumerate(world.rounds):
            if (round is None or round.phase is Phase.LOST) and world.attempts[proposer]:
                yield self._begin(world, proposer, round)
        for request in world.requests:
            arrived, answer = self._arrive(world, request)
            once = replace(arrived, requests=world.requests - {request})
            yield self._answered(once, request, answer)
            if world.duplicates:
                twice = replace(arrived, duplicates=world.duplicates - 1)
                yield self._answered(twice, request, answer)
            if world.losses:
                yield replace(once, losses=world.losses - 1)

    def _begin(self, world: World, proposer: int, lost: Round | None) -> World:
        ballot = self.ballot(lost.higher if lost is not None else NONE, proposer)
        return replace(
            world,
            rounds=_with(world.rounds, proposer, Round(ballot, SET)),
            attempts=_with(world.attempts, proposer, world.attempts[proposer] - 1),
            requests=world.requests | {(proposer, ballot, cell, None) for cell in CELLS},
        )

    def _arrive(self, world: World, request: Request) -> tuple[World, Promise | Taken | Refused]:
        _, ballot, cell, value = request
        at = CELLS.index(cell)
        answer: Promise | Taken | Refused
        if value is None:
            acceptor, answer = self.prepare(world.acceptors[at], ballot)
        else:
            acceptor, answer = self.accept(world.acceptors[at], ballot, value)
        taken = {(ballot, value, cell)} if value is not None and isinstance(answer, Taken) else set()
        acceptors = _with(world.acceptors, at, acceptor)
        return replace(world, acceptors=acceptors, taken=world.taken | taken), answer

    def _answered(self, world: World, request: Request, answer: Promise | Taken | Refused) -> World:
        proposer, ballot, cell, value = request
        round = world.rounds[proposer]
        if round is None or round.ballot != ballot:
            return world
        if value is None:
            assert not isinstance(answer, Taken)
            after = self.promise(proposer, round, cell, answer)
        else:
            assert not isinstance(answer, Promise)
            after = round.taken(cell, answer)
        world = replace(world, rounds=_with(world.rounds, proposer, after))
        if after.phase is Phase.ACCEPT and round.phase is Phase.PREPARE:
            asked = {(proposer, ballot, to, after.value) for to in CELLS}
            return replace(world, requests=world.requests | asked)
        if after.phase is Phase.DECIDED and after.value is not None:
            return replace(world, decided=(*world.decided, after.value))
        return world

    # ---- what must hold ------------------------------------------------------------------------------------

    def wrong(self, world: World) -> str:
        """Linearizability of values that show their history: of two that were chosen, one leads to the other, and each
        change is in there once."""
        chosen = world.chosen
        values = sorted({value for _, value in chosen} | set(world.decided), key=len)
        for earlier, later in pairwise(values):
            if not later.startswith(earlier):
                return f"{earlier!r} was decided, and {later!r} does not come after it"
        for value in world.decided:
            if value not in {v for _, v in chosen}:
                return f"{value!r} was told to be decided, and no quorum has accepted it"
        for ballot, value in chosen:
            if any(other == ballot and v != value for other, v in chosen):
                return f"two values were chosen by the ballot {ballot}"
        return ""


def _with(items: tuple[T, ...], at: int, item: T) -> tuple[T, ...]:
    return (*items[:at], item, *items[at + 1 :])
