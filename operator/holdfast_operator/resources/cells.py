"""The objects of a HoldfastCells: a Deployment whose containers are the janitor, the couriers and the replicators.

Each is a command of `holdfast cells` in a container of its own, so `kubectl logs -c` shows one of them, and one that
fails restarts alone. Any number of pods may run: of several couriers or replicators one is at work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from holdfast_operator.model.cells import DEFAULT_RESOURCES, CellsSpec
from holdfast_operator.model.common import dump
from holdfast_operator.resources.common import CELLS_LABEL, Object, metadata
from holdfast_operator.resources.pods import container_security, pod_security, secret_volume, tolerations

CERTIFICATES = "holdfast.dev/certificates"  # annotation: the hash of the certificates that the processes began with
_TLS = "/etc/holdfast/cells"


@dataclass(frozen=True, slots=True)
class Place:
    """`endpoints`: HOST:PORT, separated by commas. `secret`: the Secret with its certificates; empty: there is no TLS.
    `files`: what the Secret has, base64. `trouble`: why the cell cannot be reached; empty: it can be tried."""

    endpoints: str
    secret: str = ""
    files: tuple[tuple[str, str], ...] = ()
    trouble: str = ""


def workers_name(name: str) -> str:
    return f"{name}-cells"


def workers(of: Object, spec: CellsSpec, places: Mapping[str, Place], image: str) -> Object:
    """`places`: of all cells that belong to the set or will, also of those that leave it."""
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    labels = {
        "app.kubernetes.io/name": "holdfast",
        "app.kubernetes.io/managed-by": "holdfast-operator",
        CELLS_LABEL: name,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(workers_name(name), namespace, of, labels),
        "spec": {
            "replicas": spec.replicas,
            "selector": {"matchLabels": {CELLS_LABEL: name}},
            "template": {
                "metadata": {"labels": labels, "annotations": {CERTIFICATES: _certificates(places)}},
                "spec": _pod(spec, places, image),
            },
        },
    }


def _pod(spec: CellsSpec, places: Mapping[str, Place], image: str) -> Object:
    secrets = {cell: place.secret for cell, place in sorted(places.items()) if place.secret}
    # As variables, so that every command of `holdfast cells` works in `kubectl exec` without an option.
    environment = [
        {"name": "HOLDFAST_CELLS", "value": " ".join(f"{c}={place.endpoints}" for c, place in sorted(places.items()))},
        {"name": "HOLDFAST_CELLS_TLS", "value": " ".join(f"{cell}={_TLS}/{cell}" for cell in secrets)},
    ]
    mounts = [{"name": f"tls-{cell}", "mountPath": f"{_TLS}/{cell}", "readOnly": True} for cell in secrets]
    pod: Object = {
        **pod_security(),
        "containers": [_container(name, words, environment, mounts, image, spec) for name, words in _commands(spec)],
        "volumes": [secret_volume(f"tls-{cell}", secret) for cell, secret in secrets.items()],
        "tolerations": tolerations(spec.placement.tolerations),
    }
    if spec.placement.nodeSelector:
        pod["nodeSelector"] = spec.placement.nodeSelector
    if spec.imagePullSecrets:
        pod["imagePullSecrets"] = [dump(secret) for secret in spec.imagePullSecrets]
    return pod


def _commands(spec: CellsSpec) -> Iterator[tuple[str, list[str]]]:
    """The name of each container, and its command."""
    yield "janitor", ["janitor"]
    for queue in spec.queues or ():
        yield f"courier-{queue.from_}--{queue.to}", ["queue", "run", queue.from_, queue.to]
    for each in spec.replicate or ():
        prefix = each.prefix.replace("$", "$$")  # Kubernetes replaces $(NAME) in arguments by a variable, and $$ by $
        digest = hashlib.sha256(each.prefix.encode()).hexdigest()[:6]
        for to in spec.destinations(each):
            yield f"copy-{each.from_}--{to}-{digest}", ["replicate", each.from_, to, prefix]


def _container(
    name: str, words: list[str], environment: list[Object], mounts: list[Object], image: str, spec: CellsSpec
) -> Object:
    """Without probes: nobody calls it, and it ends by itself if it cannot go on."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["cells", *words],
        "env": environment,
        "volumeMounts": mounts,
        "resources": dump(spec.resources if spec.resources is not None else DEFAULT_RESOURCES),
        "securityContext": container_security(),
    }


def _certificates(places: Mapping[str, Place]) -> str:
    """Processes read certificates when they connect first, so new ones mean new pods."""
    public = {cell: [f for f in place.files if f[0] != "tls.key"] for cell, place in places.items()}
    return hashlib.sha256(json.dumps(public, sort_keys=True).encode()).hexdigest()[:16]
