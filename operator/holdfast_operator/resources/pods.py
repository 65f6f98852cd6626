"""Pods and StatefulSets: what voters and edge replicas have in common."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast_operator.model.common import PodFields, Resources, Storage, Toleration, dump
from holdfast_operator.model.overlay import CONTAINER
from holdfast_operator.resources.common import (
    CLIENT_PORT,
    METRICS_PORT,
    PEER_PORT,
    TEMPLATE_LABEL,
    Object,
    metadata,
    template_hash,
)
from holdfast_operator.resources.overlay import merged

USER = 65532
DRAIN_SECONDS = 3


def tolerations(wanted: list[Toleration] | None) -> list[Object]:
    return [dump(t) for t in wanted or []]


def container(image: str, arguments: list[str], resources: Resources | None, tls: bool) -> Object:
    """A holdfast process: unprivileged, root file system read-only, probed on the plain port."""
    mounts: list[Object] = [{"name": "data", "mountPath": "/var/lib/holdfast"}, {"name": "tmp", "mountPath": "/tmp"}]
    if tls:
        mounts.append({"name": "tls", "mountPath": "/etc/holdfast/tls", "readOnly": True})

    def probe(path: str, **more: int) -> Object:
        return {"httpGet": {"path": path, "port": METRICS_PORT}, **more}

    found: Object = {
        "name": CONTAINER,
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
        "securityContext": container_security(),
    }
    if resources is not None:
        found["resources"] = dump(resources)
    return found


def container_security() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_security() -> Object:
    """The part of a pod spec that keeps it unprivileged."""
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
    }


def secret_volume(name: str, secret: str) -> Object:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}


def pod_spec(container_: Object, tls_secret: str) -> Object:
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {}}]
    if tls_secret:
        volumes.append(secret_volume("tls", tls_secret))
    return {**pod_security(), "containers": [container_], "volumes": volumes}


def claim_template(storage: Storage) -> Object:
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage.size}}}
    if storage.storageClassName is not None:
        spec["storageClassName"] = storage.storageClassName
    return {"metadata": {"name": "data"}, "spec": spec}


@dataclass(frozen=True, slots=True)
class Template:
    """A pod spec, and the labels and annotations that the user adds to the pods."""

    pod: Object
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def hash(self) -> str:
        added = {"labels": self.labels, "annotations": self.annotations}
        return template_hash({"pod": self.pod, **added} if any(added.values()) else self.pod)


def template(pod: Object, fields: PodFields) -> Template:
    """The pod with what the user adds to it."""
    if fields.imagePullSecrets:
        pod["imagePullSecrets"] = [dump(secret) for secret in fields.imagePullSecrets]
    if fields.priorityClassName:
        pod["priorityClassName"] = fields.priorityClassName
    return Template(merged(pod, fields.podOverlay or {}), fields.podLabels or {}, fields.podAnnotations or {})


def stateful_set(
    name: str,
    namespace: str,
    of: Object,
    *,
    labels_: dict[str, str],
    selector_: dict[str, str],
    service: str,
    replicas: int,
    template: Template,
    storage: Storage,
) -> Object:
    """`OnDelete` and `Parallel`: the operator replaces and orders the pods, never the StatefulSet's controller."""
    about: Object = {"labels": {**template.labels, **labels_, TEMPLATE_LABEL: template.hash}}
    if template.annotations:
        about["annotations"] = template.annotations
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
            "template": {"metadata": about, "spec": template.pod},
            "volumeClaimTemplates": [claim_template(storage)],
        },
    }
