"""Quorums: production code compared with a deliberately simple version, over many random configurations."""

from __future__ import annotations

from holdfast.raft.quorum import ConfState
from hypothesis import given, settings
from hypothesis import strategies as st

MEMBERS = st.integers(1, 9)
HALVES = st.sets(MEMBERS, min_size=1, max_size=7)


def _dumb_committed(half: set[int], match: dict[int, int]) -> int:
    """The highest index for which more than half have it, by trying them all."""
    indexes = {0, *match.values()}
    return max(i for i in indexes if 2 * sum(match.get(m, 0) >= i for m in half) > len(half))


@given(HALVES, st.one_of(st.just(set()), HALVES), st.dictionaries(MEMBERS, st.integers(0, 20)))
@settings(max_examples=2000)
def test_committed_is_the_highest_index_of_both_majorities(new: set[int], old: set[int], match: dict[int, int]) -> None:
    conf = ConfState(tuple(sorted(new)), tuple(sorted(old)))
    expected = min(_dumb_committed(half, match) for half in (new, old) if half)
    assert conf.committed(match) == expected


@given(HALVES, st.one_of(st.just(set()), HALVES), st.sets(MEMBERS), st.sets(MEMBERS))
@settings(max_examples=2000)
def test_two_quorums_meet(new: set[int], old: set[int], one: set[int], other: set[int]) -> None:
    conf = ConfState(tuple(sorted(new)), tuple(sorted(old)))
    if conf.quorum(lambda m: m in one) and conf.quorum(lambda m: m in other):
        assert one & other


@given(HALVES, HALVES, st.sets(MEMBERS), st.sets(MEMBERS))
@settings(max_examples=2000)
def test_quorums_meet_across_a_change(before: set[int], after: set[int], one: set[int], other: set[int]) -> None:
    """Of the old configuration and the joint one, and of the joint one and the new."""
    old = ConfState(tuple(sorted(before)))
    joint = old.changed(after, [])
    steps = [(old, joint)] if not joint.joint else [(old, joint), (joint, joint.left())]
    for first, second in steps:
        if first.quorum(lambda m: m in one) and second.quorum(lambda m: m in other):
            assert one & other


@given(HALVES, HALVES, st.sets(MEMBERS))
def test_a_change_ends_as_it_was_asked(before: set[int], after: set[int], learners: set[int]) -> None:
    passive = learners - after
    conf = ConfState(tuple(sorted(before))).changed(after, passive)
    conf = conf.left() if conf.joint else conf
    assert (set(conf.voters), set(conf.learners)) == (after, passive)
