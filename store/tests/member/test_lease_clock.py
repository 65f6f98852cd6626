"""The leader's clock for leases, by itself."""

from __future__ import annotations

from holdfast.member.lease_clock import SECOND, LeaseClock

RETRY = 20 * SECOND


def test_a_new_leader_gives_everyone_the_whole_time_and_more() -> None:
    clock = LeaseClock()
    clock.promote({1: 5, 2: 3}, {}, now=100 * SECOND, extend_ns=SECOND)
    assert clock.deadline == 104 * SECOND
    assert clock.expired(104 * SECOND - 1, 10, RETRY) == []
    assert clock.expired(104 * SECOND, 10, RETRY) == [2]
    assert clock.remaining(1, 104 * SECOND) == 2


def test_a_renewal_moves_the_end() -> None:
    clock = LeaseClock()
    clock.granted(1, 5, 0)
    assert clock.renew(1, 5, 3 * SECOND)
    assert clock.expired(6 * SECOND, 10, RETRY) == []  # the old end came up and does not count
    assert clock.remaining(1, 6 * SECOND) == 2
    assert clock.expired(8 * SECOND, 10, RETRY) == [1]


def test_what_has_expired_is_not_renewed_any_more() -> None:
    clock = LeaseClock()
    clock.granted(1, 5, 0)
    assert clock.expired(5 * SECOND, 10, RETRY) == [1]
    assert not clock.renew(1, 5, 5 * SECOND)
    assert clock.remaining(1, 5 * SECOND) is None
    assert not clock.renew(9, 5, 0)
    assert clock.remaining(9, 0) is None


def test_a_revocation_that_did_not_happen_comes_up_again() -> None:
    clock = LeaseClock()
    clock.granted(1, 5, 0)
    assert clock.expired(5 * SECOND, 10, RETRY) == [1]
    assert clock.expired(6 * SECOND, 10, RETRY) == []
    assert clock.expired(25 * SECOND, 10, RETRY) == [1]
    clock.revoked(1)
    assert clock.expired(99 * SECOND, 10, RETRY) == []


def test_who_leads_no_more_knows_nothing() -> None:
    clock = LeaseClock()
    clock.granted(1, 5, 0)
    clock.demote()
    assert clock.deadline is None
    assert clock.expired(99 * SECOND, 10, RETRY) == []


def test_a_lease_that_is_renewed_often_takes_one_place_in_the_queue() -> None:
    clock = LeaseClock()
    clock.granted(1, 5, 0)
    for now in range(1000):
        assert clock.renew(1, 5, now * SECOND)
        assert clock.expired(now * SECOND, 10, RETRY) == []
    assert len(clock._ends._heap) == 1
    assert clock.expired(1004 * SECOND, 10, RETRY) == [1]


def test_what_is_left_of_a_long_lease_is_written_down_now_and_then() -> None:
    clock = LeaseClock(checkpoint_ns=10 * SECOND)
    clock.granted(1, 35, 0)
    clock.granted(2, 10, 0)  # too short to be worth it
    assert clock.deadline == 10 * SECOND
    assert clock.due_checkpoints(9 * SECOND, 10) == {}
    assert clock.due_checkpoints(10 * SECOND, 10) == {1: 25}
    assert clock.checkpointed(1)
    assert clock.renew(1, 35, 15 * SECOND)
    assert clock.due_checkpoints(20 * SECOND, 10) == {}  # it was renewed since
    assert clock.due_checkpoints(25 * SECOND, 10) == {1: 25}
    clock.taken_back(1)
    assert not clock.checkpointed(1)


def test_a_new_leader_goes_on_from_the_checkpoint() -> None:
    clock = LeaseClock(checkpoint_ns=10 * SECOND)
    clock.promote({1: 1000, 2: 1000}, {1: 300}, now=0, extend_ns=SECOND)
    assert clock.remaining(1, 0) == 301
    assert clock.remaining(2, 0) == 1001
