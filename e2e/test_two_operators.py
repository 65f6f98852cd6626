"""Two operators work on the same cluster at once, as when Kubernetes starts one while the other's node is cut off."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from e2e.applications import Writer, provide_scripts
from e2e.clusters import SECOND_IMAGE, Cluster, namespace
from e2e.kubectl import kubectl
from e2e.nodes import CONTROL_PLANE

pytestmark = pytest.mark.timeout(1800)

OPERATOR = ("-n", "holdfast-system")
LONGEST_GAP = 5.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with namespace("two-operators") as name:
        made = Cluster(name)
        made.apply()
        made.wait_ready()
        provide_scripts(name)
        yield made


@pytest.fixture
def two_operators() -> Iterator[None]:
    """Two, then one again."""
    for count in ("2", "1"):
        kubectl(*OPERATOR, "scale", "deployment/holdfast-operator", f"--replicas={count}")
        kubectl(*OPERATOR, "rollout", "status", "deployment/holdfast-operator", "--timeout=120s", seconds=150)
        if count == "2":
            yield


def _log() -> str:
    """What both operators said."""
    label = "app.kubernetes.io/name=holdfast-operator"
    return kubectl(*OPERATOR, "logs", "-l", label, "--tail=-1", "--prefix", "--since=10m")


@pytest.mark.usefixtures("two_operators")
def test_two_operators(cluster: Cluster) -> None:
    writer = Writer("writer", cluster, CONTROL_PLANE)
    members, pods, claims = cluster.members(), cluster.pod_uids(), cluster.claim_uids()
    began = time.monotonic()
    cluster.patch({"voters": {"replicas": 5}})
    cluster.wait_ready()
    assert members.items() <= cluster.members().items()
    assert pods.items() <= cluster.pod_uids().items(), "growing replaces no pod"
    cluster.patch({"image": SECOND_IMAGE, "voters": {"replicas": 3}})
    cluster.wait_ready()
    print(f"   grown, rolled and reduced in {time.monotonic() - began:.1f} s")
    assert cluster.members() == members
    assert cluster.claim_uids() == claims
    assert {p["spec"]["containers"][0]["image"] for p in cluster.pods()} == {SECOND_IMAGE}
    gap = writer.longest_gap()
    print(f"   {len(writer.stop())} writes acknowledged, none lost; longest gap {gap:.2f} s")
    assert gap < LONGEST_GAP
    at_work = {line.split("]")[0] for line in _log().splitlines() if f"{cluster.namespace}/" in line}
    assert len(at_work) == 2, f"both operators have to act for this to prove anything: {at_work}"
