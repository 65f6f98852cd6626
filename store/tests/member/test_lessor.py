"""The leader's clock for leases, by itself."""

from __future__ import annotations

from holdfast.member.lessor import SECOND, Lessor

RETRY = 20 * SECOND


def test_a_new_leader_gives_everyone_the_whole_time_and_more() -> None:
    lessor = Lessor()
    lessor.promote({1: 5, 2: 3}, now=100 * SECOND, extend_ns=SECOND)
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
