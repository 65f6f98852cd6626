"""A cluster that is deleted and applied again takes over its volumes, or says what its user has to decide."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from e2e.clusters import REPLICAS, Cluster, namespace

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
    assert set(cluster.claim_uids()) == {"data-shop-voter-0"}
    assert cluster.object()["status"]["clusterID"] == id_


def test_recreate_without_volumes_begins_anew(cluster: Cluster) -> None:
    """Nothing of the cluster is left but its Secrets: another one is formed, and the pool and the configuration follow
    it."""
    before = cluster.object()["status"]["clusterID"]
    began = time.monotonic()
    cluster.kubectl("delete", "hfc", "shop", "--wait=true")
    cluster.kubectl("wait", "--for=delete", "pod", "-l", "holdfast.dev/component=voter", "--timeout=120s", seconds=150)
    cluster.kubectl("delete", "pvc", "-l", "holdfast.dev/component=voter")
    assert not cluster.said_ready("hfep", "edge"), "a pool without a cluster is not ready"
    assert not cluster.said_ready("hfcfg", "app"), "a configuration without a cluster is not ready"
    cluster.apply(3)
    _all_ready(cluster, began, "formed anew")
    assert cluster.object()["status"]["clusterID"] != before
