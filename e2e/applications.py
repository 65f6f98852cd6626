"""Pods that use a cluster as applications do."""

from __future__ import annotations

from typing import Any

from e2e.clusters import IMAGE, SHOP, Cluster
from e2e.kubectl import ROOT, apply, eventually, lines, on_node


def provide_scripts(namespace: str = "default") -> None:
    """Bring e2e/apps into the namespace."""
    at = Cluster(namespace)
    scripts = [f"--from-file={path}" for path in sorted((ROOT / "e2e/apps").glob("*.py"))]
    apply(at.kubectl("create", "configmap", "apps", *scripts, "--dry-run=client", "-o", "yaml"))


def application(name: str, script: str, arguments: list[str], node: str = "", cluster: Cluster = SHOP) -> None:
    """A pod that runs one of e2e/apps with the client's certificates."""
    apply(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {cluster.namespace}, labels: {{app: {name}}}}}
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
  - {{name: tls, secret: {{secretName: {cluster.name}-client-tls}}}}
  - {{name: cache, emptyDir: {{}}}}
"""
    )


def said_on_node(node: str, name: str, namespace: str = "default") -> list[dict[str, Any]]:
    """What an application printed, read on its node: that works while the node is cut off."""
    text = on_node(node, "sh", "-c", f"cat /var/log/pods/{namespace}_{name}_*/app/*.log")
    return lines("\n".join(line.split(" ", 3)[-1] for line in text.splitlines()))


class Writer:
    """The writer pod, and what it says."""

    def __init__(self, name: str, cluster: Cluster = SHOP, node: str = "") -> None:
        self.name = name
        self.cluster = cluster
        endpoint = f"{cluster.name}-client.{cluster.namespace}.svc:2379"
        application(name, "writer.py", [endpoint, name], node, cluster)
        eventually(f"{name} writes", lambda: len(self.acknowledged()) > 5)

    def output(self) -> list[dict[str, Any]]:
        return lines(self.cluster.kubectl("logs", self.name))

    def acknowledged(self) -> list[dict[str, Any]]:
        return [line for line in self.output() if "acknowledged" in line]

    def longest_gap(self) -> float:
        return float(max(line["gap"] for line in self.acknowledged()))

    def writes_on(self) -> None:
        before = len(self.acknowledged())
        eventually(f"{self.name} goes on", lambda: len(self.acknowledged()) > before + 5)

    def stop(self) -> list[dict[str, Any]]:
        """End it and check that everything acknowledged is there, at every voter."""
        acknowledged = self.acknowledged()
        self.cluster.kubectl("delete", "pod", self.name, "--wait=false")
        for ordinal in range(self.cluster.object()["spec"]["voters"]["replicas"]):
            found = self.cluster.keys(ordinal, f"/e2e/{self.name}/")
            missing = [a["acknowledged"] for a in acknowledged if a["acknowledged"] not in found]
            assert not missing, f"voter {ordinal} lacks acknowledged writes: {missing[:5]}"
        return acknowledged
