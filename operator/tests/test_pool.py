"""How many StatefulSets a pool has, and which of them are relays."""

from __future__ import annotations

from typing import Any

from holdfast_operator.model.cluster import ClusterSpec, RolloutStatus
from holdfast_operator.model.pool import PoolSpec
from holdfast_operator.plan.pool import Replica
from holdfast_operator.plan.relays import relays
from holdfast_operator.reconcile_cluster import ForPools
from holdfast_operator.reconcile_pool import _is_missing, _is_shared, _wanted
from holdfast_operator.resources.common import template_of
from holdfast_operator.resources.pool import RELAY_LABEL, replica_on

from .resources.cases import POOL, POOLS

Object = dict[str, Any]
CLUSTER = ClusterSpec.model_validate({"version": "0.2.0", "tls": {"mode": "Disabled"}})
NODES = ["n1", "n2", "n3"]


def wanted(rendering: int, live: set[str], nodes: list[str] = NODES, **fields: Any) -> dict[str, Object]:
    rollout = RolloutStatus(version="0.2.0", specImage=None, image="holdfast:0.2.0", rendering=rendering)
    cluster = ForPools(CLUSTER, rollout, None)
    shared = _is_shared(POOL, cluster, {name: {} for name in live})
    spec = PoolSpec.model_validate({**POOLS["plain"], **fields})
    chosen: frozenset[str] = frozenset() if shared else relays("berlin", nodes, spec.relaysPerSite)
    return _wanted(POOL, spec, cluster, nodes, chosen, shared=shared)


def labels(stateful: Object) -> dict[str, str]:
    found: dict[str, str] = stateful["spec"]["template"]["metadata"]["labels"]
    return found


def test_a_new_pool_has_one_for_each_node() -> None:
    assert set(wanted(2, set())) == {replica_on("berlin", node) for node in NODES}


def test_a_pool_of_an_earlier_operator_keeps_its_one_when_the_cluster_moves_on() -> None:
    assert set(wanted(1, set())) == {"berlin-replica"}
    assert set(wanted(2, {"berlin-replica"})) == {"berlin-replica"}


def test_a_pool_of_an_earlier_operator_has_no_relays() -> None:
    assert wanted(1, set(), relaysPerSite=2) == wanted(1, set())


def test_another_node_changes_no_replica_but_the_relay_whose_place_it_takes() -> None:
    nodes = [f"edge-{n}" for n in range(12)]
    for n in range(len(nodes)):
        before = wanted(2, set(), nodes[:n], relaysPerSite=2)
        after = wanted(2, set(), nodes[: n + 1], relaysPerSite=2)
        changed = [name for name in before if template_of(before[name]) != template_of(after[name])]
        assert len(changed) <= 1
        assert sum(RELAY_LABEL in labels(made) for made in after.values()) == min(2, n + 1)


def test_other_prefixes_change_the_template_of_each_replica_and_nothing_that_cannot_be_changed() -> None:
    before, after = wanted(2, set()), wanted(2, set(), prefixes=["/a/", "/c/"])
    assert before.keys() == after.keys()
    for name, made in before.items():
        assert template_of(made) != template_of(after[name])
        assert {**made["spec"], "template": None} == {**after[name]["spec"], "template": None}


def test_a_replica_is_missing_while_its_node_is_ready_and_it_has_no_pod() -> None:
    def replica(node: str) -> Replica:
        pod = f"{replica_on('berlin', node)}-0"
        return Replica(pod, "u", outdated=False, ready=False, runs=False, terminating=False, reachable=True)

    nodes = {name: {"status": {"conditions": [{"type": "Ready", "status": "True"}]}} for name in NODES}
    assert not _is_missing("berlin", nodes, map(replica, NODES))
    assert _is_missing("berlin", nodes, map(replica, NODES[1:]))
    nodes["n1"]["status"]["conditions"][0]["status"] = "Unknown"
    assert not _is_missing("berlin", nodes, map(replica, NODES[1:]))
