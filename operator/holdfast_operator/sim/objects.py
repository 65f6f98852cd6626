"""Kubernetes objects as the simulated API server keeps them: their kinds, their owners, and how they are copied."""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    api: str
    plural: str
    namespaced: bool = True


KINDS = (
    Kind("Pod", "v1", "pods"),
    Kind("Service", "v1", "services"),
    Kind("Secret", "v1", "secrets"),
    Kind("ServiceAccount", "v1", "serviceaccounts"),
    Kind("ConfigMap", "v1", "configmaps"),
    Kind("PersistentVolumeClaim", "v1", "persistentvolumeclaims"),
    Kind("Event", "v1", "events"),
    Kind("Node", "v1", "nodes", namespaced=False),
    Kind("PersistentVolume", "v1", "persistentvolumes", namespaced=False),
    Kind("Deployment", "apps/v1", "deployments"),
    Kind("StatefulSet", "apps/v1", "statefulsets"),
    Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
    Kind("HoldfastCluster", "holdfast.dev/v1alpha1", "holdfastclusters"),
    Kind("HoldfastEdgePool", "holdfast.dev/v1alpha1", "holdfastedgepools"),
    Kind("HoldfastConfig", "holdfast.dev/v1alpha1", "holdfastconfigs"),
    Kind("HoldfastCells", "holdfast.dev/v1alpha1", "holdfastcells"),
)
BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}
BY_PATH: Mapping[tuple[str, str], Kind] = {(kind.api, kind.plural): kind for kind in KINDS}


def copy(obj: Object) -> Object:
    """A deep copy of plain JSON data, several times as fast as copy.deepcopy."""
    copied: Object = marshal.loads(marshal.dumps(obj))
    return copied


def name_of(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def uid_of(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


def labels_of(obj: Object) -> dict[str, str]:
    labels: dict[str, str] = obj["metadata"].get("labels") or {}
    return labels


def going(obj: Object) -> bool:
    """Whether the object's deletion has begun."""
    return "deletionTimestamp" in obj["metadata"]


def controller_of(obj: Object) -> Object | None:
    """The owner reference of the controller, if there is one."""
    for owner in obj["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            found: Object = owner
            return found
    return None


def matches(obj: Object, wanted: Mapping[str, str]) -> bool:
    labels = labels_of(obj)
    return all(labels.get(key) == value for key, value in wanted.items())


def condition(obj: Object, type_: str) -> Object:
    """The condition of this type; empty if there is none."""
    for found in (obj.get("status") or {}).get("conditions") or []:
        if found["type"] == type_:
            condition_: Object = found
            return condition_
    return {}


def holds(obj: Object, type_: str) -> bool:
    return bool(condition(obj, type_).get("status") == "True")
