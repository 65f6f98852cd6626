"""Which parts of a pod users may change, and which belong to the operator.

`podOverlay` is for what has no field of its own, such as sidecars, affinity or security options of a platform. It must
not break what the operator relies on: that the pod runs the member it is meant to run, on its own volume, and reports
truthfully when it is ready. A part that is refused here never reaches a pod.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

CONTAINER = "holdfast"  # the name of the container that the operator defines
MERGED_BY = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
}
_DOMAIN = "holdfast.dev"
_LABELS = {"app.kubernetes.io/name", "app.kubernetes.io/managed-by"}
_VOLUMES = {"data", "tmp", "tls", "peer-tls"}
_PATHS = tuple(map(PurePosixPath, ("/var/lib/holdfast", "/etc/holdfast", "/tmp")))
_VARIABLES = {"POD_NAME"}
_OF_THE_POD = {
    "nodeSelector": "use placement.nodeSelector",
    "tolerations": "use placement.tolerations",
    "topologySpreadConstraints": "use the fields of placement",
    "imagePullSecrets": "use the field imagePullSecrets",
    "priorityClassName": "use the field priorityClassName",
    "ephemeralContainers": "a pod template cannot have any",
    **dict.fromkeys(("nodeName", "hostname", "subdomain", "restartPolicy"), "it belongs to the operator"),
}
_OF_THE_CONTAINER = {
    "image": "use image or version of the cluster",
    "resources": "use the field resources",
    "readinessProbe": "disruption budgets and updates rely on it",
    **dict.fromkeys(("args", "command", "workingDir", "ports"), "it belongs to the operator"),
}


def checked_labels(labels: dict[str, str]) -> dict[str, str]:
    for key in labels:
        if key in _LABELS or _in_our_domain(key):
            raise ValueError(f"{key!r} belongs to the operator; choose another key")
    return labels


def checked_annotations(annotations: dict[str, str]) -> dict[str, str]:
    for key in annotations:
        if _in_our_domain(key):
            raise ValueError(f"{key!r} belongs to the operator; choose another key")
    return annotations


def checked(pod: dict[str, Any]) -> dict[str, Any]:
    """The overlay itself if it is acceptable. Raises ValueError otherwise."""
    _no_directives(pod, "")
    _refuse(pod, _OF_THE_POD, "")
    _no_root(pod, "")
    for volume in _named(pod, "volumes", ""):
        if volume["name"] in _VOLUMES:
            raise ValueError(f"volumes[{volume['name']}]: this volume belongs to the operator; choose another name")
    _named(pod, "initContainers", "")
    for container in _named(pod, "containers", ""):
        if container["name"] == CONTAINER:
            _check_our_container(container, f"containers[{CONTAINER}].")
    return pod


def _check_our_container(container: dict[str, Any], at: str) -> None:
    _refuse(container, _OF_THE_CONTAINER, at)
    _no_root(container, at)
    for variable in _named(container, "env", at):
        if variable["name"] in _VARIABLES:
            raise ValueError(f"{at}env[{variable['name']}]: this variable belongs to the operator")
    for mount in _named(container, "volumeMounts", at):
        path = PurePosixPath(mount["mountPath"])
        if ".." in path.parts or any(path.is_relative_to(ours) or ours.is_relative_to(path) for ours in _PATHS):
            raise ValueError(f"{at}volumeMounts[{path}]: it covers a directory of holdfast; choose another path")


def _in_our_domain(key: str) -> bool:
    domain, slash, _ = key.partition("/")
    return bool(slash) and (domain == _DOMAIN or domain.endswith(f".{_DOMAIN}"))


def _refuse(fields: dict[str, Any], refused: dict[str, str], at: str) -> None:
    for field in fields:
        if field in refused:
            raise ValueError(f"{at}{field} cannot be set here: {refused[field]}")


def _no_root(fields: dict[str, Any], at: str) -> None:
    """Members never run as root, and never get more rights than they start with."""
    if "securityContext" not in fields:
        return
    context = fields["securityContext"]
    at = f"{at}securityContext"
    if not isinstance(context, dict):
        raise ValueError(f"{at} is not an object; it cannot be removed")
    if context.get("runAsNonRoot", True) is not True:
        raise ValueError(f"{at}.runAsNonRoot cannot be anything but true: holdfast never runs as root")
    if context.get("runAsUser") == 0:
        raise ValueError(f"{at}.runAsUser is 0: holdfast never runs as root")
    for field in ("privileged", "allowPrivilegeEscalation"):
        if context.get(field, False) is not False:
            raise ValueError(f"{at}.{field} cannot be anything but false: holdfast needs no privileges")


def _named(fields: dict[str, Any], field: str, at: str) -> list[dict[str, Any]]:
    """The objects of a list that is merged by a key, which each has to have, and none twice."""
    if field not in fields:
        return []
    items, key = fields[field], MERGED_BY[field]
    if not isinstance(items, list) or not all(isinstance(i, dict) and isinstance(i.get(key), str) for i in items):
        raise ValueError(f"{at}{field} has to be a list of objects with {key}")
    known: set[str] = set()
    for item in items:
        if item[key] in known:
            raise ValueError(f"{at}{field} has {item[key]!r} twice")
        known.add(item[key])
    return items


def _no_directives(value: Any, at: str) -> None:
    """kubectl's directives ($patch and others) are not known here, and would be taken for fields."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key.startswith("$"):
                raise ValueError(f"{at}{key}: directives are not supported; null removes a field")
            _no_directives(child, f"{at}{key}.")
    elif isinstance(value, list):
        for child in value:
            _no_directives(child, at)
