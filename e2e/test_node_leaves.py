"""A node of a pool leaves: its replica goes, no other one is touched, and a new one comes with the node."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from e2e.clusters import REPLICAS, Cluster, namespace
from e2e.kubectl import eventually
from e2e.nodes import gone, nodes

pytestmark = pytest.mark.timeout(1800)

DATA = {"payment.yaml": "provider: acme"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with namespace("node-leaves") as name:
        made = Cluster(name)
        made.apply(1)
        made.kubectl("apply", "-f", "-", stdin=made.pool())
        made.kubectl("apply", "-f", "-", stdin=made.config(DATA))
        made.wait_ready()
        made.pool_ready()
        made.config_ready()
        yield made


def _replicas(cluster: Cluster) -> dict[str, str]:
    """The uids of the replicas' pods, by node."""
    return {p["spec"].get("nodeName", ""): p["metadata"]["uid"] for p in cluster.pods(REPLICAS)}


def test_node_leaves(cluster: Cluster) -> None:
    before, voters = _replicas(cluster), cluster.pod_uids()
    leaving, stays = nodes("edge")
    assert set(before) == {leaving, stays}
    began = time.monotonic()
    with gone(leaving):
        eventually("its replica is gone", lambda: set(_replicas(cluster)) == {stays}, 120)
        cluster.pool_ready()
        print(f"   the pool is settled {time.monotonic() - began:.1f} s after the node left")
        assert cluster.row("hfep", "edge")["REPLICAS"] == "1/1"
        assert _replicas(cluster) == {stays: before[stays]}
        cluster.config_ready()
    began = time.monotonic()
    eventually("it has a replica again", lambda: set(_replicas(cluster)) == {leaving, stays}, 120)
    eventually("the pool is ready", lambda: cluster.row("hfep", "edge")["REPLICAS"] == "2/2", 120)
    cluster.pool_ready()
    print(f"   the pool has both replicas {time.monotonic() - began:.1f} s after the node came back")
    assert _replicas(cluster)[stays] == before[stays]
    assert cluster.pod_uids() == voters
