"""The states of a session, by its clock alone."""

from __future__ import annotations

import pytest
from holdfast.recipes.liveness import MAX_DRIFT, Liveness, State
from holdfast_lab.sim.apps.mutants import RECIPE_MUTANTS
from holdfast_lab.sim.mutation import broken
from hypothesis import given
from hypothesis import strategies as st


def test_it_is_safe_until_the_ttl_less_the_drift_then_in_jeopardy_then_expired() -> None:
    session = Liveness(asked=100.0, ttl=10, grace=45)
    end = 100 + 10 / (1 + MAX_DRIFT)
    assert session.state(end - 0.001) is State.SAFE
    assert session.state(end) is State.JEOPARDY
    assert session.state(end + 44.9) is State.JEOPARDY
    assert session.state(end + 45) is State.EXPIRED
    assert session.state(100) is State.EXPIRED, "it stays so"


def test_a_renewal_counts_from_its_request() -> None:
    session = Liveness(asked=0.0, ttl=10)
    session.renewed(now=9.0, asked=5.0, ttl=10)
    assert session.safe_until == pytest.approx(5 + 10 / (1 + MAX_DRIFT))
    session.renewed(now=9.5, asked=3.0, ttl=10)  # an answer that is late takes nothing back
    assert session.safe_until == pytest.approx(5 + 10 / (1 + MAX_DRIFT))


def test_a_renewal_in_jeopardy_makes_it_safe_and_one_after_the_grace_does_not() -> None:
    session = Liveness(asked=0.0, ttl=10, grace=45)
    session.renewed(now=30.0, asked=29.0, ttl=10)
    assert session.state(30.0) is State.SAFE
    session.renewed(now=200.0, asked=199.0, ttl=10)
    assert session.state(200.0) is State.EXPIRED


def test_a_lease_that_is_gone_ends_it_at_once() -> None:
    session = Liveness(asked=0.0, ttl=10)
    session.renewed(now=1.0, asked=0.5, ttl=0)
    assert session.state(1.0) is State.EXPIRED


@given(
    ttl=st.floats(1, 100),
    drift=st.floats(-MAX_DRIFT, MAX_DRIFT),
    delays=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20), st.floats(0, 20)), max_size=8),
    looked=st.floats(0, 300),
)
def test_while_it_is_safe_the_server_has_the_lease(
    ttl: float, drift: float, delays: list[tuple[float, float, float]], looked: float
) -> None:
    """The server's clock runs faster or slower than ours, and begins to count when a request arrives."""
    server_end = ttl * (1 - 1e-9) / (1 + drift)  # by our clock; the grant arrived at 0, the moment it was asked for
    session, at = Liveness(asked=0.0, ttl=ttl), 0.0
    for pause, there, back in delays:
        asked = at + pause
        if asked + there >= server_end:
            break
        server_end = asked + there + ttl * (1 - 1e-9) / (1 + drift)
        at = asked + there + back
        session.renewed(at, asked, ttl)
    now = max(at, looked)
    if session.state(now) is State.SAFE:
        assert now <= server_end * (1 + 1e-6)


def _both_rules() -> None:
    test_it_is_safe_until_the_ttl_less_the_drift_then_in_jeopardy_then_expired()
    test_a_renewal_counts_from_its_request()


@pytest.mark.parametrize("name", ["deadline-from-the-answer", "no-drift"])
def test_broken_rules_that_few_seeds_of_the_simulator_notice_are_found_here(name: str) -> None:
    with broken(RECIPE_MUTANTS[name]), pytest.raises(AssertionError):
        _both_rules()
