"""The objects of a HoldfastEdgePool: a StatefulSet with a replica for each matching node, and a Service."""

from __future__ import annotations

from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.model.pool import PoolSpec
from holdfast_operator.resources.cluster import client_endpoint
from holdfast_operator.resources.common import (
    CLIENT_PORT,
    METRICS_PORT,
    Object,
    container,
    edge_secret,
    labels,
    metadata,
    pod_spec,
    selector,
    stateful_set,
    template_hash,
    tolerations,
)

COMPONENT = "replica"
_TLS = "/etc/holdfast/tls"


def replica_name(pool: str) -> str:
    return f"{pool}-replica"


def replica_pod(name: str, namespace: str, spec: PoolSpec, cluster: ClusterSpec, image: str) -> Object:
    tls = cluster.tls.mode == "SelfManaged"
    scheme = "https" if tls else "http"
    arguments = [
        "edge",
        "--name=$(POD_NAME)",
        f"--pool={name}",
        "--data-dir=/var/lib/holdfast/data",
        f"--listen-client-urls={scheme}://0.0.0.0:{CLIENT_PORT}",
        f"--listen-metrics-urls=http://0.0.0.0:{METRICS_PORT}",
        f"--endpoints={client_endpoint(spec.clusterRef.name, namespace)}",
        *(f"--prefix={prefix}" for prefix in sorted(spec.prefixes)),
        *(["--anonymous-reads"] if spec.anonymousReads else []),
    ]
    if tls:
        arguments += [
            f"--cert-file={_TLS}/tls.crt",
            f"--key-file={_TLS}/tls.key",
            f"--trusted-ca-file={_TLS}/ca.crt",
            "--client-cert-auth",
            f"--upstream-tls-dir={_TLS}",
        ]
    secret = edge_secret(spec.clusterRef.name) if tls else ""
    pod = pod_spec(container("holdfast", image, arguments, spec.resources, tls), secret)
    pod["nodeSelector"] = spec.placement.nodeSelector
    # A node that is cut off keeps its pods, however long that lasts.
    pod["tolerations"] = [
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
        *tolerations(spec.placement.tolerations),
    ]
    pod["affinity"] = {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchLabels": selector(spec.clusterRef.name, COMPONENT)},
                }
            ]
        }
    }
    return pod


def replica_template(name: str, namespace: str, spec: PoolSpec, cluster: ClusterSpec, image: str) -> str:
    return template_hash(replica_pod(name, namespace, spec, cluster, image))


def replicas(of: Object, spec: PoolSpec, cluster: ClusterSpec, image: str, count: int) -> Object:
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    return stateful_set(
        replica_name(name),
        namespace,
        of,
        labels_=labels(spec.clusterRef.name, COMPONENT, name),
        selector_=selector(spec.clusterRef.name, COMPONENT, name),
        service=replica_name(name),
        replicas=count,
        pod=replica_pod(name, namespace, spec, cluster, image),
        storage=spec.storage,
    )


def service(of: Object, spec: PoolSpec) -> Object:
    """All replicas of the pool, the one on the caller's node first."""
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(replica_name(name), namespace, of, labels(spec.clusterRef.name, COMPONENT, name)),
        "spec": {
            "selector": selector(spec.clusterRef.name, COMPONENT, name),
            "ports": [{"name": "client", "port": CLIENT_PORT, "targetPort": "client"}],
            "trafficDistribution": "PreferClose",
            "publishNotReadyAddresses": True,
        },
    }
