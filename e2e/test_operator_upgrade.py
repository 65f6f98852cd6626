"""An upgrade of the operator replaces no pod, whatever its defaults are, until the cluster's own spec asks for another
version."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from e2e.clusters import IMAGE, REPLICAS, SECOND_IMAGE, SHOP, VOTERS, Cluster, namespace
from e2e.kubectl import ROOT, eventually, install, kubectl, on_node
from e2e.nodes import nodes

pytestmark = pytest.mark.timeout(1800)

OPERATOR = ("-n", "holdfast-system")
REPOSITORY = "registry.example/team/holdfast"
RENDERING = "operator/holdfast_operator/resources/rendering.py"
# What the next release could bring: other default resources, as one more version of the rendering.
NEXT_RENDERING = """
from dataclasses import replace as _replace

NEWEST = NEWEST + 1
_DEFAULTS[NEWEST] = _replace(
    _DEFAULTS[NEWEST - 1],
    voter_resources=Resources(requests={"cpu": "60m", "memory": "128Mi"}, limits={"memory": "512Mi"}),
    replica_resources=Resources(requests={"cpu": "20m", "memory": "96Mi"}, limits={"memory": "384Mi"}),
)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with namespace("operator-upgrade") as name:
        made = Cluster(name)
        made.apply()
        made.kubectl("apply", "-f", "-", stdin=made.pool())
        made.wait_ready()
        made.pool_ready()
        try:
            yield made
        finally:
            _restore_operator()


@pytest.fixture(scope="module", autouse=True)
def mirrored() -> None:
    """The images under the names that they have in another registry, which a node without a network cannot ask."""
    for node in nodes("cloud") + nodes("edge"):
        for image in (IMAGE, SECOND_IMAGE):
            there = f"docker.io/library/{image}"
            on_node(node, "ctr", "-n", "k8s.io", "images", "tag", "--force", there, _elsewhere(image))


def _elsewhere(image: str) -> str:
    return f"{REPOSITORY}:{image.rpartition(':')[2]}"


def _pods(cluster: Cluster) -> dict[str, str]:
    """The uids of all pods of clusters."""
    own = {**cluster.pod_uids(VOTERS), **cluster.pod_uids(REPLICAS)}
    return {**own, **{f"default/{name}": uid for name, uid in SHOP.pod_uids("holdfast.dev/component").items()}}


def _has_worked(cluster: Cluster) -> None:
    """Wait until the new operator has put something back, and so has seen the whole cluster."""
    cluster.kubectl("delete", "service", "shop-edge")
    uid = ("get", "service", "shop-edge", "--ignore-not-found", "-o", "name")
    eventually("the new operator works", lambda: cluster.kubectl(*uid))


def _upgrade_rendering() -> None:
    """Give the operator that runs one more version of the rendering."""
    code = "import holdfast_operator.resources.rendering as r; print(r.__file__)"
    path = kubectl(*OPERATOR, "exec", "deploy/holdfast-operator", "--", "python3", "-c", code).strip()
    text = (ROOT / RENDERING).read_text() + NEXT_RENDERING
    kubectl(*OPERATOR, "delete", "configmap", "next", "--ignore-not-found")
    kubectl(*OPERATOR, "create", "configmap", "next", f"--from-literal=rendering.py={text}")
    mount = {"name": "next", "mountPath": path, "subPath": "rendering.py"}
    part = {
        "volumes": [{"name": "next", "configMap": {"name": "next"}}],
        "containers": [{"name": "operator", "volumeMounts": [mount]}],
    }
    changed = json.dumps({"spec": {"template": {"spec": part}}})
    kubectl(*OPERATOR, "patch", "deployment", "holdfast-operator", "-p", changed)
    kubectl(*OPERATOR, "rollout", "status", "deployment/holdfast-operator", "--timeout=120s", seconds=150)


def _restore_operator() -> None:
    """The operator of the other tests. Helm would keep what was patched."""
    kubectl(*OPERATOR, "delete", "deployment", "holdfast-operator", "--ignore-not-found")
    install()


def test_operator_upgrade_with_another_registry(cluster: Cluster) -> None:
    before, rollout = _pods(cluster), cluster.object()["status"]["rollout"]
    install("--set", f"image.repository={REPOSITORY}")
    image = ("get", "deployment", "holdfast-operator", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
    assert kubectl(*OPERATOR, *image) == _elsewhere(IMAGE)
    _has_worked(cluster)
    cluster.wait_ready()
    cluster.pool_ready()
    assert _pods(cluster) == before
    assert cluster.object()["status"]["rollout"] == rollout


def test_operator_upgrade_with_a_newer_rendering(cluster: Cluster) -> None:
    before, rollout = _pods(cluster), cluster.object()["status"]["rollout"]
    _upgrade_rendering()
    _has_worked(cluster)
    cluster.wait_ready()
    cluster.pool_ready()
    assert _pods(cluster) == before
    assert cluster.object()["status"]["rollout"] == rollout


def test_operator_upgrade_comes_with_the_next_version(cluster: Cluster) -> None:
    before, rollout = _pods(cluster), cluster.object()["status"]["rollout"]
    began = time.monotonic()
    cluster.patch({"version": SECOND_IMAGE.rpartition(":")[2]})
    cluster.wait_ready()

    def replaced() -> bool:
        pods = cluster.pods(REPLICAS)
        return {p["spec"]["containers"][0]["image"] for p in pods} == {_elsewhere(SECOND_IMAGE)}

    eventually("the pool follows", replaced)
    cluster.pool_ready()
    print(f"   rolled to the next rendering in {time.monotonic() - began:.1f} s")
    now = cluster.object()["status"]["rollout"]
    assert now["rendering"] == rollout["rendering"] + 1
    assert now["image"] == _elsewhere(SECOND_IMAGE)
    requests = {p["spec"]["containers"][0]["resources"]["requests"]["cpu"] for p in cluster.pods()}
    assert requests == {"60m"}
    after = _pods(cluster)
    assert {name for name, uid in after.items() if before[name] == uid} == {
        name for name in before if name.startswith("default/")
    }, "all pods of this cluster are new, and no others"


def test_operator_upgrade_undone_says_so(cluster: Cluster) -> None:
    """The older operator cannot make such pods: it says so, and touches none."""
    before = _pods(cluster)
    _restore_operator()
    cluster.wait_told("newer operator")
    assert _pods(cluster) == before
    cluster.check_serves()
