"""The cluster that `e2e/cluster up` made, with the operator installed by Helm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.applications import provide_scripts
from e2e.kubectl import install, kubectl

FIRST, LAST = ("test_datastore.py", "test_shop.py"), ("test_audit.py",)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """The way of the README comes first; what looks back at all requests of the operator comes last."""

    def place(item: Any) -> int:
        return -1 if item.path.name in FIRST else 1 if item.path.name in LAST else 0

    items.sort(key=place)  # stable: the order within a file, and that of the others, stays


@pytest.fixture(scope="session", autouse=True)
def installed() -> Iterator[None]:
    """helm install, kubectl apply: as the README says."""
    install()
    kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    kubectl("apply", "-f", "manifests/samples/shop.yaml")
    provide_scripts()
    yield
    print(kubectl("get", "hfc,hfep,hfcfg,pods", "-o", "wide", check=False))
    print(kubectl("-n", "holdfast-system", "logs", "deploy/holdfast-operator", "--tail=60", check=False))
