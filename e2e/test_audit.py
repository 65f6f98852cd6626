"""What the operator asks of the API server: next to nothing of a settled cluster, and nothing that it may not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from e2e import audit
from e2e.applications import application, provide_scripts
from e2e.clusters import Cluster, namespace
from e2e.kubectl import CALM, eventually, get, install, kubectl, lines
from e2e.nodes import CONTROL_PLANE

pytestmark = pytest.mark.timeout(1800)

SECONDS = int(os.environ.get("AUDIT_SECONDS", "60"))
WRITES = 1000  # a second, or as many as the machine does
MOST_REQUESTS = 0.5  # a second, for one cluster with a pool and a configuration
ROLE = "holdfast-system:holdfast-operator"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The only cluster there is."""
    kubectl("delete", "hfcfg,hfep,hfc", "--all", "--all-namespaces", seconds=CALM)
    eventually("the namespaces of other tests are gone", lambda: not _leaving(), CALM)
    with namespace("audit") as name:
        made = _complete(name)
        provide_scripts(name)
        yield made


def _complete(name: str) -> Cluster:
    """A cluster with a pool and a configuration, all Ready."""
    made = Cluster(name)
    made.apply()
    made.kubectl("apply", "-f", "-", stdin=made.pool())
    made.kubectl("apply", "-f", "-", stdin=made.config({"payment.yaml": "provider: acme"}))
    made.wait_ready()
    made.pool_ready()
    made.config_ready()
    return made


def _leaving() -> list[str]:
    return [n["metadata"]["name"] for n in get("namespaces")["items"] if n["status"]["phase"] == "Terminating"]


def test_audit_of_a_settled_cluster_under_load(cluster: Cluster) -> None:
    endpoint = f"shop-client.{cluster.namespace}.svc:2379"
    application("load", "load.py", [endpoint, str(WRITES), str(SECONDS)], CONTROL_PLANE, cluster)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/load", "--timeout=60s")
    began, version = datetime.now(UTC), cluster.object()["metadata"]["resourceVersion"]
    written = eventually("the load has ended", lambda: lines(cluster.kubectl("logs", "load")), SECONDS + 60)[-1]
    ended = datetime.now(UTC)
    asked = [r for r in audit.requests() if began <= r.at <= ended]
    seconds = (ended - began).total_seconds()
    rate = sum(not r.watches for r in asked) / seconds
    print(f"   {written['acknowledged'] / written['seconds']:.0f} writes a second, {written['failed']} failed")
    print(f"   {rate:.2f} requests a second in {seconds:.0f} s: {dict(audit.counted(asked))}")
    assert written["acknowledged"] > 0
    changing = [str(r) for r in asked if r.verb not in ("get", "list", "watch")]
    assert not changing, "a cluster that is as wanted costs no write"
    assert cluster.object()["metadata"]["resourceVersion"] == version
    assert rate < MOST_REQUESTS
    cluster.wait_ready()


def test_audit_of_permissions(request: pytest.FixtureRequest) -> None:
    """Of the whole run: nothing was refused, and what is granted is used."""
    asked = audit.requests()
    refused = audit.counted(r for r in asked if r.refused)
    used = set(audit.counted(r for r in asked if not r.refused))
    granted = audit.granted("clusterrole", ROLE)
    unused = granted - used - set(_SELDOM)
    print(f"   {len(asked)} requests since the API server began")
    print(f"   granted and never used: {', '.join(sorted(unused)) or 'nothing'}")
    assert not refused, f"not allowed: {dict(refused)}"
    assert used <= granted | _of_every_account()
    if _all_tests_ran(request):
        assert not unused


def test_audit_of_permissions_in_one_namespace(cluster: Cluster) -> None:
    """With watchNamespaces the operator has rights there and nowhere else, and they suffice."""
    with namespace("narrow") as name:
        began = datetime.now(UTC)
        install("--set", f"watchNamespaces={{{name}}}")
        _complete(name)
        asked = [r for r in audit.requests() if r.at >= began and r.namespace in ("", name)]
        granted = audit.granted("clusterrole", ROLE) | audit.granted("role", ROLE, "-n", name)
    install()
    refused = audit.counted(r for r in asked if r.refused)
    assert not refused, f"not allowed: {dict(refused)}"
    assert {str(r) for r in asked} <= granted | _of_every_account()
    assert "list holdfastclusters.holdfast.dev" in {str(r) for r in asked}


# What is granted for what no test here does, with the reason.
_SELDOM = {
    "get persistentvolumes": "whether a voter's volume was on a node that is gone",
    "update holdfastclusters/finalizers.holdfast.dev": "checked by the plug-in OwnerReferencesPermissionEnforcement",
    "update holdfastedgepools/finalizers.holdfast.dev": "checked by the plug-in OwnerReferencesPermissionEnforcement",
    "update holdfastcells/finalizers.holdfast.dev": "checked by the plug-in OwnerReferencesPermissionEnforcement",
}


def _all_tests_ran(request: pytest.FixtureRequest) -> bool:
    ran = {item.path.name for item in request.session.items}
    return ran >= {path.name for path in Path(__file__).parent.glob("test_*.py")}


def _of_every_account() -> set[str]:
    """Rights that the role does not grant: those of every account, and those that only watchNamespaces needs."""
    return {"create selfsubjectaccessreviews.authorization.k8s.io", "list namespaces", "watch namespaces"}
