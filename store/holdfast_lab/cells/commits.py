"""All states of two transactions between three cells, whose coordinators may stop at any point, while somebody else
resolves what they leave.

The first one writes y if x is not there, the second one x if y is not there, and both write z: one after the other,
only one of them can have its way. The outcome is an atomic register here; `registers` explores that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from holdfast.cells.participant import Answer, Outcome, Part, Participant, forget, prepare, resolve

CELLS = ("a", "b", "c")
PARTS = {
    ("t", "a"): Part("t", "s", (("x", None),), ()),
    ("t", "b"): Part("t", "s", (), (("y", "t"),)),
    ("t", "c"): Part("t", "s", (), (("z", "t"),)),
    ("u", "a"): Part("u", "r", (), (("x", "u"),)),
    ("u", "b"): Part("u", "r", (("y", None),), ()),
    ("u", "c"): Part("u", "r", (), (("z", "u"),)),
}
SESSIONS = {"t": "s", "u": "r"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A `Participant` that can be a part of a state."""

    data: frozenset[tuple[str, str]] = frozenset()
    marks: frozenset[tuple[str, Part | Outcome]] = frozenset()
    sessions: frozenset[str] = frozenset(SESSIONS.values())

    def thawed(self) -> Participant:
        return Participant(dict(self.data), dict(self.marks), self.sessions)

    @staticmethod
    def frozen(cell: Participant) -> Cell:
        return Cell(frozenset(cell.data.items()), frozenset(cell.marks.items()), cell.sessions)


@dataclass(frozen=True, slots=True)
class Coordinator:
    """`told`: what its user was told; None: nothing yet."""

    prepared: frozenset[str] = frozenset()
    refused: bool = False
    decision: Outcome | None = None
    told: Outcome | None = None


@dataclass(frozen=True, slots=True)
class World:
    cells: tuple[Cell, ...]
    coordinators: tuple[tuple[str, Coordinator], ...]
    prepares: frozenset[tuple[str, str]]  # on their way: transaction, cell
    decisions: frozenset[tuple[str, Outcome]] = frozenset()
    resolves: frozenset[tuple[str, Outcome, str]] = frozenset()
    applied: frozenset[tuple[str, str]] = frozenset()
    duplicates: int = 0  # of a part, that may still happen
    forgetting: bool = False  # whether decisions and marks are forgotten
    twice: str = ""  # a transaction that was applied twice in a cell


def beginning(txns: str = "tu", *, duplicates: int = 0, forgetting: bool = False) -> World:
    return World(
        (Cell(),) * len(CELLS),
        tuple((txn, Coordinator()) for txn in txns),
        frozenset(part for part in PARTS if part[0] in txns),
        duplicates=duplicates,
        forgetting=forgetting,
    )


class Commits:
    """`prepare` and the rest may be replaced by mutants."""

    prepare = staticmethod(prepare)
    resolve = staticmethod(resolve)
    forget = staticmethod(forget)

    def decide(self, before: Outcome | None, wanted: Outcome) -> Outcome:
        return before or wanted

    def may_commit(self, coordinator: Coordinator) -> bool:
        return coordinator.prepared == frozenset(CELLS)

    def tells(self, coordinator: Coordinator, answer: Answer) -> Outcome | None:
        """What a cell's answer to the outcome lets the coordinator tell its user."""
        return Outcome[answer.name] if answer in (Answer.COMMITTED, Answer.ABORTED) else None

    def may_forget(self, world: World, txn: str) -> bool:
        """Whether the decision may be forgotten."""
        return all(
            isinstance(mark, Outcome) or (mark is None and SESSIONS[txn] not in cell.sessions)
            for cell, mark in ((cell, dict(cell.marks).get(txn)) for cell in world.cells)
        )

    # ---- steps ---------------------------------------------------------------------------------------------

    def nexts(self, world: World) -> Iterator[World]:
        for txn, cell in world.prepares:
            rest = world.prepares - {(txn, cell)}
            yield self._prepared(replace(world, prepares=rest), txn, cell)
            if world.duplicates:
                yield self._prepared(replace(world, duplicates=world.duplicates - 1), txn, cell)
        for txn, coordinator in world.coordinators:
            if coordinator.decision is None and coordinator.told is None:
                if coordinator.refused:
                    yield self._decided(world, txn, coordinator, Outcome.ABORTED)
                elif self.may_commit(coordinator):
                    yield self._decided(world, txn, coordinator, Outcome.COMMITTED)
            yield from self._janitor(world, txn)
        for txn, outcome, cell in world.resolves:
            yield self._resolved(world, txn, outcome, cell)

    def _prepared(self, world: World, txn: str, cell: str) -> World:
        at = CELLS.index(cell)
        after, answer = self.prepare(world.cells[at].thawed(), PARTS[txn, cell])
        known = dict(world.coordinators)[txn]
        if answer is Answer.PREPARED:
            known = replace(known, prepared=known.prepared | {cell})
        else:
            known = replace(known, refused=True)
        return self._with(world, at, after, txn, known)

    def _decided(self, world: World, txn: str, coordinator: Coordinator, wanted: Outcome) -> World:
        decisions = dict(world.decisions)
        outcome = decisions[txn] = self.decide(decisions.get(txn), wanted)
        asked = {(txn, outcome, cell) for cell in CELLS}
        coordinators = {**dict(world.coordinators), txn: replace(coordinator, decision=outcome)}
        return replace(
            world,
            decisions=frozenset(decisions.items()),
            resolves=world.resolves | asked,
            coordinators=tuple(coordinators.items()),
        )

    def _janitor(self, world: World, txn: str) -> Iterator[World]:
        """Somebody meets an intent, and takes it for old; the session of the coordinator ends in a cell; what is over
        is forgotten."""
        decisions = dict(world.decisions)
        if any(isinstance(dict(cell.marks).get(txn), Part) for cell in world.cells):
            outcome = self.decide(decisions.get(txn), Outcome.ABORTED)
            asked = {(txn, outcome, cell) for cell in CELLS}
            yield replace(
                world,
                decisions=frozenset({**decisions, txn: outcome}.items()),
                resolves=world.resolves | asked,
            )
        if not world.forgetting:
            return
        if txn in decisions and self.may_forget(world, txn):
            yield replace(world, decisions=frozenset((t, o) for t, o in decisions.items() if t != txn))
        for at, cell in enumerate(world.cells):
            if SESSIONS[txn] in cell.sessions:
                ended = replace(cell, sessions=cell.sessions - {SESSIONS[txn]})
                yield replace(world, cells=_put(world.cells, at, ended))
            elif txn not in decisions:
                less = Cell.frozen(self.forget(cell.thawed(), txn, SESSIONS[txn]))
                yield replace(world, cells=_put(world.cells, at, less))

    def _resolved(self, world: World, txn: str, outcome: Outcome, cell: str) -> World:
        at = CELLS.index(cell)
        before = world.cells[at].thawed()
        after, answer = self.resolve(before, txn, outcome)
        applies = after.data != before.data or (
            answer is Answer.COMMITTED and after.marks.get(txn) != before.marks.get(txn)
        )
        known = dict(world.coordinators)[txn]
        if known.told is None and known.decision is outcome:
            known = replace(known, told=self.tells(known, answer))
        world = self._with(world, at, after, txn, known)
        if not applies:
            return world
        twice = txn if (txn, cell) in world.applied else world.twice
        return replace(world, applied=world.applied | {(txn, cell)}, twice=twice)

    def _with(self, world: World, at: int, cell: Participant, txn: str, coordinator: Coordinator) -> World:
        coordinators = {**dict(world.coordinators), txn: coordinator}
        return replace(world, cells=_put(world.cells, at, Cell.frozen(cell)), coordinators=tuple(coordinators.items()))

    # ---- what must hold ------------------------------------------------------------------------------------

    def wrong(self, world: World) -> str:
        if world.twice:
            return f"the transaction {world.twice} was applied twice in a cell"
        for txn, coordinator in world.coordinators:
            applied = {cell for t, cell in world.applied if t == txn}
            aborted = {
                name
                for name, cell in zip(CELLS, world.cells, strict=True)
                if dict(cell.marks).get(txn) is Outcome.ABORTED and name not in applied
            }
            if applied and aborted:
                return f"the transaction {txn} is applied in {sorted(applied)} and aborted in {sorted(aborted)}"
            if coordinator.told is Outcome.COMMITTED and aborted:
                return f"it was told that {txn} is committed, and it is aborted in {sorted(aborted)}"
            if coordinator.told is Outcome.ABORTED and applied:
                return f"it was told that {txn} is aborted, and it is applied in {sorted(applied)}"
        if {txn for txn, _ in world.applied} == {"t", "u"}:
            return "both are applied, and each of them found that the other one was not"
        return ""


def _put(cells: tuple[Cell, ...], at: int, cell: Cell) -> tuple[Cell, ...]:
    return (*cells[:at], cell, *cells[at + 1 :])
