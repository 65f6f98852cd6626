"""A cluster that is deleted and applied again takes over its volumes, or says what its user has to decide."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from e2e.clusters import NOTICED, REPLICAS, VOTERS, Cluster, namespace
from e2e.kubectl import eventually

pytestmark = pytest.mark.timeout(1800)

DATA = {"payment.yaml": "provider: acme"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three voters, with a pool and a configuration that stay when the cluster goes."""
    with namespace("recreate") as name:
        made = Cluster(name)
        made.apply()
        made.kubectl("apply", "-f", "-", stdin=made.pool())
        made.kubectl("apply", "-f", "-", stdin=made.config(DATA))
        made.wait_ready()
        made.pool_ready()
        made.config_ready()
        yield made


def _replace(cluster: Cluster, voters: int) -> None:
    cluster.kubectl("replace", "--force", "-f", "-", stdin=cluster.manifest(voters))


def _all_ready(cluster: Cluster, began: float, what: str) -> None:
    cluster.wait_ready()
    cluster.pool_ready()
    cluster.config_ready()
    print(f"   {what}: cluster, pool and configuration are ready after {time.monotonic() - began:.1f} s")


def test_recreate_takes_over_the_volumes(cluster: Cluster) -> None:
    cluster.holdfast("put", "/e2e/before", "kept")
    claims, members, replicas = cluster.claim_uids(), cluster.members(), cluster.pod_uids(REPLICAS)
    began = time.monotonic()
    _replace(cluster, 3)
    _all_ready(cluster, began, "recreated")
    assert "kept" in cluster.holdfast("get", "/e2e/before")
    assert (cluster.claim_uids(), cluster.members()) == (claims, members)
    assert cluster.pod_uids(REPLICAS) == replicas, "the replicas serve on while there is no cluster"


def test_recreate_with_fewer_voters_asks_the_user(cluster: Cluster) -> None:
    id_ = cluster.object()["status"]["clusterID"]
    claims = cluster.claim_uids()
    began = time.monotonic()
    _replace(cluster, 1)
    message = cluster.wait_told("holdfast.dev/adopt")
    assert cluster.row()["REASON"] == "MoreVolumesThanVoters"
    assert id_ in message, "it has to name the id that the annotation needs"
    assert cluster.claim_uids() == claims, "nothing is deleted before the user has decided"
    cluster.annotate("holdfast.dev/adopt", id_)
    _all_ready(cluster, began, "taken over and reduced")
    assert "kept" in cluster.holdfast("get", "/e2e/before")
    eventually("one volume is left", lambda: set(cluster.claim_uids()) == {"data-shop-voter-0"})
    assert cluster.object()["status"]["clusterID"] == id_


def test_recreate_without_volumes_begins_anew(cluster: Cluster) -> None:
    """Nothing of the cluster is left but its Secrets: another one is formed, and the pool and the configuration follow
    it."""
    before = cluster.object()["status"]["clusterID"]
    began = time.monotonic()
    cluster.kubectl("delete", "hfc", "shop", "--wait=true")
    eventually("a pool without a cluster is not ready", lambda: not cluster.said_ready("hfep", "edge"), NOTICED)
    eventually("nor is a configuration", lambda: not cluster.said_ready("hfcfg", "app"), NOTICED)
    eventually("the voters are gone", lambda: not cluster.pods())
    cluster.kubectl("delete", "pvc", "-l", VOTERS)
    cluster.apply(3)
    _all_ready(cluster, began, "formed anew")
    assert cluster.object()["status"]["clusterID"] != before
