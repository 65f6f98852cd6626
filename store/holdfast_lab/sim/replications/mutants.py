"""Replications broken on purpose, one rule for each mutant, to show that the simulation notices."""

from __future__ import annotations

from holdfast.cells import wire
from holdfast.cells.cell_set import Member
from holdfast.cells.replicated import Replicated
from holdfast.cells.replication import Replication
from holdfast.cells.replication_origin import Origin
from holdfast.cells.replication_record import Record, Upstream
from holdfast.client.txn import Compare, Key, Op
from holdfast.proto import holdfast_pb2

from holdfast_lab.sim.mutation import Mutants, Patch, registering

REPLICATION_MUTANTS: Mutants = {}
_mutant = registering(REPLICATION_MUTANTS)


@_mutant("each request holds only if the record is as it was last seen")
def _record_is_not_compared(patch: Patch) -> None:
    patch(Replicated, "_unchanged", property(lambda self: Key(wire.SELF).version > 0))


@_mutant("the record moves together with the keys")
def _record_goes_ahead(patch: Patch) -> None:
    write = Replicated._write

    async def apart(self: Replicated, compares: list[Compare], ops: list[Op], record: Record) -> None:
        if ops:
            await write(self, compares, [], record)
        await write(self, compares, ops, record)

    patch(Replicated, "_write", apart)


@_mutant("the record says that a snapshot is filled in, before it is")
def _filling_is_not_noted(patch: Patch) -> None:
    note = Replicated.note

    async def later(self: Replicated, record: Record) -> None:
        if record.revision or self.record is None or self.record.claimed:
            await note(self, record)

    patch(Replicated, "note", later)


@_mutant("changes go on where the record ends")
def _revision_is_skipped(patch: Patch) -> None:
    start = Replication._start

    def one_later(self: Replication, member: Member) -> holdfast_pb2.FollowStart:
        found = start(self, member)
        found.watermark += 1 if found.watermark else 0
        return found

    patch(Replication, "_start", one_later)


@_mutant("who claims asks all cells that lead to the source")
def _others_are_not_asked(patch: Patch) -> None:
    async def nobody(self: Origin) -> None:
        return None

    patch(Origin, "check_all", nobody)


@_mutant("who claims gives way to other claims")
def _claims_are_not_seen(patch: Patch) -> None:
    check = Upstream.check

    def begun(self: Upstream, destination: str, cluster_id: int, *, claims: bool = False) -> None:
        check(self, destination, cluster_id)

    patch(Upstream, "check", begun)
