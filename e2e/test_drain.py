"""Nodes are drained while a rolling upgrade goes on and a writer writes: no quorum is lost, and no write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.applications import Writer, provide_scripts
from e2e.clusters import IMAGE, NOTICED, SECOND_IMAGE, Cluster, namespace
from e2e.kubectl import condition, eventually
from e2e.nodes import CONTROL_PLANE, drained

pytestmark = pytest.mark.timeout(1800)

LONGEST_GAP = (
    5.0  # seconds: an election, on a machine that does much else. Without a quorum it would be a drain's length
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with namespace("drain") as name:
        made = Cluster(name)
        made.apply()
        made.wait_ready()
        provide_scripts(name)
        yield made


def _at(cluster: Cluster, pod: str) -> str:
    found: str = cluster.get("pod", pod)["spec"]["nodeName"]
    return found


def test_drain_during_a_rolling_upgrade(cluster: Cluster) -> None:
    writer = Writer("writer", cluster, CONTROL_PLANE)
    before, leader = cluster.pod_uids(), cluster.row()["LEADER"]
    follower = next(name for name in sorted(before, reverse=True) if name != leader)
    nodes = [_at(cluster, name) for name in (leader, follower)]
    for node, image in zip(nodes, (SECOND_IMAGE, IMAGE), strict=True):
        cluster.patch({"image": image})
        eventually("the upgrade is under way", lambda: condition(cluster.object(), "UpToDate") == "False", NOTICED)
        with drained(node):
            # The voter of this node waits for it: of three voters no two share a node.
            cluster.wait_told("ordinal", "Unschedulable", "unschedulable")
            assert cluster.row()["AVAILABLE"] == "True"
            writer.writes_on()
        cluster.wait_ready()
        assert {p["spec"]["containers"][0]["image"] for p in cluster.pods()} == {image}
    gap = writer.longest_gap()
    print(f"   {len(writer.stop())} writes acknowledged, none lost; longest gap {gap:.2f} s")
    assert gap < LONGEST_GAP, f"no write was acknowledged for {gap} s"
