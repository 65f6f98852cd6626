"""A spec with a mistake: the object says what is wrong in the pod's own words, and the corrected spec needs no help."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.clusters import Cluster, namespace

pytestmark = pytest.mark.timeout(1800)

MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "image": ({"version": "9.9.9"}, ("ErrImagePull", "ImagePullBackOff")),
    "resources": ({"resources": {"requests": {"cpu": "1000"}}}, ("Insufficient cpu",)),
}
CASES = [(voters, mistake) for voters in (1, 3) for mistake in MISTAKES]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, int, dict[str, Any], tuple[str, ...]]]:
    voters, mistake = request.param
    with namespace(f"typo-{voters}-{mistake}") as name:
        yield Cluster(name), voters, *MISTAKES[mistake]


def _corrected(cluster: Cluster, voters: int) -> None:
    began = time.monotonic()
    cluster.apply(voters)
    cluster.wait_ready()
    print(f"   {cluster.namespace}: ready {time.monotonic() - began:.1f} s after the correction")


def test_typo_at_birth(case: tuple[Cluster, int, dict[str, Any], tuple[str, ...]]) -> None:
    cluster, voters, mistake, words = case
    cluster.apply(voters, **mistake)
    message = cluster.wait_told(*words)
    assert "shop-voter" in message or "ordinal" in message, "it has to say which pod"
    assert cluster.row()["AVAILABLE"] == "False"
    _corrected(cluster, voters)


def test_typo_rolled_into_a_running_cluster(case: tuple[Cluster, int, dict[str, Any], tuple[str, ...]]) -> None:
    cluster, voters, mistake, words = case
    cluster.apply(voters)
    cluster.wait_ready()
    cluster.holdfast("put", "/e2e/before", "kept")
    members, pods = cluster.members(), cluster.pod_uids()
    cluster.apply(voters, **mistake)
    cluster.wait_told(*words)
    assert cluster.row()["AVAILABLE"] == ("True" if voters > 1 else "Unknown")
    assert len(set(cluster.pod_uids().items()) & set(pods.items())) == voters - 1, "the roll has to stop at one pod"
    if voters > 1:
        cluster.holdfast("put", "/e2e/meanwhile", "served", ordinal=2)
    _corrected(cluster, voters)
    assert cluster.members() == members
    assert "kept" in cluster.holdfast("get", "/e2e/before")
