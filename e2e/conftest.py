"""The cluster that `e2e/cluster up` made, with the operator installed by Helm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from holdfast import __version__

from e2e.kubectl import ROOT, apply, condition, eventually, get, kubectl, lines, run

IMAGE = f"holdfast:{__version__}"
SECOND_IMAGE = f"{IMAGE}-next"


@pytest.fixture(scope="session", autouse=True)
def installed() -> Iterator[None]:
    """helm install, kubectl apply: as the README says."""
    install = ["helm", "upgrade", "--install", "holdfast", "charts/holdfast", "-n", "holdfast-system"]
    # In the cloud: on an edge node it would be cut off with it.
    run(*install, "--create-namespace", "--wait", "--timeout", "180s", "-f", "e2e/operator-values.yaml")
    kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    kubectl("apply", "-f", "manifests/samples/shop.yaml")
    scripts = [f"--from-file={path}" for path in sorted((ROOT / "e2e/apps").glob("*.py"))]
    made = kubectl("create", "configmap", "apps", *scripts, "--dry-run=client", "-o", "yaml")
    apply(made)
    yield
    print(kubectl("get", "hfc,hfep,hfcfg,pods", "-o", "wide", check=False))
    print(kubectl("-n", "holdfast-system", "logs", "deploy/holdfast-operator", "--tail=60", check=False))


def application(name: str, script: str, arguments: list[str], node: str = "") -> None:
    """A pod that runs one of e2e/apps with the client's certificates."""
    apply(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  {f"nodeName: {node}" if node else ""}
  terminationGracePeriodSeconds: 1
  enableServiceLinks: false
  tolerations: [{{operator: Exists}}]
  securityContext: {{runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
  - name: app
    image: {IMAGE}
    command: [python3, /app/{script}, {", ".join(f"'{a}'" for a in arguments)}]
    env: [{{name: HOLDFAST_TLS_DIR, value: /tls}}]
    securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
    volumeMounts:
    - {{name: app, mountPath: /app}}
    - {{name: tls, mountPath: /tls}}
    - {{name: cache, mountPath: /cache}}
  volumes:
  - {{name: app, configMap: {{name: apps}}}}
  - {{name: tls, secret: {{secretName: shop-client-tls}}}}
  - {{name: cache, emptyDir: {{}}}}
"""
    )


class Writer:
    """The writer pod, and what it says."""

    def __init__(self, name: str) -> None:
        self.name = name
        application(name, "writer.py", ["shop-client.default.svc:2379", name])
        eventually(f"{name} writes", lambda: len(self.acknowledged()) > 5)

    def output(self) -> list[dict[str, Any]]:
        return lines(kubectl("logs", self.name))

    def acknowledged(self) -> list[dict[str, Any]]:
        return [line for line in self.output() if "acknowledged" in line]

    def longest_gap(self) -> float:
        return max(line["gap"] for line in self.acknowledged())

    def writes_on(self) -> None:
        before = len(self.acknowledged())
        eventually(f"{self.name} goes on", lambda: len(self.acknowledged()) > before + 5)

    def stop(self) -> list[dict[str, Any]]:
        """End it and check that everything acknowledged is there, at every voter."""
        acknowledged = self.acknowledged()
        kubectl("delete", "pod", self.name, "--wait=false")
        for ordinal in range(3):
            found = keys(ordinal, f"/e2e/{self.name}/")
            missing = [a["acknowledged"] for a in acknowledged if a["acknowledged"] not in found]
            assert not missing, f"voter {ordinal} lacks acknowledged writes: {missing[:5]}"
        return acknowledged


def keys(ordinal: int, prefix: str) -> set[str]:
    """What a voter has, asked from within its pod."""
    host = f"shop-voter-{ordinal}.shop-peers.default.svc:2379"
    words = ["exec", f"shop-voter-{ordinal}", "--", "holdfast", "get", prefix, "--prefix", "--keys-only"]
    out = kubectl(*words, "-o", "simple", "--endpoints", host, "--tls-dir", "/etc/holdfast/tls")
    return set(out.split())


def cluster() -> Any:
    return get("hfc", "shop")


def voters_ready(count: int) -> bool:
    found = cluster()
    members = found["status"]["members"]
    ready = [m for m in members if m["role"] == "voter" and m["ready"]]
    settled = (
        condition(found, "Progressing") == "False"
        and found["status"]["observedGeneration"] == found["metadata"]["generation"]
    )
    return len(ready) == len(members) == count and settled
