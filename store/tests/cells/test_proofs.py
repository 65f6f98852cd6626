"""What the proofs on real clusters check: each way in which money or a message can go wrong is noticed."""

from __future__ import annotations

import pytest
from holdfast.cells.part_wire import INTENTS
from holdfast.client.txn import Ops
from holdfast.proto import rpc_pb2
from holdfast_lab.cells.bank.ledger import Ledger, packed
from holdfast_lab.cells.bank.steps import STEPS, Kind, kind_of
from holdfast_lab.cells.handoffs.wire import LANES, PREFIX, Judge, message, share
from holdfast_lab.sim.violation import Violation

CELLS = ("eu", "us", "ap")


def ledger(*moves: tuple[str, int, str]) -> Ledger:
    """Two accounts of 10, after these changes."""
    found = Ledger({"a": 10, "b": 10})
    for account, balance, memo in moves:
        found.written(account, packed(balance, memo).encode())
    return found


def test_a_transfer_that_is_whole_is_counted() -> None:
    found = ledger(("a", 7, "1.0.0"), ("b", 13, "1.0.0"))
    found.said("1.0.0", "done")
    found.said("1.0.1", "aborted")
    found.settle({"a": 7, "b": 13}, life=1)
    assert found.made == 1
    assert found.told == {"done": 1, "aborted": 1}


@pytest.mark.parametrize(
    ("moves", "said", "found", "rule"),
    [
        pytest.param([("a", 7, "1.0.0")], "done", {"a": 7, "b": 10}, "B1", id="half of it is made"),
        pytest.param(
            [("a", 7, "1.0.0"), ("b", 8, "1.0.1"), ("b", 13, "1.0.2")],
            "done",
            {"a": 7, "b": 13},
            "B2",
            id="halves that make up for each other",
        ),
        pytest.param(
            [("a", 7, "1.0.0"), ("b", 13, "1.0.0"), ("a", 4, "1.0.0"), ("b", 16, "1.0.0")],
            "done",
            {"a": 4, "b": 16},
            "B2",
            id="it is made twice",
        ),
        pytest.param([], "done", {"a": 10, "b": 10}, "B3", id="it was acknowledged and is not made"),
        pytest.param(
            [("a", 7, "1.0.0"), ("b", 13, "1.0.0")], "aborted", {"a": 7, "b": 13}, "B3", id="it was refused and is made"
        ),
        pytest.param([], "aborted", {"a": 9, "b": 11}, "B1", id="the watches were not told"),
    ],
)
def test_a_ledger_that_is_wrong_is_noticed(
    moves: list[tuple[str, int, str]], said: str, found: dict[str, int], rule: str
) -> None:
    wrong = ledger(*moves)
    wrong.said("1.0.0", said)
    with pytest.raises(Violation, match=rule):
        wrong.settle(found, life=1)


def test_what_is_below_zero_or_too_late_is_noticed() -> None:
    with pytest.raises(Violation, match="B1"):
        ledger(("a", -1, "1.0.0"))
    settled = ledger()
    settled.settle({"a": 10, "b": 10}, life=4)
    with pytest.raises(Violation, match="B3"):
        settled.written("a", packed(9, "4.0.0").encode())
    settled.written("a", packed(9, "5.0.0").encode())


def written(sender: int, *numbers: int) -> list[tuple[str, bytes]]:
    return [(f"{PREFIX}{sender}/{number % LANES}", str(number).encode()) for number in numbers]


def test_messages_in_order_are_counted_per_sender() -> None:
    judge = Judge(2)
    judge.seen(5, [*written(0, 2, 1), *written(1, 1)])
    judge.seen(7, written(0, 3))
    assert judge.last == {0: 3, 1: 1}
    assert (judge.arrived, judge.transactions) == (4, 2)


@pytest.mark.parametrize("numbers", [(2,), (1, 3), (1, 1), (1, 2, 1)])
def test_messages_that_are_not_once_and_in_order_are_noticed(numbers: tuple[int, ...]) -> None:
    *before, wrong = numbers
    judge = Judge(1)
    for revision, number in enumerate(before):
        judge.seen(revision, written(0, number))
    with pytest.raises(Violation, match="Q1"):
        judge.seen(len(before), written(0, wrong))


def test_messages_that_follow_each_other_go_together() -> None:
    keys = {message(0, number).writes[0].request_put.key for number in range(950, 950 + LANES)}
    assert len(keys) == LANES
    assert [share(10, 4, sender) for sender in range(4)] == [3, 3, 2, 2]


def test_a_coordinator_stops_at_each_step_between_two_requests() -> None:
    prepare = rpc_pb2.TxnRequest(success=[Ops.put("/cells/transactions/t", ""), Ops.put(INTENTS + b"/a", "t")])
    assert kind_of(prepare) is Kind.PREPARE
    assert kind_of(rpc_pb2.TxnRequest(success=[Ops.delete(INTENTS + b"/a")])) is Kind.TELL
    kinds = [kind for kind in Kind if kind is not Kind.OTHER]
    sent = [{(kind, cell) for kind in kinds for cell in CELLS if step.sends(kind, cell, CELLS)} for step in STEPS]
    assert len({frozenset(requests) for requests in sent}) == len(STEPS)
    assert sent[0] == {(Kind.PREPARE, "eu")}
    assert len(sent[-1]) == 4 * len(CELLS)
