"""Cells broken on purpose, one rule for each mutant, to show that the simulated programs notice."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

from holdfast.cells import janitor, links, part_wire, wire
from holdfast.cells.ballot import Ballot
from holdfast.cells.cell_set import CellSet, Member
from holdfast.cells.links import Answered, Ask, Links
from holdfast.cells.participant import Outcome
from holdfast.cells.record import Effect, Record
from holdfast.cells.resolver import Resolver
from holdfast.cells.set_change import SetChange
from holdfast.client.txn import Key, Ops
from holdfast.proto import cells_pb2, rpc_pb2

from holdfast_lab.sim.mutation import Mutants, Patch, registering

CELLS_MUTANTS: Mutants = {}
_mutant = registering(CELLS_MUTANTS)


# ---- registers ---------------------------------------------------------------------------------------------


@_mutant("a cell keeps what it promised")
def _promise_is_forgotten(patch: Patch) -> None:
    def prepare(identity: bytes, name: str, ballot: Ballot) -> rpc_pb2.TxnRequest:
        key = wire.REGISTERS + name.encode()
        higher = Key(key + b"/promised").value > ballot.packed()
        read = [Ops.get(key + b"/promised"), Ops.get(key + b"/accepted")]
        inner = rpc_pb2.TxnRequest(compare=[higher], success=read[:1], failure=read)
        itself = Key(wire.SELF).value == identity
        success = [rpc_pb2.RequestOp(request_txn=inner)]
        return rpc_pb2.TxnRequest(compare=[itself], success=success, failure=[Ops.get(wire.SELF)])

    patch(wire, "prepare", prepare)


@_mutant("who does not know whether its change was made looks before it tries again")
def _change_is_tried_again_blindly(patch: Patch) -> None:
    patch(Record, "effect", lambda self, id, since: Effect.NOT_TAKEN)


@_mutant("a cluster that was restored does not count")
def _restored_cell_counts(patch: Patch) -> None:
    patch(links, "_restored", lambda cell, there, identity: None)


# ---- the set of cells --------------------------------------------------------------------------------------


@_mutant("only cells that belong to the same version of the set answer")
def _any_version_counts(patch: Patch) -> None:
    ask = Links._ask

    async def any_version(self: Any, cell: str, request: Ask, timeout: float, cells: Any = None) -> Answered:
        return await ask(self, cell, request, timeout)

    patch(Links, "_ask", any_version)


@_mutant("each register is decided again while the set changes")
def _registers_are_left_behind(patch: Patch) -> None:
    async def none(self: Any, joint: CellSet, cells: frozenset[str]) -> set[str]:
        return set()

    patch(SetChange, "_registers", none)


@_mutant("while the set changes, majorities before and after are needed")
def _new_cells_decide_alone(patch: Patch) -> None:
    def is_quorum(self: CellSet, answered: Set[str]) -> bool:
        cells = self.after or self.cells
        return 2 * len(cells & answered) > len(cells)

    patch(CellSet, "is_quorum", is_quorum)


@_mutant("a version of the set is decided by the version before it")
def _each_program_has_its_own_set(patch: Patch) -> None:
    async def decide(self: Any, next: CellSet, at: frozenset[str]) -> None:
        await self._install(next, at | next.all)

    patch(SetChange, "_decide", decide)


@_mutant("the set is not changed at once, but by a version in between")
def _set_changes_at_once(patch: Patch) -> None:
    decide = SetChange._decide

    async def at_once(self: Any, next: CellSet, at: frozenset[str]) -> None:
        await decide(self, replace(next.completed(), version=next.version) if next.after else next, at)

    patch(SetChange, "_decide", at_once)


@_mutant("what a cell has of registers from before it was added is removed")
def _a_cell_brings_what_it_had(patch: Patch) -> None:
    member = CellSet.member

    def since_ever(self: CellSet, cell: str) -> Member | None:
        found = member(self, cell)
        return found and found._replace(since=0)

    patch(CellSet, "member", since_ever)


# ---- transactions ------------------------------------------------------------------------------------------


@_mutant("who ends a transaction of somebody else asks what was decided")
def _outcome_is_not_asked_for(patch: Patch) -> None:
    async def decide(self: Any, txn: str, wanted: Outcome) -> Outcome:
        return wanted

    patch(Resolver, "decide", decide)


@_mutant("what one transaction holds no other can have")
def _intents_are_ignored(patch: Patch) -> None:
    original = part_wire.prepare

    def prepare(identity: bytes, part: cells_pb2.TransactionPart) -> rpc_pb2.TxnRequest:
        request = original(identity, part)
        kept = [c for c in request.compare if not c.key.startswith(part_wire.INTENTS)]
        return rpc_pb2.TxnRequest(compare=kept, success=request.success, failure=request.failure)

    patch(part_wire, "prepare", prepare)


@_mutant("a decision is kept while a part of its transaction is open")
def _decision_goes_early(patch: Patch) -> None:
    def is_over(marks: Mapping[str, bytes], alive: Mapping[str, set[str]]) -> bool:
        return any(part_wire.is_outcome(mark) is not None for mark in marks.values())

    patch(janitor, "_is_over", is_over)
