"""The rules of leases: all states of small worlds, that each broken rule is found there, and the real bound of clocks.

`python -m holdfast_lab cells` explores the larger worlds.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from holdfast.cells.lease_rules import RHO, LeaseRecord, Tenure, Watched, holds, release, renew, take, watch
from holdfast_lab.cells.explore import explore
from holdfast_lab.cells.lease_mutants import LEASES, TenuresAreShared, UnansweredExtends
from holdfast_lab.cells.leases import Leases, World, beginning
from hypothesis import given
from hypothesis import strategies as st

RENEWED = beginning(takes=(1, 1), renewals=1, losses=0)
LOST = beginning(takes=(1, 1), renewals=0, losses=1)
LARGER: dict[type[Leases], World] = {  # what can show that these are broken
    UnansweredExtends: beginning(takes=(1, 1), renewals=1, losses=1),
    TenuresAreShared: beginning(takes=(2, 1), renewals=0, losses=1),
}

TTL_MS = 10_000
HELD = LeaseRecord(b"eu", b"first", 7, TTL_MS, renewals=3)
FREE = replace(HELD, released=True)
FIRST, SECOND = Tenure(b"first", 0.0, TTL_MS), Tenure(b"second", 0.0, TTL_MS)
SURE = RHO * (1 - 1e-6)  # a little less than the bound, because floats are rounded


@pytest.mark.parametrize("world", [RENEWED, LOST], ids=["renewed", "lost"])
def test_no_two_hold_a_lease_and_fences_grow(world: World) -> None:
    rules = Leases()
    found = explore(world, rules.nexts, rules.wrong)
    assert not found.wrong, found.way
    assert found.states > 20_000


@pytest.mark.parametrize("mutant", LEASES, ids=lambda mutant: str(mutant.__name__))
def test_broken_leases_are_found(mutant: type[Leases]) -> None:
    rules = mutant()
    assert explore(LARGER.get(mutant, RENEWED), rules.nexts, rules.wrong).wrong, mutant.__doc__


@given(
    holder=st.floats(1 - SURE, 1 + SURE),
    watcher=st.floats(1 - SURE, 1 + SURE),
    ttl_ms=st.integers(1000, 24 * 3_600_000),
    asked=st.floats(0, 1e6),
    seen=st.floats(0, 1e6),
)
def test_a_lease_is_free_only_after_its_holder_knows(
    holder: float, watcher: float, ttl_ms: int, asked: float, seen: float
) -> None:
    """Of clocks with these rates. The record is seen `seen` seconds after the holder asked."""
    ends = Tenure(b"first", asked * holder, ttl_ms).valid_until() / holder
    record = replace(HELD, ttl_ms=ttl_ms)
    free = Watched(record, (asked + seen) * watcher).free_at() / watcher
    assert ends < free


def test_it_is_taken_with_the_next_fence() -> None:
    taken = LeaseRecord(b"us", b"second", 8, TTL_MS)
    assert take(None, None, SECOND, b"us") == replace(taken, fence=1)
    assert take(FREE, None, SECOND, b"us") == taken
    assert take(HELD, HELD, SECOND, b"us") == taken
    for watched in (None, replace(HELD, renewals=2), replace(HELD, tenure=b"before"), FREE):
        assert take(HELD, watched, SECOND, b"us") is None


def test_only_its_holder_renews_and_releases_it() -> None:
    assert renew(HELD, FIRST) == replace(HELD, renewals=4)
    assert release(HELD, FIRST) == FREE
    for record, tenure in ((None, FIRST), (HELD, SECOND), (FREE, FIRST)):
        assert renew(record, tenure) is None
        assert release(record, tenure) is None
        assert not holds(record, tenure)


def test_a_record_is_watched_for_as_long_as_it_stays() -> None:
    watched = watch(None, HELD, 5.0)
    assert watched.free_at() == pytest.approx(15.1)
    assert watch(watched, HELD, 9.0) == watched
    assert watch(watched, replace(HELD, renewals=4), 9.0).free_at() == pytest.approx(19.1)
    assert watch(watched, FREE, 9.0).free_at() < 0
    assert watch(None, None, 9.0).free_at() < 0
    assert FIRST.valid_until() == pytest.approx(9.9)


@pytest.mark.parametrize("record", [HELD, FREE])
def test_records_are_kept(record: LeaseRecord) -> None:
    assert LeaseRecord.unpacked(record.packed()) == record


def test_what_is_no_record_is_refused() -> None:
    assert LeaseRecord.unpacked(None) is None
    with pytest.raises(ValueError, match="no record of a lease"):
        LeaseRecord.unpacked(b"\xff")
