"""Objects of a cluster that somebody deletes or changes by hand are put back, its data stays, and it serves again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.clusters import NOTICED, REPLICAS, VOTERS, Cluster, namespace
from e2e.kubectl import condition, eventually

pytestmark = pytest.mark.timeout(1800)

SECONDS = 15
SERVICES = ("shop-client", "shop-peers", "shop-edge", "edge-replica")
SECRETS = ("shop-peer-tls", "shop-server-tls", "shop-client-tls", "shop-operator-tls")
CHILDREN = [f"service/{name}" for name in SERVICES] + ["pdb/shop-voter"] + [f"secret/{name}" for name in SECRETS]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three voters, and a pool."""
    with namespace("drift") as name:
        made = Cluster(name)
        made.apply()
        made.kubectl("apply", "-f", "-", stdin=made.pool())
        made.wait_ready()
        made.pool_ready()
        made.holdfast("put", "/e2e/before", "kept")
        yield made
        assert "kept" in made.holdfast("get", "/e2e/before")


@pytest.fixture(autouse=True)
def data_stays(cluster: Cluster) -> Iterator[None]:
    """After each test: the volumes are the same, the members are, the cluster serves, and says so truly."""
    before, members = _claims(cluster), cluster.members()
    yield
    cluster.wait_ready()
    cluster.pool_ready()
    assert before.items() <= _claims(cluster).items()
    assert cluster.members() == members
    for name in _claims(cluster).keys() - before.keys():
        assert name in cluster.row()["MESSAGE"], "a claim that nobody needs is deleted, or named"
        cluster.kubectl("delete", "pvc", name)


def _claims(cluster: Cluster) -> dict[str, str]:
    return {**cluster.claim_uids(VOTERS), **cluster.claim_uids(REPLICAS)}


def _uid(cluster: Cluster, what: str) -> str:
    return cluster.kubectl("get", what, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")


def _is_back(cluster: Cluster, what: str, but: str) -> None:
    """Wait until there is another object of this name than the one with the uid `but`."""
    eventually(f"{what} is back", lambda: _uid(cluster, what) not in ("", but), SECONDS)


def test_drift_children_are_deleted(cluster: Cluster) -> None:
    pods = cluster.pod_uids()
    for what in CHILDREN:
        before = _uid(cluster, what)
        cluster.kubectl("delete", what)
        _is_back(cluster, what, before)
    assert cluster.pod_uids() == pods


def test_drift_a_replicas_objects_are_deleted(cluster: Cluster) -> None:
    stateful = cluster.get("statefulset", "-l", f"holdfast.dev/cluster=shop,{REPLICAS}")["items"][0]
    name = stateful["metadata"]["name"]
    for what in (f"secret/{name}-tls", f"statefulset/{name}"):
        before = _uid(cluster, what)
        cluster.kubectl("delete", what)
        _is_back(cluster, what, before)


@pytest.mark.parametrize("cascade", ["orphan", "background", "foreground"])
def test_drift_the_statefulset_is_deleted(cluster: Cluster, cascade: str) -> None:
    pods, before = cluster.pod_uids(), _uid(cluster, "statefulset/shop-voter")
    cluster.kubectl("delete", "statefulset", "shop-voter", f"--cascade={cascade}", "--wait=false")
    began = time.monotonic()
    _is_back(cluster, "statefulset/shop-voter", before)
    if cascade == "orphan":
        assert cluster.pod_uids() == pods, "pods that were left alone have to stay"
    else:
        _not_ready_without_pods(cluster)
        cluster.wait_ready()
        print(f"   all voters are back {time.monotonic() - began:.1f} s after the deletion")


@pytest.mark.parametrize("replicas", [1, 5, 0])
def test_drift_the_statefulset_is_scaled(cluster: Cluster, replicas: int) -> None:
    cluster.kubectl("scale", "statefulset", "shop-voter", f"--replicas={replicas}")
    read = ("get", "statefulset", "shop-voter", "-o", "jsonpath={.spec.replicas}")
    eventually("the StatefulSet has its size again", lambda: cluster.kubectl(*read) == "3", SECONDS)
    _not_ready_without_pods(cluster)


def test_drift_fields_are_changed(cluster: Cluster) -> None:
    """A port of a Service, a disruption budget that allows too much, and a Secret with a strange key."""
    pods = cluster.pod_uids()
    cluster.kubectl("patch", "service", "shop-client", "--type=json", "-p", PORT)
    cluster.kubectl("patch", "pdb", "shop-voter", "--type=merge", "-p", '{"spec": {"minAvailable": 0}}')
    cluster.kubectl("patch", "secret", "shop-client-tls", "--type=merge", "-p", '{"data": {"tls.key": "bm9uZQ=="}}')
    port = ("get", "service", "shop-client", "-o", "jsonpath={.spec.ports[*].port}")
    least = ("get", "pdb", "shop-voter", "-o", "jsonpath={.spec.minAvailable}")
    key = ("get", "secret", "shop-client-tls", "-o", "jsonpath={.data.tls\\.key}")
    eventually("the Service has its port again", lambda: cluster.kubectl(*port) == "2379", SECONDS)
    eventually("the budget is as it was", lambda: cluster.kubectl(*least) == "2", SECONDS)
    eventually("the Secret has a key again", lambda: cluster.kubectl(*key) != "bm9uZQ==", SECONDS)
    assert cluster.pod_uids() == pods


PORT = '[{"op": "replace", "path": "/spec/ports/0/port", "value": 4711}]'


def test_drift_the_ca_is_deleted(cluster: Cluster) -> None:
    """The one object that cannot be made again: the operator asks for it, and goes on once it is restored."""
    saved: dict[str, Any] = cluster.get("secret", "shop-ca")
    for field in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
        saved["metadata"].pop(field, None)
    cluster.kubectl("delete", "secret", "shop-ca")
    try:
        cluster.wait_told("shop-ca")
        cluster.check_serves()
    finally:
        cluster.create(saved)


def _not_ready_without_pods(cluster: Cluster) -> None:
    """While a voter is missing, nobody is told for long that all is well."""

    def lies() -> bool:
        pods = [
            p for p in cluster.pods() if condition(p, "Ready") == "True" and "deletionTimestamp" not in p["metadata"]
        ]
        return len(pods) != 3 and cluster.said_ready()

    eventually("what is shown fits what there is", lambda: not lies(), NOTICED)
