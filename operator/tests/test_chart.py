"""The chart, as Helm renders it: names of two releases, rights in both modes, odd names of namespaces.

What the chart looks up in an API server is not tested here: `helm template` finds nothing there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
CACHE = Path(os.environ.get("HOLDFAST_CACHE", Path.home() / ".cache/holdfast"))
HELM = shutil.which("helm", path=f"{CACHE / 'bin'}:{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(HELM is None, reason="there is no helm; make e2e builds it")

WATCHED = ["secrets", "pods", "persistentvolumeclaims", "services", "statefulsets", "poddisruptionbudgets"]
Object = dict[str, Any]


def rendered(release: str, namespace: str, *namespaces: str) -> list[Object]:
    values = ["--set-json", f"watchNamespaces={list(namespaces)}".replace("'", '"')]
    command = [str(HELM), "template", release, str(ROOT / "charts/holdfast"), "-n", namespace, *values]
    made = subprocess.run([*command, "--kube-version", "1.34.0"], check=True, capture_output=True, text=True).stdout
    return [obj for obj in yaml.safe_load_all(made) if obj]


def rights(objects: list[Object], kind: str) -> dict[str, set[str]]:
    """The verbs for each resource, over all rules of the first object of the kind."""
    found: dict[str, set[str]] = {}
    role = next(o for o in objects if o["kind"] == kind)
    for rule in role["rules"]:
        for resource in rule["resources"]:
            found.setdefault(resource, set()).update(rule["verbs"])
    return found


@pytest.mark.parametrize(("namespaces", "kind"), [((), "ClusterRole"), (("shop",), "Role")])
def test_the_operator_may_do_what_it_does_and_no_more(namespaces: tuple[str, ...], kind: str) -> None:
    granted = rights(rendered("holdfast", "system", *namespaces), kind)
    for resource in WATCHED:
        assert granted[resource] >= {"list", "watch"}
    for resource in ("pods", "persistentvolumeclaims", "statefulsets", "poddisruptionbudgets"):
        assert "delete" in granted[resource]
    for resource in ("services", "statefulsets", "poddisruptionbudgets"):
        assert granted[resource] >= {"create", "patch"}
    assert "update" in granted["services"]  # one whose ports were changed by hand is replaced: see objects.py
    assert granted["pods/eviction"] == {"create"}
    assert granted["secrets"] == {"get", "list", "watch", "create", "patch", "delete"}
    assert granted["deployments"] == {"get", "list", "watch", "create", "patch"}
    assert granted["holdfastcells"] == {"get", "list", "watch"}
    assert granted["holdfastcells/status"] == {"update"}
    assert not any("*" in verbs for verbs in granted.values())
    assert "create" not in granted["pods"]


def test_with_namespaces_nothing_is_granted_beyond_them() -> None:
    objects = rendered("holdfast", "system", "shop", "bank")
    assert rights(objects, "ClusterRole") == {
        "customresourcedefinitions": {"list", "watch"},
        "namespaces": {"list", "watch"},
        "nodes": {"get", "list", "watch"},
        "persistentvolumes": {"get"},
    }
    assert [o["metadata"]["namespace"] for o in objects if o["kind"] == "Role"] == ["shop", "bank"]
    assert [o["metadata"]["namespace"] for o in objects if o["kind"] == "RoleBinding"] == ["shop", "bank"]


@pytest.mark.parametrize("other", [("b", "one"), ("a", "two")])
def test_two_releases_share_no_name(other: tuple[str, str]) -> None:
    names = [
        {
            (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"])
            for o in rendered(release, namespace, "shop")
            if o["kind"] != "CustomResourceDefinition"
        }
        for release, namespace in (("a", "one"), other)
    ]
    assert not names[0] & names[1]


def test_names_that_yaml_takes_for_something_else() -> None:
    objects = rendered("on", "123", "y", "0x1f")
    assert {o["metadata"].get("namespace") for o in objects} == {"123", "y", "0x1f", None}
    (deployment,) = [o for o in objects if o["kind"] == "Deployment"]
    assert deployment["metadata"]["labels"]["app.kubernetes.io/instance"] == "on"


def test_the_operator_is_ready_when_it_watches_and_leaves_a_lost_node_soon() -> None:
    (deployment,) = [o for o in rendered("holdfast", "system") if o["kind"] == "Deployment"]
    assert deployment["metadata"]["name"] == "holdfast-operator"
    pod = deployment["spec"]["template"]["spec"]
    assert pod["containers"][0]["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert {t["key"]: t["tolerationSeconds"] for t in pod["tolerations"]} == {
        "node.kubernetes.io/not-ready": 30,
        "node.kubernetes.io/unreachable": 30,
    }


def test_crds_stay_when_the_release_goes() -> None:
    made = [o for o in rendered("holdfast", "system") if o["kind"] == "CustomResourceDefinition"]
    assert len(made) == 4
    assert {o["metadata"]["annotations"]["helm.sh/resource-policy"] for o in made} == {"keep"}
