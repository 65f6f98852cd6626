"""`holdfast operator plan` against the real API server and real members, from outside the cluster."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from e2e.kubectl import KUBECONFIG, get, run

Object = dict[str, Any]


def plan(path: Path, cluster: Object) -> str:
    path.write_text(json.dumps(cluster))  # JSON is YAML
    command = [sys.executable, "-m", "holdfast", "operator", "plan", "-f", str(path), "--kubeconfig", KUBECONFIG]
    return run(*command)


def versions() -> dict[str, str]:
    """The resource version of everything that a plan could change."""
    kinds = "hfc,statefulsets,services,pvc,pdb,secrets"
    return {f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in get(kinds)["items"]}


def test_plan_shows_the_next_step_and_changes_nothing(tmp_path: Path) -> None:
    live = get("hfc", "shop")
    before = versions()
    wanted = {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": live["spec"],
    }
    settled = plan(tmp_path / "shop.yaml", wanted)
    assert "would do nothing now (AsWanted)" in settled
    assert "would change" not in settled
    more = plan(
        tmp_path / "shop.yaml",
        {**wanted, "spec": {**live["spec"], "voters": {**live["spec"]["voters"], "replicas": 5}}},
    )
    assert "would change the StatefulSet shop-voter: " in more
    assert "spec.replicas: 3 → 5" in more
    fresh = plan(tmp_path / "shop.yaml", {**wanted, "metadata": {"name": "bank", "namespace": "default"}})
    assert "would create the StatefulSet bank-voter" in fresh
    refused = {**live["spec"], "voters": {**live["spec"]["voters"], "replicas": 4}}
    path = tmp_path / "even.yaml"
    path.write_text(json.dumps({**wanted, "spec": refused}))
    words = [sys.executable, "-m", "holdfast", "operator", "plan", "-f", str(path), "--kubeconfig", KUBECONFIG]
    assert "nothing was changed" not in run(*words, check=False), "an even number of voters is refused"
    assert versions() == before
