"""Objects of a newer CRD are understood as far as they are known; what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from holdfast_operator.model import overlay
from holdfast_operator.model.cells import CellsSpec
from holdfast_operator.model.cluster import ClusterSpec, ClusterStatus
from holdfast_operator.model.common import Model, PodFields
from holdfast_operator.model.config import ConfigSpec
from holdfast_operator.model.parse import InvalidSpec, parse, parse_status
from holdfast_operator.model.pool import PoolSpec

SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"


def cluster(**spec: Any) -> dict[str, Any]:
    return {"spec": {"version": "1", **spec}}


def test_unknown_fields_are_ignored_and_reported() -> None:
    obj = cluster(
        flavour="new",
        voters={
            "replicas": 5,
            "disk": {"kind": "fast"},
            "placement": {"tolerations": [{"key": "a"}, {"key": "b", "until": 3}]},
        },
    )
    parsed = parse(ClusterSpec, obj)
    assert parsed.unknown == ("spec.flavour", "spec.voters.disk", "spec.voters.placement.tolerations[1].until")
    assert parsed.spec.voters.replicas == 5
    assert [t.key for t in parsed.spec.voters.placement.tolerations or []] == ["a", "b"]
    assert obj["spec"]["flavour"] == "new"  # the object itself is not changed


def test_what_is_known_has_none() -> None:
    assert parse(ClusterSpec, cluster()).unknown == ()


def test_what_is_wrong_is_named_beside_what_is_unknown() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse(ClusterSpec, cluster(flavour=1, voters={"replicas": 4, "storage": {"size": "much"}}))
    message = str(caught.value)
    assert "spec.voters.replicas: Input should be 1, 3, 5 or 7 (it is 4)" in message
    assert "spec.voters.storage.size" in message
    assert "flavour" not in message


@pytest.mark.parametrize("obj", [{}, {"spec": None}, {"spec": []}, {"spec": "text"}])
def test_no_spec_is_said(obj: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec, match="spec is missing"):
        parse(ClusterSpec, obj)


def test_long_values_are_not_repeated() -> None:
    secret = "s" * 100_000
    with pytest.raises(InvalidSpec) as caught:
        parse(ConfigSpec, {"spec": {"clusterRef": {"name": "a"}, "prefix": "/a/", "data": {"k": secret}}})
    assert "spec.data.k" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_statuses_of_another_operator_are_read() -> None:
    status = {
        "bootstrapped": True,
        "mood": "fine",
        "rollout": {"version": "1", "image": "i:1", "rendering": 1, "more": {}},
    }
    found = parse_status(ClusterStatus, {"spec": {}, "status": status})
    assert found.bootstrapped
    assert found.rollout is not None
    assert found.rollout.image == "i:1"
    assert parse_status(ClusterStatus, {"spec": {}}) == ClusterStatus()


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"nodeName": "n"}, "nodeName cannot be set here: it belongs to the operator"),
        ({"tolerations": []}, "use placement.tolerations"),
        ({"containers": [{"name": "holdfast", "args": []}]}, r"containers\[holdfast\].args cannot be set here"),
        ({"containers": [{"name": "holdfast", "readinessProbe": None}]}, "disruption budgets"),
        ({"containers": [{"name": "holdfast", "resources": {}}]}, "use the field resources"),
        ({"containers": [{"image": "i"}]}, "containers has to be a list of objects with name"),
        ({"containers": None}, "containers has to be a list"),
        ({"containers": [{"name": "a"}, {"name": "a"}]}, "containers has 'a' twice"),
        ({"containers": [{"name": "holdfast", "env": [{"name": "POD_NAME", "value": "x"}]}]}, r"env\[POD_NAME\]"),
        ({"volumes": [{"name": "data", "emptyDir": {}}]}, r"volumes\[data\]: this volume belongs to the operator"),
        ({"securityContext": {"runAsNonRoot": False}}, "never runs as root"),
        ({"securityContext": {"runAsNonRoot": None}}, "never runs as root"),
        ({"securityContext": {"runAsUser": 0}}, "never runs as root"),
        ({"securityContext": None}, "it cannot be removed"),
        ({"containers": [{"name": "holdfast", "securityContext": {"privileged": True}}]}, "needs no privileges"),
        ({"containers": [{"$patch": "delete", "name": "holdfast"}]}, r"\$patch: directives are not supported"),
        *(
            (
                {"containers": [{"name": "holdfast", "volumeMounts": [{"name": "v", "mountPath": path}]}]},
                "it covers a directory of holdfast",
            )
            for path in ("/", "/var", "/var/lib/holdfast/data", "/etc/holdfast", "/tmp", "/tmp/../etc/holdfast/tls")
        ),
    ],
)
def test_an_overlay_leaves_to_the_operator_what_it_relies_on(overlay: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message) as caught:
        parse(ClusterSpec, cluster(voters={"podOverlay": overlay}))
    assert str(caught.value).startswith("spec.voters.podOverlay: ")


def test_replicas_are_bound_to_their_nodes() -> None:
    spec = {"clusterRef": {"name": "a"}, "placement": {"nodeSelector": {}}, "prefixes": ["/"]}
    with pytest.raises(InvalidSpec, match="affinity cannot be set here"):
        parse(PoolSpec, {"spec": {**spec, "podOverlay": {"affinity": {}}}})
    parse(ClusterSpec, cluster(voters={"podOverlay": {"affinity": {}}}))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("relaysPerSite", 9, "spec.relaysPerSite: Input should be less than or equal to 8 (it is 9)"),
        ("relaysPerSite", -1, "spec.relaysPerSite: Input should be greater than or equal to 0 (it is -1)"),
        (
            "stalenessTargetSeconds",
            0,
            "spec.stalenessTargetSeconds: Input should be greater than or equal to 1 (it is 0)",
        ),
        ("stalenessTargetSeconds", 86401, "spec.stalenessTargetSeconds: Input should be less than or equal to 86400"),
        ("offline", [{"prefix": "x", "policy": "Serve"}], "offline: x begins with none of the prefixes"),
        ("offline", [{"prefix": "/a", "policy": "ServeUntil"}], "seconds are given for the policy ServeUntil"),
        ("offline", [{"prefix": "/a", "policy": "Serve", "seconds": 5}], "seconds are given for the policy ServeUntil"),
    ],
)
def test_values_of_a_pool_have_limits(field: str, value: object, message: str) -> None:
    spec = {"clusterRef": {"name": "a"}, "placement": {"nodeSelector": {}}, "prefixes": ["/"]}
    with pytest.raises(InvalidSpec) as caught:
        parse(PoolSpec, {"spec": {**spec, field: value}})
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["holdfast.dev/cluster", "x.holdfast.dev/a", "app.kubernetes.io/name"])
def test_labels_of_the_operator_cannot_be_set(key: str) -> None:
    with pytest.raises(InvalidSpec, match="belongs to the operator"):
        parse(ClusterSpec, cluster(voters={"podLabels": {key: "x"}}))
    parse(ClusterSpec, cluster(voters={"podLabels": {"team": "shop", "nholdfast.dev/a": "b"}}))


def test_the_overlay_refuses_each_part_of_the_pod_that_has_a_field_of_its_own() -> None:
    """Or the overlay would silently win over the field."""
    for name in set(PodFields.model_fields) - {"podLabels", "podAnnotations", "podOverlay"}:
        with pytest.raises(ValueError, match=f"use the field {name}"):
            overlay.checked({name: "x"})


@pytest.mark.parametrize("file", sorted(SAMPLES.glob("*.yaml")), ids=lambda file: str(file.name))
def test_the_samples_are_understood(file: Path) -> None:
    models: dict[str, type[Model]] = {
        "HoldfastCluster": ClusterSpec,
        "HoldfastEdgePool": PoolSpec,
        "HoldfastConfig": ConfigSpec,
        "HoldfastCells": CellsSpec,
    }
    for obj in yaml.safe_load_all(file.read_text()):
        if obj["apiVersion"].startswith("holdfast.dev/"):
            assert parse(models[obj["kind"]], obj).unknown == ()
