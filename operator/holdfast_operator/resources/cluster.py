"""The objects of a HoldfastCluster: a StatefulSet of voters, Services, a PodDisruptionBudget."""

from __future__ import annotations

from holdfast_operator.model import quantity
from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.model.common import Placement
from holdfast_operator.resources.common import (
    CLIENT_PORT,
    METRICS_PORT,
    PEER_PORT,
    Object,
    client_service,
    labels,
    metadata,
    peer_host,
    peer_secret,
    peers_service,
    role_uri,
    selector,
    server_secret,
    voter_name,
)
from holdfast_operator.resources.pods import (
    Template,
    container,
    pod_spec,
    secret_volume,
    stateful_set,
    template,
    tolerations,
)
from holdfast_operator.resources.rendering import OLDEST, Defaults, defaults, image_of, service_families

__all__ = ["client_endpoint", "disruption_budget", "image_of", "services", "voter_pod", "voter_template", "voters"]

COMPONENT = "voter"
_DATA = "/var/lib/holdfast/data"
_TLS = "/etc/holdfast/tls"
_PEER_TLS = "/etc/holdfast/peer-tls"
DEFAULT_TOPOLOGY = "topology.kubernetes.io/zone"
QUOTA_PERCENT = 75  # of the volume; the rest is for the log, and for the copies that snapshots and compaction make
MIN_QUOTA = 1 << 20


def voter_pod(name: str, namespace: str, spec: ClusterSpec, image: str, rendering: int = OLDEST) -> Object:
    """The pod template's spec, in this version of the rendering."""
    return _template(name, namespace, spec, image, rendering).pod


def _template(name: str, namespace: str, spec: ClusterSpec, image: str, rendering: int) -> Template:
    """It does not depend on the number of voters: a change from 3 to 5 replaces no pod."""
    how = defaults(rendering)
    resources = spec.voters.resources if spec.voters.resources is not None else how.voter_resources
    tls = spec.tls.mode == "SelfManaged"
    pod = pod_spec(
        container(image, _arguments(name, namespace, spec, how), resources, tls), server_secret(name) if tls else ""
    )
    if tls:
        pod["volumes"].append(secret_volume("peer-tls", peer_secret(name)))
        mount = {"name": "peer-tls", "mountPath": _PEER_TLS, "readOnly": True}
        pod["containers"][0]["volumeMounts"].append(mount)
    placement = spec.voters.placement
    pod["topologySpreadConstraints"] = _spread(name, placement, how)
    if placement.nodeSelector:
        pod["nodeSelector"] = placement.nodeSelector
    if placement.tolerations:
        pod["tolerations"] = tolerations(placement.tolerations)
    return template(pod, spec.voters)


def _arguments(name: str, namespace: str, spec: ClusterSpec, how: Defaults) -> list[str]:
    tls = spec.tls.mode == "SelfManaged"
    scheme = "https" if tls else "http"
    host = f"$(POD_NAME).{peers_service(name)}.{namespace}.svc"
    arguments = [
        "serve",
        "--bootstrap=managed",
        "--name=$(POD_NAME)",
        f"--data-dir={_DATA}",
        f"--listen-client-urls={scheme}://{how.host}:{CLIENT_PORT}",
        f"--listen-peer-urls={scheme}://{how.host}:{PEER_PORT}",
        f"--listen-metrics-urls=http://{how.host}:{METRICS_PORT}",
        f"--advertise-client-urls={scheme}://{host}:{CLIENT_PORT}",
        f"--initial-advertise-peer-urls={scheme}://{host}:{PEER_PORT}",
    ]
    if tls:
        arguments += [
            f"--cert-file={_TLS}/tls.crt",
            f"--key-file={_TLS}/tls.key",
            f"--trusted-ca-file={_TLS}/ca.crt",
            "--client-cert-auth",
            f"--peer-cert-file={_PEER_TLS}/tls.crt",
            f"--peer-key-file={_PEER_TLS}/tls.key",
            f"--peer-trusted-ca-file={_PEER_TLS}/ca.crt",
            f"--peer-cert-allowed-uri={role_uri(name, 'peer')}",
            # Pods made before there were peer certificates present a certificate that is valid for any voter.
            f"--peer-cert-allowed-hostname={peer_host(name, namespace, 0)}",
        ]
    if tls and how.operator_identity:
        arguments.append(f"--operator-cert-uri={role_uri(name, 'operator')}")
    quota = _quota(spec, how)
    if quota:
        arguments.append(f"--quota-backend-bytes={quota}")
    return arguments


def _quota(spec: ClusterSpec, how: Defaults) -> int:
    """The limit of the data in bytes; 0: the member's own default."""
    if spec.voters.quotaBytes is not None:
        return spec.voters.quotaBytes
    if not how.quota_follows_volume:
        return 0
    return max(quantity.to_bytes(spec.voters.storage.size) * QUOTA_PERCENT // 100, MIN_QUOTA)


def _spread(name: str, placement: Placement, how: Defaults) -> list[Object]:
    match = {"matchLabels": selector(name, COMPONENT)}
    nodes: Object = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": match,
    }
    if placement.allowSharedNodes:
        nodes["whenUnsatisfiable"] = "ScheduleAnyway"
    elif how.spread_over_nodes:
        # With fewer nodes than this each runs one voter at most; with more, none runs two before all others run one.
        # Either way the loss of one node costs no majority. Nodes that a voter cannot use because of taints, such as
        # those of the control plane, do not count.
        nodes |= {"minDomains": how.spread_over_nodes, "nodeTaintsPolicy": "Honor"}
    zones = {
        "maxSkew": 1,
        "topologyKey": placement.topologyKey or DEFAULT_TOPOLOGY,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": match,
    }
    return [nodes, zones]


def voter_template(name: str, namespace: str, spec: ClusterSpec, image: str, rendering: int = OLDEST) -> str:
    """The template hash that up-to-date pods have."""
    return _template(name, namespace, spec, image, rendering).hash


def voters(of: Object, spec: ClusterSpec, image: str, replicas: int, rendering: int = OLDEST) -> Object:
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    return stateful_set(
        voter_name(name),
        namespace,
        of,
        labels_=labels(name, COMPONENT),
        selector_=selector(name, COMPONENT),
        service=peers_service(name),
        replicas=replicas,
        template=_template(name, namespace, spec, image, rendering),
        storage=spec.voters.storage,
    )


def services(of: Object, rendering: int = OLDEST) -> list[Object]:
    families = service_families(rendering)
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]

    def service(suffix: str, spec: Object, component: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(f"{name}-{suffix}", namespace, of, labels(name, component)),
            "spec": {"selector": selector(name, component), **families, **spec},
        }

    client = {"name": "client", "port": CLIENT_PORT, "targetPort": "client"}
    peer = {"name": "peer", "port": PEER_PORT, "targetPort": "peer"}
    return [
        service("client", {"ports": [client]}, COMPONENT),
        # DNS names also for pods that are not ready: members have to find each other before they are ready.
        service("peers", {"clusterIP": "None", "publishNotReadyAddresses": True, "ports": [client, peer]}, COMPONENT),
        # Routes a pod at the edge to the replica on its own node, and to no other.
        service(
            "edge",
            {"ports": [client], "internalTrafficPolicy": "Local", "publishNotReadyAddresses": True},
            "replica",
        ),
    ]


def disruption_budget(of: Object, voters_: int, wanted: int) -> Object | None:
    """Keeps a majority available. Learners are not ready and so never count. A single voter gets no budget, because its
    node could never be drained."""
    largest = max(voters_, wanted)
    if largest < 2:
        return None
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(voter_name(name), namespace, of, labels(name, COMPONENT)),
        "spec": {"minAvailable": largest // 2 + 1, "selector": {"matchLabels": selector(name, COMPONENT)}},
    }


def client_endpoint(name: str, namespace: str) -> str:
    return f"{client_service(name)}.{namespace}.svc:{CLIENT_PORT}"
