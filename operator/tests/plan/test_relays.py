"""Relays are chosen by the pool and its nodes alone, and a node that comes or goes changes as little as can be."""

from __future__ import annotations

from holdfast_operator.plan.relays import relays
from hypothesis import given
from hypothesis import strategies as st

NODES = st.frozensets(st.integers(0, 40).map("edge-{}".format), max_size=20)
COUNTS = st.integers(0, 8)


@given(NODES, COUNTS)
def test_there_are_as_many_as_wanted_and_whoever_lists_the_nodes_finds_the_same(nodes: frozenset[str], n: int) -> None:
    found = relays("berlin", sorted(nodes), n)
    assert found <= nodes
    assert len(found) == min(n, len(nodes))
    assert found == relays("berlin", sorted(nodes, reverse=True), n)


@given(NODES, COUNTS)
def test_a_node_that_joins_or_leaves_changes_at_most_one_other(nodes: frozenset[str], n: int) -> None:
    before, after = relays("berlin", nodes, n), relays("berlin", nodes | {"new"}, n)
    others = (before ^ after) - {"new"}
    assert len(others) <= 1
    assert not others or "new" in after, "nothing changes unless the node itself is a relay"


@given(NODES, st.integers(0, 7))
def test_one_more_relay_keeps_the_others(nodes: frozenset[str], n: int) -> None:
    assert relays("berlin", nodes, n) <= relays("berlin", nodes, n + 1)


def test_which_they_are_never_changes() -> None:
    """Or an operator's upgrade would replace replicas."""
    nodes = [f"edge-{n}" for n in range(5)]
    assert relays("berlin", nodes, 2) == {"edge-0", "edge-3"}
    assert relays("paris", nodes, 2) == {"edge-0", "edge-2"}
