"""An operator's upgrade changes no pod: what was rendered once is rendered so for ever, and renderings are latched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from holdfast_operator.model.cluster import ClusterSpec, ClusterStatus, RolloutStatus
from holdfast_operator.model.pool import PoolSpec
from holdfast_operator.resources import cluster, pool, rendering
from holdfast_operator.resources.common import template_of

from tests.resources.cases import CLUSTER, IMAGE, POOL, POOLS, VOTERS

OURS = "registry.example/holdfast"


def rendered(version: int) -> dict[str, Any]:
    shop = ClusterSpec.model_validate(VOTERS["plain"])
    relays = PoolSpec.model_validate({**POOLS["plain"], "relaysPerSite": 2})
    return {
        "voters": {
            name: cluster.voters(CLUSTER, ClusterSpec.model_validate(spec), IMAGE, 3, version)
            for name, spec in VOTERS.items()
        },
        "replicas": {
            name: pool.replicas(POOL, PoolSpec.model_validate(spec), shop, IMAGE, 3, version)
            for name, spec in POOLS.items()
        },
        "replica": {
            name: pool.replica(POOL, PoolSpec.model_validate(spec), shop, IMAGE, "edge-1.example", version)
            for name, spec in POOLS.items()
        },
        "relays": {
            role: pool.replica(POOL, relays, shop, IMAGE, "edge-1.example", version, relay=role == "relay")
            for role in ("relay", "below")
        },
    }


@pytest.mark.parametrize("version", range(rendering.OLDEST, rendering.NEWEST + 1))
def test_a_rendering_never_changes(version: int) -> None:
    """If this fails, every pod of every cluster would be replaced by an upgrade of the operator: add a new version to
    resources/rendering.py. For a new version: print `rendered(version)` into its file."""
    golden = json.loads((Path(__file__).parent / f"rendering{version}.json").read_text())
    assert json.loads(json.dumps(rendered(version))) == golden


def test_without_a_rendering_it_is_the_first_one() -> None:
    spec = ClusterSpec.model_validate(VOTERS["plain"])
    assert cluster.voters(CLUSTER, spec, IMAGE, 3) == cluster.voters(CLUSTER, spec, IMAGE, 3, 1)
    assert cluster.voter_template("shop", "default", spec, IMAGE) == template_of(
        cluster.voters(CLUSTER, spec, IMAGE, 3)
    )
    assert cluster.voter_template("shop", "default", spec, IMAGE, 2) != cluster.voter_template(
        "shop", "default", spec, IMAGE, 1
    )


# ---- latching ----------------------------------------------------------------------------------------------


def spec(version: str = "0.2.0", image: str | None = None, **more: Any) -> ClusterSpec:
    return ClusterSpec.model_validate({"version": version, "image": image, **more})


def latched_status(version: int = 1, image: str = IMAGE, spec_image: str | None = None) -> ClusterStatus:
    rollout = RolloutStatus(version="0.2.0", specImage=spec_image, image=image, rendering=version)
    return ClusterStatus(bootstrapped=True, rollout=rollout)


def test_a_new_cluster_gets_the_newest() -> None:
    found = rendering.latched(spec(), ClusterStatus(), None, OURS)
    assert found == RolloutStatus(version="0.2.0", image=f"{OURS}:0.2.0", rendering=rendering.NEWEST)


@pytest.mark.parametrize("live", [None, IMAGE, "another/registry:0.2.0"])
def test_another_registry_or_renderer_of_the_operator_changes_nothing(live: str | None) -> None:
    before = latched_status()
    changed = spec(voters={"replicas": 5, "resources": {"limits": {"memory": "1Gi"}}})
    assert rendering.latched(changed, before, live, "moved.example/holdfast") == before.rollout


def test_another_version_or_image_gets_the_newest() -> None:
    newer = rendering.latched(spec("0.3.0"), latched_status(), IMAGE, "moved.example/holdfast")
    assert newer == RolloutStatus(version="0.3.0", image="moved.example/holdfast:0.3.0", rendering=rendering.NEWEST)
    own = rendering.latched(spec("0.2.0", "own/image:1"), latched_status(), IMAGE, OURS)
    assert own == RolloutStatus(
        version="0.2.0", specImage="own/image:1", image="own/image:1", rendering=rendering.NEWEST
    )
    back = rendering.latched(spec(), latched_status(1, "own/image:1", "own/image:1"), "own/image:1", OURS)
    assert (back.image, back.rendering) == (f"{OURS}:0.2.0", rendering.NEWEST)


def test_a_latched_rollout_is_kept_in_the_following_passes() -> None:
    first = rendering.latched(spec("0.3.0"), latched_status(), IMAGE, OURS)
    again = ClusterStatus(bootstrapped=True, rollout=first)
    assert rendering.latched(spec("0.3.0"), again, IMAGE, "moved.example/holdfast") == first


@pytest.mark.parametrize(
    ("live", "wanted", "image", "version"),
    [
        ("old.example:5000/holdfast:0.2.0", spec(), "old.example:5000/holdfast:0.2.0", 1),
        ("own/image:1", spec(image="own/image:1"), "own/image:1", 1),
        ("own/image@sha256:abc", spec("", "own/image@sha256:abc"), "own/image@sha256:abc", 1),
        (None, spec(), f"{OURS}:0.2.0", 1),
        # Both the operator and the version were changed while no operator ran: that must not be forgotten.
        ("old.example/holdfast:0.1.0", spec(), f"{OURS}:0.2.0", rendering.NEWEST),
        ("own/image:1", spec(image="own/image:2"), "own/image:2", rendering.NEWEST),
    ],
)
def test_a_cluster_of_an_earlier_operator_keeps_its_pods(
    live: str | None, wanted: ClusterSpec, image: str, version: int
) -> None:
    found = rendering.latched(wanted, ClusterStatus(bootstrapped=True), live, OURS)
    assert (found.image, found.rendering) == (image, version)


def test_a_rendering_of_a_newer_operator_is_no_guess() -> None:
    with pytest.raises(rendering.UnknownRendering, match="rendering 99; this one knows 1 to"):
        rendering.latched(spec(), latched_status(99), IMAGE, OURS)
    with pytest.raises(rendering.UnknownRendering):
        cluster.voter_pod("shop", "default", spec(), IMAGE, 99)
