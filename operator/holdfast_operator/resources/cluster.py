"""The objects of a HoldfastCluster: a StatefulSet of voters, Services, a PodDisruptionBudget."""

from __future__ import annotations

from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.resources.common import (
    CLIENT_PORT,
    METRICS_PORT,
    PEER_PORT,
    Object,
    client_service,
    container,
    labels,
    metadata,
    peer_host,
    peer_secret,
    peers_service,
    pod_spec,
    secret_volume,
    selector,
    server_secret,
    stateful_set,
    template_hash,
    tolerations,
    voter_name,
)
from holdfast_operator.resources.tls import role

COMPONENT = "voter"
_DATA = "/var/lib/holdfast/data"
_TLS = "/etc/holdfast/tls"
_PEER_TLS = "/etc/holdfast/peer-tls"
DEFAULT_TOPOLOGY = "topology.kubernetes.io/zone"


def image_of(spec: ClusterSpec, repository: str) -> str:
    return spec.image or f"{repository}:{spec.version}"


def voter_pod(name: str, namespace: str, spec: ClusterSpec, image: str) -> Object:
    """The pod template's spec. It does not depend on the number of voters: a change from 3 to 5 replaces no pod."""
    tls = spec.tls.mode == "SelfManaged"
    scheme = "https" if tls else "http"
    host = f"$(POD_NAME).{peers_service(name)}.{namespace}.svc"
    arguments = [
        "serve",
        "--bootstrap=managed",
        "--name=$(POD_NAME)",
        f"--data-dir={_DATA}",
        f"--listen-client-urls={scheme}://0.0.0.0:{CLIENT_PORT}",
        f"--listen-peer-urls={scheme}://0.0.0.0:{PEER_PORT}",
        f"--listen-metrics-urls=http://0.0.0.0:{METRICS_PORT}",
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
            f"--peer-cert-allowed-uri={role(name, 'peer')}",
            # Pods made before there were peer certificates present a certificate that is valid for any voter.
            f"--peer-cert-allowed-hostname={peer_host(name, namespace, 0)}",
        ]
    pod = pod_spec(
        container("holdfast", image, arguments, spec.voters.resources, tls), server_secret(name) if tls else ""
    )
    if tls:
        pod["volumes"].append(secret_volume("peer-tls", peer_secret(name)))
        mount = {"name": "peer-tls", "mountPath": _PEER_TLS, "readOnly": True}
        pod["containers"][0]["volumeMounts"].append(mount)
    placement = spec.voters.placement
    match = {"matchLabels": selector(name, COMPONENT)}
    pod["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": match,
        },
        {
            "maxSkew": 1,
            "topologyKey": placement.topologyKey or DEFAULT_TOPOLOGY,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": match,
        },
    ]
    if placement.nodeSelector:
        pod["nodeSelector"] = placement.nodeSelector
    if placement.tolerations:
        pod["tolerations"] = tolerations(placement.tolerations)
    return pod


def voter_template(name: str, namespace: str, spec: ClusterSpec, image: str) -> str:
    """The template hash that up-to-date pods have."""
    return template_hash(voter_pod(name, namespace, spec, image))


def voters(of: Object, spec: ClusterSpec, image: str, replicas: int) -> Object:
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    return stateful_set(
        voter_name(name),
        namespace,
        of,
        labels_=labels(name, COMPONENT),
        selector_=selector(name, COMPONENT),
        service=peers_service(name),
        replicas=replicas,
        pod=voter_pod(name, namespace, spec, image),
        storage=spec.voters.storage,
    )


def services(of: Object) -> list[Object]:
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]

    def service(suffix: str, spec: Object, component: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(f"{name}-{suffix}", namespace, of, labels(name, component)),
            "spec": {"selector": selector(name, component), **spec},
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
