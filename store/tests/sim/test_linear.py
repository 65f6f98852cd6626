"""The checker of histories: correct ones pass, wrong ones do not, and unknown outcomes are tried both ways."""

from __future__ import annotations

import pytest
from holdfast_lab.sim.linear import check_history
from holdfast_lab.sim.operations import NEVER, Kind, Operation, Outcome, State, effect
from holdfast_lab.sim.violation import Violation
from hypothesis import given, settings
from hypothesis import strategies as st

_KEY = b"k"


def put(id: int, invoked: int, returned: int, revision: int, before: object = None, key: bytes = _KEY) -> Operation:
    return Operation(
        id, Kind.PUT, key, value=b"%d" % id, invoked=invoked, returned=returned, outcome=Outcome.DONE,
        revision=revision, result=before,
    )  # fmt: skip


def maybe(id: int, invoked: int, kind: Kind = Kind.PUT, lease: int = 0) -> Operation:
    end = b"k\x00" if kind is Kind.DELETE else None
    return Operation(
        id, kind, _KEY, end=end, value=b"%d" % id, lease=lease, invoked=invoked, returned=NEVER, outcome=Outcome.UNKNOWN
    )


def get(id: int, invoked: int, returned: int, revision: int, *versions: object) -> Operation:
    return Operation(
        id, Kind.GET, b"k", b"l", invoked=invoked, returned=returned, outcome=Outcome.DONE, revision=revision,
        result=[(_KEY, *v) for v in versions],  # type: ignore[misc]
    )  # fmt: skip


def test_what_is_right_passes() -> None:
    first = (b"1", 2, 2, 1, 0)
    check_history([put(1, 0, 10, 2), get(2, 11, 12, 2, first), put(3, 13, 20, 3, first)])


def test_operations_at_the_same_time_may_come_in_any_order() -> None:
    check_history([put(1, 0, 10, 3, (b"2", 2, 2, 1, 0)), put(2, 0, 10, 2)])


def test_a_stale_read_is_found() -> None:
    with pytest.raises(Violation, match="was over before") as found:
        check_history([put(1, 0, 10, 2), get(2, 11, 12, 1), put(3, 20, 30, 3, (b"1", 2, 2, 1, 0)), get(4, 40, 41, 2)])
    assert found.value.name == "I10"


def test_a_read_of_something_else_is_found() -> None:
    with pytest.raises(Violation, match="should have been told"):
        check_history([put(1, 0, 10, 2), get(2, 11, 12, 2, (b"x", 2, 2, 1, 0))])


def test_a_lost_write_is_found() -> None:
    with pytest.raises(Violation):
        check_history([put(1, 0, 10, 2), put(2, 11, 12, 2)])


def test_a_write_of_unknown_outcome_may_have_happened_or_not() -> None:
    check_history([maybe(1, 0), put(2, 5, 10, 2)])
    check_history([maybe(1, 0), put(2, 5, 10, 3, (b"1", 2, 2, 1, 0))])
    with pytest.raises(Violation, match="nothing can have made revision 2"):
        check_history([maybe(1, 11), put(2, 5, 10, 3, (b"1", 2, 2, 1, 0))])


def test_which_of_several_is_found_by_trying() -> None:
    forks = check_history([maybe(1, 0), maybe(2, 0), maybe(3, 0), put(4, 5, 10, 4, (b"1", 2, 3, 2, 0))])
    assert forks >= 1


def test_a_wrong_hint_is_not_believed() -> None:
    history = [maybe(1, 0), maybe(2, 0), put(3, 5, 10, 3, (b"2", 2, 2, 1, 0))]
    check_history(history, lambda _: {_KEY: b"1"})


def test_a_lease_may_end_by_itself() -> None:
    leased = put(1, 0, 10, 2)
    leased.lease = 7
    check_history([leased, maybe(2, 0, Kind.EXPIRE, lease=7), get(3, 20, 21, 3)])
    with pytest.raises(Violation):
        check_history([leased, maybe(2, 0, Kind.EXPIRE, lease=8), get(3, 20, 21, 3)])


@given(st.lists(st.tuples(st.sampled_from([Kind.PUT, Kind.DELETE, Kind.GET]), st.booleans()), max_size=30), st.data())
@settings(max_examples=300, deadline=None)
def test_every_history_of_one_store_passes_and_a_changed_one_does_not(
    steps: list[tuple[Kind, bool]], data: st.DataObject
) -> None:
    """One store doing one thing after the other; some answers are lost."""
    state: State = {}
    revision, history = 1, []
    for n, (kind, lost) in enumerate(steps, 1):
        operation = Operation(n, kind, _KEY, end=b"k\x00", value=b"%d" % n, invoked=10 * n, returned=10 * n + 5)
        after, told = effect(operation, state, revision + 1)
        if after is not None:
            state, revision = after, revision + 1
        operation.revision, operation.result = revision, told
        operation.outcome = Outcome.UNKNOWN if lost and kind is not Kind.GET else Outcome.DONE
        if operation.outcome is Outcome.UNKNOWN:
            operation.returned = NEVER
        history.append(operation)
    check_history(history)
    reads = [o for o in history if o.kind is Kind.GET]
    if reads:
        wrong = data.draw(st.sampled_from(reads))
        wrong.result = [(_KEY, b"never written", 2, 2, 1, 0)]
        with pytest.raises(Violation):
            check_history(history)
