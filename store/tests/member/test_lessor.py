"""The leader's clock for leases, by itself."""

from __future__ import annotations

from holdfast.machine import LeaseEvent
from holdfast.member.lessor import SECOND, Lessor

RETRY = 20 * SECOND


def test_a_new_leader_gives_everyone_the_whole_time_and_more() -> None:
    lessor = Lessor()
    lessor.promote({1: 5, 2: 3}, {}, now=100 * SECOND, extend_ns=SECOND)
    assert lessor.deadline == 104 * SECOND
    assert lessor.expired(104 * SECOND - 1, 10, RETRY) == []
    assert lessor.expired(104 * SECOND, 10, RETRY) == [2]
    assert lessor.remaining(1, 104 * SECOND) == 2


def test_a_renewal_moves_the_end() -> None:
    lessor = Lessor()
    lessor.granted(1, 5, 0)
    assert lessor.renew(1, 5, 3 * SECOND)
    assert lessor.expired(6 * SECOND, 10, RETRY) == []  # the old end came up and does not count
    assert lessor.remaining(1, 6 * SECOND) == 2
    assert lessor.expired(8 * SECOND, 10, RETRY) == [1]


def test_what_has_expired_is_not_renewed_any_more() -> None:
    lessor = Lessor()
    lessor.granted(1, 5, 0)
    assert lessor.expired(5 * SECOND, 10, RETRY) == [1]
    assert not lessor.renew(1, 5, 5 * SECOND)
    assert lessor.remaining(1, 5 * SECOND) is None
    assert not lessor.renew(9, 5, 0)
    assert lessor.remaining(9, 0) is None


def test_a_lease_that_has_its_full_ttl_again_is_never_shortened_or_revived() -> None:
    lessor = Lessor()
    lessor.applied(LeaseEvent({1: 5, 2: 5}, granted=True), 0)
    lessor.applied(LeaseEvent({1: 3}, granted=False), SECOND)
    assert lessor.remaining(1, 0) == 5
    lessor.applied(LeaseEvent({1: 5}, granted=False), SECOND)
    assert lessor.remaining(1, 0) == 6
    assert lessor.expired(5 * SECOND, 10, RETRY) == [2]
    lessor.applied(LeaseEvent({2: 5}, granted=False), 5 * SECOND)
    assert not lessor.renew(2, 5, 5 * SECOND)


def test_a_revocation_that_did_not_happen_comes_up_again() -> None:
    lessor = Lessor()
    lessor.granted(1, 5, 0)
    assert lessor.expired(5 * SECOND, 10, RETRY) == [1]
    assert lessor.expired(6 * SECOND, 10, RETRY) == []
    assert lessor.expired(25 * SECOND, 10, RETRY) == [1]
    lessor.revoked(1)
    assert lessor.expired(99 * SECOND, 10, RETRY) == []


def test_who_leads_no_more_knows_nothing() -> None:
    lessor = Lessor()
    lessor.granted(1, 5, 0)
    lessor.demote()
    assert lessor.deadline is None
    assert lessor.expired(99 * SECOND, 10, RETRY) == []


def test_a_lease_that_is_renewed_often_takes_one_place_in_the_queue() -> None:
    lessor = Lessor()
    lessor.granted(1, 5, 0)
    for now in range(1000):
        assert lessor.renew(1, 5, now * SECOND)
        assert lessor.expired(now * SECOND, 10, RETRY) == []
    assert len(lessor._ends._heap) == 1
    assert lessor.expired(1004 * SECOND, 10, RETRY) == [1]


def test_what_is_left_of_a_long_lease_is_written_down_now_and_then() -> None:
    lessor = Lessor(checkpoint_ns=10 * SECOND)
    lessor.granted(1, 35, 0)
    lessor.granted(2, 10, 0)  # too short to be worth it
    assert lessor.deadline == 10 * SECOND
    assert lessor.due_checkpoints(9 * SECOND, 10) == {}
    assert lessor.due_checkpoints(10 * SECOND, 10) == {1: 25}
    assert lessor.checkpointed(1)
    assert lessor.renew(1, 35, 15 * SECOND)
    assert lessor.due_checkpoints(20 * SECOND, 10) == {}  # it was renewed since
    assert lessor.due_checkpoints(25 * SECOND, 10) == {1: 25}
    lessor.taken_back(1)
    assert not lessor.checkpointed(1)


def test_a_new_leader_goes_on_from_the_checkpoint() -> None:
    lessor = Lessor(checkpoint_ns=10 * SECOND)
    lessor.promote({1: 1000, 2: 1000}, {1: 300}, now=0, extend_ns=SECOND)
    assert lessor.remaining(1, 0) == 301
    assert lessor.remaining(2, 0) == 1001
