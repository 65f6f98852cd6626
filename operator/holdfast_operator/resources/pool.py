"""The objects of a HoldfastEdgePool: for each matching node a StatefulSet of one replica, one Service for all, and one
for those that others of the pool follow."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.model.pool import OfflineRule, PoolSpec, SiteKeys
from holdfast_operator.resources.cluster import client_endpoint
from holdfast_operator.resources.common import (
    CLIENT_PORT,
    METRICS_PORT,
    Object,
    edge_secret,
    labels,
    metadata,
    selector,
)
from holdfast_operator.resources.pods import Template, container, pod_spec, stateful_set, template, tolerations
from holdfast_operator.resources.rendering import OLDEST, Defaults, defaults, service_families

COMPONENT = "replica"
NODE_LABEL = "holdfast.dev/node-hash"
NODE_ANNOTATION = "holdfast.dev/node"
RELAY_LABEL = "holdfast.dev/relay"
_TLS = "/etc/holdfast/tls"


def replica_name(pool: str) -> str:
    """Of the pool's Service, and of the one StatefulSet that a pool used to have."""
    return f"{pool}-replica"


def relay_name(pool: str) -> str:
    """Of the Service of the pool's relays."""
    return f"{pool}-relay"


def writer_name(pool: str) -> str:
    """Of the Service of the replica that writes the keys of the site."""
    return f"{pool}-writer"


def node_hash(node: str) -> str:
    """A node's name may be too long, or have too many dots, to be part of the name of a pod."""
    return hashlib.sha256(node.encode()).hexdigest()[:10]


def replica_on(pool: str, node: str) -> str:
    """Name of the StatefulSet of the replica on this node. Its only pod has the suffix -0."""
    return f"{pool}-{node_hash(node)}"


def replica_secret(replica: str) -> str:
    return f"{replica}-tls"


def replica_pod(
    name: str, namespace: str, spec: PoolSpec, cluster: ClusterSpec, image: str, rendering: int = OLDEST
) -> Object:
    return _template(name, namespace, spec, cluster, image, rendering).pod


def _template(
    name: str,
    namespace: str,
    spec: PoolSpec,
    cluster: ClusterSpec,
    image: str,
    rendering: int,
    *,
    node: str = "",
    secret: str = "",
    relay: bool = False,
) -> Template:
    """`node`: the node that the replica is bound to; any that matches if empty. Without a node there are no relays."""
    how = defaults(rendering)
    resources = spec.resources if spec.resources is not None else how.replica_resources
    tls = cluster.tls.mode == "SelfManaged"
    secret = (secret or edge_secret(spec.clusterRef.name)) if tls else ""
    below = bool(node) and spec.relaysPerSite > 0 and not relay
    parents = f"{relay_name(name)}.{namespace}.svc:{CLIENT_PORT}" if below else ""
    arguments = [*_arguments(name, namespace, spec, tls, how, parents), *(_site(name, namespace, spec) if node else [])]
    pod = pod_spec(container(image, arguments, resources, tls), secret)
    if not node:
        pod["nodeSelector"] = spec.placement.nodeSelector
    # A node that is cut off keeps its pods, however long that lasts.
    pod["tolerations"] = [
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
        *tolerations(spec.placement.tolerations),
    ]
    pod["affinity"] = _affinity(spec.clusterRef.name, node)
    fields = spec
    if spec.imagePullSecrets is None:  # the image is the cluster's
        fields = spec.model_copy(update={"imagePullSecrets": cluster.voters.imagePullSecrets})
    made = template(pod, fields)
    # As a label that users add it is part of the hash: what a relay runs with does not differ from a replica without
    # relays, but only what has the label is found by the others.
    return replace(made, labels={**made.labels, RELAY_LABEL: "true"}) if relay else made


def _arguments(name: str, namespace: str, spec: PoolSpec, tls: bool, how: Defaults, parents: str) -> list[str]:
    scheme = "https" if tls else "http"
    prefixes = [_literal(prefix, how) for prefix in sorted(spec.prefixes)]
    arguments = [
        "edge",
        "--name=$(POD_NAME)",
        f"--pool={name}",
        "--data-dir=/var/lib/holdfast/data",
        f"--listen-client-urls={scheme}://{how.host}:{CLIENT_PORT}",
        f"--listen-metrics-urls=http://{how.host}:{METRICS_PORT}",
        *([f"--parents={parents}"] if parents else []),
        f"--endpoints={client_endpoint(spec.clusterRef.name, namespace)}",
        *(f"--prefix={prefix}" for prefix in prefixes),
        *(["--anonymous-reads"] if spec.anonymousReads else []),
        *(f"--offline={_literal(_offline(rule), how)}" for rule in spec.offline or ()),
    ]
    if tls:
        arguments += [
            f"--cert-file={_TLS}/tls.crt",
            f"--key-file={_TLS}/tls.key",
            f"--trusted-ca-file={_TLS}/ca.crt",
            "--client-cert-auth",
            f"--upstream-tls-dir={_TLS}",
        ]
    return arguments


def _site(name: str, namespace: str, spec: PoolSpec) -> list[str]:
    if spec.site is None:
        return []
    writer = f"{replica_on(name, spec.site.writer)}-0={writer_name(name)}.{namespace}.svc:{CLIENT_PORT}"
    return [f"--site={spec.site.name}", f"--site-writer={writer}"]


def _literal(text: str, how: Defaults) -> str:
    """Kubernetes replaces $(NAME) in arguments by a variable, and $$ by $."""
    return text.replace("$", "$$") if how.literal_dollars else text


def _offline(rule: OfflineRule) -> str:
    if rule.policy == "ServeUntil":
        return f"{rule.prefix}=serve-until={rule.seconds}s"
    return f"{rule.prefix}={'serve' if rule.policy == 'Serve' else 'require-online'}"


def _affinity(cluster: str, node: str) -> Object:
    """Two replicas of a cluster never share a node, because <cluster>-edge would route to either of them."""
    others = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": selector(cluster, COMPONENT)}}
    found: Object = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [others]}}
    if node:
        this = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        found["nodeAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [this]}}
    return found


def replica_template(
    name: str, namespace: str, spec: PoolSpec, cluster: ClusterSpec, image: str, rendering: int = OLDEST
) -> str:
    return _template(name, namespace, spec, cluster, image, rendering).hash


def replica(
    of: Object,
    spec: PoolSpec,
    cluster: ClusterSpec,
    image: str,
    node: str,
    rendering: int = OLDEST,
    *,
    tls_secret: str = "",
    relay: bool = False,
) -> Object:
    """The StatefulSet of the replica on one node. `tls_secret`: the Secret of its certificate; if empty, the Secret
    that all edge replicas of the cluster share. `relay`: whether others of the pool follow it; where the pool has
    relays, all others do. `template_of` gives the hash that its pod has if it is up to date."""
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    this = {NODE_LABEL: node_hash(node)}
    made = stateful_set(
        replica_on(name, node),
        namespace,
        of,
        labels_={**labels(spec.clusterRef.name, COMPONENT, name), **this},
        selector_={**selector(spec.clusterRef.name, COMPONENT, name), **this},
        service=replica_name(name),
        replicas=1,
        template=_template(name, namespace, spec, cluster, image, rendering, node=node, secret=tls_secret, relay=relay),
        storage=spec.storage,
    )
    for about in (made["metadata"], made["spec"]["template"]["metadata"]):
        about["annotations"] = {**about.get("annotations", {}), NODE_ANNOTATION: node}
    return made


def replicas(
    of: Object, spec: PoolSpec, cluster: ClusterSpec, image: str, count: int, rendering: int = OLDEST
) -> Object:
    """One StatefulSet for all nodes, as pools had before each replica was bound to its node."""
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    return stateful_set(
        replica_name(name),
        namespace,
        of,
        labels_=labels(spec.clusterRef.name, COMPONENT, name),
        selector_=selector(spec.clusterRef.name, COMPONENT, name),
        service=replica_name(name),
        replicas=count,
        template=_template(name, namespace, spec, cluster, image, rendering),
        storage=spec.storage,
    )


def service(of: Object, spec: PoolSpec, rendering: int = OLDEST, *, kubernetes: tuple[int, int] = (1, 30)) -> Object:
    """All replicas of the pool, that on the caller's node first. `kubernetes`: the version of the API server; before
    1.34 it can only prefer the caller's zone."""
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(replica_name(name), namespace, of, labels(spec.clusterRef.name, COMPONENT, name)),
        "spec": {
            "selector": selector(spec.clusterRef.name, COMPONENT, name),
            **service_families(rendering),
            "ports": [{"name": "client", "port": CLIENT_PORT, "targetPort": "client"}],
            "trafficDistribution": "PreferSameNode" if kubernetes >= (1, 34) else "PreferClose",
            "publishNotReadyAddresses": True,
        },
    }


def relay_service(of: Object, spec: PoolSpec, rendering: int = OLDEST) -> Object:
    """The relays of the pool, each under its own address, so that a replica tries another one at once. It has the
    relays that are not ready, too: Kubernetes calls all of a site unready when it does not hear from it, and a replica
    turns from a relay that cannot serve it to the next one, and to the cluster, by itself."""
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(relay_name(name), namespace, of, labels(spec.clusterRef.name, COMPONENT, name)),
        "spec": {
            "selector": {**selector(spec.clusterRef.name, COMPONENT, name), RELAY_LABEL: "true"},
            **service_families(rendering),
            "clusterIP": "None",
            "ports": [{"name": "client", "port": CLIENT_PORT, "targetPort": "client"}],
            "publishNotReadyAddresses": True,
        },
    }


def writer_service(of: Object, spec: PoolSpec, site: SiteKeys, rendering: int = OLDEST) -> Object:
    """The replica that writes the keys of the site, also while Kubernetes calls it unready: the site may be cut off."""
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    writer = {**selector(spec.clusterRef.name, COMPONENT, name), NODE_LABEL: node_hash(site.writer)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(writer_name(name), namespace, of, labels(spec.clusterRef.name, COMPONENT, name)),
        "spec": {
            "selector": writer,
            **service_families(rendering),
            "clusterIP": "None",
            "ports": [{"name": "client", "port": CLIENT_PORT, "targetPort": "client"}],
            "publishNotReadyAddresses": True,
        },
    }
