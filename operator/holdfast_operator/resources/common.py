"""Names, labels and pod pieces that clusters and pools share."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from holdfast_operator.model.common import API_VERSION, Resources, Storage, Toleration, dump

Object = dict[str, Any]

CLUSTER_LABEL = "holdfast.dev/cluster"
COMPONENT_LABEL = "holdfast.dev/component"
POOL_LABEL = "holdfast.dev/pool"
TEMPLATE_LABEL = "holdfast.dev/template"
CLIENT_PORT, PEER_PORT, METRICS_PORT = 2379, 2380, 2381
USER = 65532
DRAIN_SECONDS = 3


def voter_name(cluster: str, ordinal: int | None = None) -> str:
    return f"{cluster}-voter" if ordinal is None else f"{cluster}-voter-{ordinal}"


def ordinal_of(name: str, base: str) -> int:
    """The ordinal in a name such as base-3; -1 if it is not one."""
    head, _, tail = name.rpartition("-")
    return int(tail) if head == base and tail.isdigit() else -1


def peers_service(cluster: str) -> str:
    return f"{cluster}-peers"


def client_service(cluster: str) -> str:
    return f"{cluster}-client"


def peer_host(cluster: str, namespace: str, ordinal: int) -> str:
    return f"{voter_name(cluster, ordinal)}.{peers_service(cluster)}.{namespace}.svc"


def server_secret(cluster: str) -> str:
    return f"{cluster}-server-tls"


def peer_secret(cluster: str) -> str:
    return f"{cluster}-peer-tls"


def edge_secret(cluster: str) -> str:
    return f"{cluster}-edge-tls"


def client_secret(cluster: str) -> str:
    return f"{cluster}-client-tls"


def labels(cluster: str, component: str, pool: str = "") -> dict[str, str]:
    found = {
        "app.kubernetes.io/name": "holdfast",
        "app.kubernetes.io/managed-by": "holdfast-operator",
        CLUSTER_LABEL: cluster,
        COMPONENT_LABEL: component,
    }
    return {**found, POOL_LABEL: pool} if pool else found


def selector(cluster: str, component: str, pool: str = "") -> dict[str, str]:
    """The selector of a StatefulSet is immutable, so it contains only labels that never change."""
    found = {CLUSTER_LABEL: cluster, COMPONENT_LABEL: component}
    return {**found, POOL_LABEL: pool} if pool else found


def owner(obj: Object) -> list[Object]:
    meta = obj["metadata"]
    return [
        {
            "apiVersion": API_VERSION,
            "kind": obj["kind"],
            "name": meta["name"],
            "uid": meta["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def metadata(name: str, namespace: str, of: Object, labels_: dict[str, str]) -> Object:
    return {"name": name, "namespace": namespace, "labels": labels_, "ownerReferences": owner(of)}


def template_hash(template: Object) -> str:
    """Our own hash of what a pod is made from. A pod with a different hash is outdated."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:12]


def tolerations(wanted: list[Toleration] | None) -> list[Object]:
    return [dump(t) for t in wanted or []]


def container(name: str, image: str, arguments: list[str], resources: Resources | None, tls: bool) -> Object:
    """A holdfast process: unprivileged, root file system read-only, probed on the plain port."""
    mounts: list[Object] = [{"name": "data", "mountPath": "/var/lib/holdfast"}, {"name": "tmp", "mountPath": "/tmp"}]
    if tls:
        mounts.append({"name": "tls", "mountPath": "/etc/holdfast/tls", "readOnly": True})

    def probe(path: str, **more: int) -> Object:
        return {"httpGet": {"path": path, "port": METRICS_PORT}, **more}

    found: Object = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "ports": [
            {"name": "client", "containerPort": CLIENT_PORT},
            {"name": "peer", "containerPort": PEER_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "volumeMounts": mounts,
        # Recovery may take a while; the other probes begin when it has finished.
        "startupProbe": probe("/livez", periodSeconds=2, failureThreshold=150),
        "livenessProbe": probe("/livez", periodSeconds=10, timeoutSeconds=5, failureThreshold=6),
        "readinessProbe": probe("/readyz", periodSeconds=2, timeoutSeconds=3, failureThreshold=3),
        # Keep serving until the Services have removed this pod from their endpoints, or new connections would fail.
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if resources is not None:
        found["resources"] = dump(resources)
    return found


def secret_volume(name: str, secret: str) -> Object:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}


def pod_spec(container_: Object, tls_secret: str) -> Object:
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {}}]
    if tls_secret:
        volumes.append(secret_volume("tls", tls_secret))
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container_],
        "volumes": volumes,
    }


def claim_template(storage: Storage) -> Object:
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage.size}}}
    if storage.storageClassName is not None:
        spec["storageClassName"] = storage.storageClassName
    return {"metadata": {"name": "data"}, "spec": spec}


def stateful_set(
    name: str,
    namespace: str,
    of: Object,
    *,
    labels_: dict[str, str],
    selector_: dict[str, str],
    service: str,
    replicas: int,
    pod: Object,
    storage: Storage,
) -> Object:
    """`OnDelete` and `Parallel`: the operator replaces and orders the pods, never the StatefulSet's controller."""
    template = template_hash(pod)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(name, namespace, of, labels_),
        "spec": {
            "replicas": replicas,
            "serviceName": service,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "selector": {"matchLabels": selector_},
            "template": {"metadata": {"labels": {**labels_, TEMPLATE_LABEL: template}}, "spec": pod},
            "volumeClaimTemplates": [claim_template(storage)],
        },
    }
