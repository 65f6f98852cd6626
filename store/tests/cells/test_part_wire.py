"""A cell's transactions do what the functions of `cells.participant` say, from any state, for any request."""

from __future__ import annotations

import pytest
from holdfast.cells import part_wire, participant
from holdfast.cells.participant import Answer, Outcome, Part, Participant
from holdfast.client.txn import Key, Ops
from holdfast.proto import cells_pb2, rpc_pb2
from hypothesis import given
from hypothesis import strategies as st

from .test_wire import MINE, Cell

NAMES = ("x", "y")
parts = st.builds(
    Part,
    st.sampled_from(["t", "u"]),
    st.sampled_from(["s", "r"]),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([None, "1"])), max_size=2, unique_by=lambda p: p[0]).map(
        tuple
    ),
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from([None, "1", "2"])), max_size=2, unique_by=lambda p: p[0]
    ).map(tuple),
)
steps = st.lists(
    st.tuples(st.just("prepare"), parts)
    | st.tuples(st.just("resolve"), st.tuples(st.sampled_from(["t", "u"]), st.sampled_from(list(Outcome))))
    | st.tuples(st.just("end"), st.sampled_from(["s", "r"])),
    max_size=10,
)

SESSIONS = {"eu": "s"}


def message(part: Part) -> cells_pb2.TransactionPart:
    found = cells_pb2.TransactionPart(txn=part.txn, session=part.session, cells=["eu"], sessions=[part.session])
    for key, value in part.compares:
        found.compares.append(Key(key).version == 0 if value is None else Key(key).value == value)
    found.writes.extend(Ops.delete(key) if value is None else Ops.put(key, value) for key, value in part.writes)
    return found


def read(cell: Cell, key: bytes) -> bytes:
    kvs = cell.commit(rpc_pb2.TxnRequest(success=[Ops.get(key)])).responses[0].response_range.kvs
    return kvs[0].value if kvs else b""


def resolve(cell: Cell, txn: str, outcome: Outcome) -> Answer:
    mark = read(cell, part_wire.mark_key(txn))
    if part_wire.is_outcome(mark) is None:
        cell.commit(part_wire.resolve(mark, txn, outcome, SESSIONS))
    after = part_wire.is_outcome(read(cell, part_wire.mark_key(txn)))
    return Answer.UNKNOWN if after is None else Answer[after.name]


@given(steps)
def test_transactions_are_those_of_the_participant(requests: list[tuple[str, object]]) -> None:
    cell, model = Cell(MINE), Participant({}, {}, frozenset({"s", "r"}))
    cell.commit(rpc_pb2.TxnRequest(success=[Ops.put(part_wire.session_key(session), b"") for session in "sr"]))
    for kind, what in requests:
        if isinstance(what, Part):
            model, said = participant.prepare(model, what)
            answer = part_wire.prepared(MINE, message(what), cell.commit(part_wire.prepare(MINE, message(what))))
            assert isinstance(answer, part_wire.Prepared)
            assert answer.answer is said
        elif kind == "resolve":
            assert isinstance(what, tuple)
            model, said = participant.resolve(model, *what)
            assert resolve(cell, *what) is said
        else:
            assert isinstance(what, str)
            model = Participant(model.data, model.marks, model.sessions - {what})
            cell.commit(rpc_pb2.TxnRequest(success=[Ops.delete(part_wire.session_key(what))]))
        for name in NAMES:
            assert read(cell, name.encode()).decode() == model.data.get(name, "")
            assert read(cell, part_wire.INTENTS + name.encode()).decode() == (model.holder(name) or "")


def test_an_outcome_that_comes_second_changes_nothing() -> None:
    """Two have read the part, and both tell the cell."""
    cell = Cell(MINE)
    part = message(Part("t", "s", (), (("x", "1"),)))
    cell.commit(rpc_pb2.TxnRequest(success=[Ops.put(part_wire.session_key("s"), b"")]))
    cell.commit(part_wire.prepare(MINE, part))
    mark = read(cell, part_wire.mark_key("t"))
    assert cell.commit(part_wire.resolve(mark, "t", Outcome.COMMITTED, SESSIONS)).succeeded
    cell.commit(rpc_pb2.TxnRequest(success=[Ops.put("x", "later")]))
    for outcome in Outcome:
        assert not cell.commit(part_wire.resolve(mark, "t", outcome, SESSIONS)).succeeded
    assert read(cell, b"x") == b"later"


@pytest.mark.parametrize(
    ("op", "why"),
    [
        (Ops.delete("x", prefix=True), "single keys"),
        (Ops.get("x"), "puts or deletes"),
        (Ops.put("/cells/self", "?"), "cannot be written"),
    ],
)
def test_what_a_part_cannot_do_is_refused(op: rpc_pb2.RequestOp, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        part_wire.writes([op])
