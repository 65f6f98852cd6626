"""Which replica of a pool is replaced next."""

from __future__ import annotations

from dataclasses import replace

from holdfast_operator.plan.pool import Replica, replace_one

OLD = Replica("a", "u", outdated=True, ready=True, runs=True, terminating=False, reachable=True)
RELAY = replace(OLD, name="b", relay=True)


def next_of(*replicas: Replica) -> str:
    found = replace_one(replicas)
    return found.name if found is not None else ""


def test_relays_are_replaced_before_those_that_follow_them() -> None:
    assert next_of(OLD, RELAY, replace(RELAY, name="c")) == "b"
    assert next_of(OLD, replace(RELAY, outdated=False)) == "a"


def test_relays_wait_for_the_others_too() -> None:
    assert next_of(OLD, RELAY, replace(OLD, name="c", outdated=False, ready=False)) == ""


def test_a_relay_that_is_cut_off_holds_up_nobody() -> None:
    assert next_of(OLD, replace(RELAY, reachable=False)) == "a"
    assert next_of(replace(RELAY, reachable=False)) == ""


def test_none_is_replaced_while_another_is_not_made_yet() -> None:
    """A node comes back and takes its place as a relay again: the other replica serves the site until it is there."""
    assert replace_one([OLD], missing=True) is None
    idle = replace(OLD, runs=False, ready=False)
    assert replace_one([idle], missing=True) == idle, "it serves nobody"
