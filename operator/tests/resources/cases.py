"""Specs whose rendered StatefulSets are compared with golden files."""

from __future__ import annotations

from typing import Any

CLUSTER: dict[str, Any] = {
    "apiVersion": "holdfast.dev/v1alpha1",
    "kind": "HoldfastCluster",
    "metadata": {"name": "shop", "namespace": "default", "uid": "u1"},
}
POOL: dict[str, Any] = {
    "apiVersion": "holdfast.dev/v1alpha1",
    "kind": "HoldfastEdgePool",
    "metadata": {"name": "berlin", "namespace": "default", "uid": "u2"},
}
IMAGE = "registry.example/holdfast:0.2.0"

_PLACED = {
    "nodeSelector": {"holdfast.dev/tier": "cloud"},
    "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
    "topologyKey": "example.com/rack",
}
_RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}

VOTERS: dict[str, dict[str, Any]] = {
    "plain": {"version": "0.2.0"},
    "without TLS": {"version": "0.2.0", "tls": {"mode": "Disabled"}},
    "everything": {
        "version": "0.2.0",
        "voters": {
            "replicas": 5,
            "storage": {"size": "10Gi", "storageClassName": "fast"},
            "resources": _RESOURCES,
            "placement": _PLACED,
        },
    },
}
POOLS: dict[str, dict[str, Any]] = {
    "plain": {
        "clusterRef": {"name": "shop"},
        "placement": {"nodeSelector": {"site": "berlin"}},
        "prefixes": ["/b/", "/a/"],
    },
    "everything": {
        "clusterRef": {"name": "shop"},
        "placement": {"nodeSelector": {"site": "berlin"}, "tolerations": [{"key": "edge", "operator": "Exists"}]},
        "prefixes": ["/$(POD_NAME)/", "/price$$/"],
        "anonymousReads": True,
        "storage": {"size": "2Gi"},
        "resources": _RESOURCES,
    },
}
