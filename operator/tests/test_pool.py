"""How many StatefulSets a pool has."""

from __future__ import annotations

from holdfast_operator.model.cluster import ClusterSpec, RolloutStatus
from holdfast_operator.model.pool import PoolSpec
from holdfast_operator.reconcile_cluster import ForPools
from holdfast_operator.reconcile_pool import _is_shared, _wanted

from .resources.cases import POOL, POOLS

CLUSTER = ClusterSpec.model_validate({"version": "0.2.0", "tls": {"mode": "Disabled"}})


def names(rendering: int, live: set[str]) -> set[str]:
    rollout = RolloutStatus(version="0.2.0", specImage=None, image="holdfast:0.2.0", rendering=rendering)
    cluster = ForPools(CLUSTER, rollout, None)
    shared = _is_shared(POOL, cluster, {name: {} for name in live})
    return set(_wanted(POOL, PoolSpec.model_validate(POOLS["plain"]), cluster, ["n1", "n2"], shared=shared))


def test_a_new_pool_has_one_for_each_node() -> None:
    assert len(names(2, set())) == 2
    assert "berlin-replica" not in names(2, set())


def test_a_pool_of_an_earlier_operator_keeps_its_one_when_the_cluster_moves_on() -> None:
    assert names(1, set()) == {"berlin-replica"}
    assert names(2, {"berlin-replica"}) == {"berlin-replica"}
