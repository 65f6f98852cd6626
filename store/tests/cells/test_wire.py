"""A cell's transactions do what the functions of `cells.acceptor` say, from any state, for any request."""

from __future__ import annotations

from holdfast.cells import acceptor, wire
from holdfast.cells.acceptor import Acceptor
from holdfast.cells.ballot import Ballot
from holdfast.cells.cell_set import CellSet
from holdfast.cells.identity import Identity
from holdfast.cells.record import RECENT, Effect, Record
from holdfast.client.txn import Ops
from holdfast.kv import requests
from holdfast.kv.space import KeySpace
from holdfast.kv.store import MemoryStore, Pending
from holdfast.proto import rpc_pb2
from hypothesis import given
from hypothesis import strategies as st

ballots = st.builds(Ballot, st.integers(1, 3), st.integers(0, 2))
steps = st.lists(st.tuples(ballots, st.none() | st.sampled_from([b"", b"x", b"y"])), max_size=12)
SET = CellSet.first({"eu": 7, "us": 8, "ap": 9})
MINE = Identity("eu", 7, SET).packed()


class Cell:
    def __init__(self, identity: bytes) -> None:
        self.space = KeySpace(Pending(MemoryStore()))
        self.commit(rpc_pb2.TxnRequest(success=[Ops.put(wire.SELF, identity)]))

    def commit(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        response = requests.txn(self.space, (), rpc_pb2.TxnRequest.FromString(request.SerializeToString()))
        self.space.commit()
        return rpc_pb2.TxnResponse.FromString(response.SerializeToString())


@given(steps)
def test_transactions_are_those_of_the_acceptor(requests_: list[tuple[Ballot, bytes | None]]) -> None:
    cell, model = Cell(MINE), Acceptor()
    for ballot, value in requests_:
        if value is None:
            model, said = acceptor.prepare(model, ballot)
            assert wire.prepared(cell.commit(wire.prepare(MINE, "r", ballot))) == said
        else:
            model, took = acceptor.accept(model, ballot, value)
            assert wire.taken(cell.commit(wire.accept(MINE, "r", ballot, value))) == took
        assert wire.seen(cell.commit(wire.look(MINE, "r"))) == model


def test_a_cell_that_is_another_one_changes_nothing() -> None:
    cell = Cell(MINE)
    other = Identity("eu", 7, SET.joint(frozenset({"eu", "us"}), {})).packed()
    before = cell.space.revision
    for request, read in (
        (wire.prepare(other, "r", Ballot(1, 1)), wire.prepared),
        (wire.accept(other, "r", Ballot(1, 1), b"x"), wire.taken),
        (wire.look(other, "r"), wire.seen),
    ):
        assert read(cell.commit(request)) == wire.AnotherIdentity(MINE)
    assert cell.space.revision == before


@given(st.integers(0, 2 * RECENT))
def test_a_proposer_learns_what_became_of_its_change(others: int) -> None:
    record = Record().changed(b"0", b"first")
    tried = record.changes
    taken = record.changed(b"mine", b"mine")
    for number in range(others):
        record, taken = (r.changed(b"", b"%d" % number) for r in (record, taken))
    assert taken.effect(b"mine", tried) is (Effect.TAKEN if others < RECENT else Effect.UNKNOWN)
    assert record.effect(b"mine", tried) is (Effect.NOT_TAKEN if others < RECENT else Effect.UNKNOWN)
    assert Record.unpacked(taken.packed()) == taken
