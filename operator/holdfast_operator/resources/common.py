"""Names, labels and owners of the objects that the operator makes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from holdfast_operator.model.common import API_VERSION

Object = dict[str, Any]

CLUSTER_LABEL = "holdfast.dev/cluster"
CELLS_LABEL = "holdfast.dev/cells"
COMPONENT_LABEL = "holdfast.dev/component"
POOL_LABEL = "holdfast.dev/pool"
TEMPLATE_LABEL = "holdfast.dev/template"
CLIENT_PORT, PEER_PORT, METRICS_PORT = 2379, 2380, 2381


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


def operator_secret(cluster: str) -> str:
    return f"{cluster}-operator-tls"


def ca_secret(cluster: str) -> str:
    return f"{cluster}-ca"


def role_uri(cluster: str, role: str) -> str:
    """What a certificate says of its holder. A voter's peer port takes only the role peer."""
    return f"holdfast://{cluster}/{role}"


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


def host_port(address: str, port: int) -> str:
    """An IP address or a host name, with a port: IPv6 addresses need brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def template_hash(template: Object) -> str:
    """Our own hash of what a pod is made from. A pod with a different hash is outdated."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:12]


def template_of(obj: Object) -> str:
    """The template hash of a StatefulSet that was made here."""
    return str(obj["spec"]["template"]["metadata"]["labels"][TEMPLATE_LABEL])
