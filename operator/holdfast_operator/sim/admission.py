"""What the API server refuses, and the defaults that it adds: as far as the operator can meet them."""

from __future__ import annotations

from typing import Any

from holdfast_operator.kube import ApiError
from holdfast_operator.sim.objects import Object, name_of

_CHANGEABLE = {
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "revisionHistoryLimit",
}
_UNITS = {"": 1.0, "m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGT", 1)
}


def quantity(text: str) -> float:
    """The value of a quantity such as 500m or 1Gi."""
    number = text.rstrip("kKMGTim")
    return float(number) * _UNITS[text[len(number) :]]


def invalid(kind: str, name: str, message: str) -> ApiError:
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {message}')


def check(obj: Object, before: Object | None) -> None:
    """Raise ApiError if the API server would not take the object."""
    kind, name = obj["kind"], obj["metadata"]["name"]
    controllers = [o for o in obj["metadata"].get("ownerReferences") or [] if o.get("controller")]
    if len(controllers) > 1:
        raise invalid(kind, name, "metadata.ownerReferences: Only one reference can have Controller set to true")
    if kind == "StatefulSet":
        _check_stateful_set(obj, before)
    elif kind == "Pod" and before is None:
        _check_resources(kind, name, obj["spec"])
    elif kind == "PersistentVolumeClaim" and before is not None:
        if obj["spec"].get("accessModes") != before["spec"].get("accessModes"):
            raise invalid(kind, name, "spec: Forbidden: spec is immutable after creation except resources.requests")
    elif kind == "Secret" and before is not None and obj.get("type") != before.get("type"):
        raise invalid(kind, name, "type: Invalid value: field is immutable")
    elif kind == "Service":
        _check_service(obj)


def _check_service(obj: Object) -> None:
    names = [port.get("name") for port in obj["spec"].get("ports") or []]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise invalid("Service", name_of(obj), f'spec.ports[{at}].name: Duplicate value: "{name}"')


def _check_stateful_set(obj: Object, before: Object | None) -> None:
    name, spec = obj["metadata"]["name"], obj["spec"]
    labels = spec["template"]["metadata"].get("labels") or {}
    wanted = spec["selector"]["matchLabels"]
    if any(labels.get(key) != value for key, value in wanted.items()):
        raise invalid("StatefulSet", name, "spec.template.metadata.labels: `selector` does not match template `labels`")
    _check_resources("StatefulSet", name, spec["template"]["spec"])
    if before is not None:
        fixed = [k for k in {**before["spec"], **spec} if k not in _CHANGEABLE]
        if any(before["spec"].get(k) != spec.get(k) for k in fixed):
            raise invalid(
                "StatefulSet",
                name,
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', "
                "'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' "
                "and 'minReadySeconds' are forbidden",
            )


def _check_resources(kind: str, name: str, pod: Object) -> None:
    for index, container in enumerate(pod["containers"]):
        resources = container.get("resources") or {}
        for what, text in (resources.get("requests") or {}).items():
            limit = (resources.get("limits") or {}).get(what)
            if limit is not None and quantity(text) > quantity(limit):
                at = f"spec.containers[{index}].resources.requests"
                raise invalid(kind, name, f"{at}: Invalid value: {text!r}: must be less than or equal to {what} limit")


def add_defaults(obj: Object) -> None:
    """Set what the API server sets if it is absent."""
    kind = obj["kind"]
    if kind == "StatefulSet":
        spec = obj["spec"]
        _default(spec, {"replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady"})
        _default_pod(spec["template"]["spec"])
        for claim in spec.get("volumeClaimTemplates") or []:
            _default(claim, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}})
            _default(claim["spec"], {"volumeMode": "Filesystem"})
    elif kind == "Pod":
        _default_pod(obj["spec"])
    elif kind == "Service":
        spec = obj["spec"]
        _default(spec, {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"})
        _default(spec, {"ipFamilyPolicy": "SingleStack", "clusterIP": "10.96.0.17"})
        for port in spec.get("ports") or []:
            _default(port, {"protocol": "TCP", "targetPort": port["port"]})
    elif kind == "PersistentVolumeClaim":
        _default(obj["spec"], {"volumeMode": "Filesystem"})
    elif kind == "Secret":
        _default(obj, {"type": "Opaque"})


def _default_pod(spec: Object) -> None:
    _default(
        spec,
        {
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30,
            "securityContext": {},
        },
    )
    for container in spec.get("containers") or []:
        _default(
            container,
            {
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
                "resources": {},
            },
        )
        for port in container.get("ports") or []:
            _default(port, {"protocol": "TCP"})


def _default(into: Object, values: dict[str, Any]) -> None:
    for key, value in values.items():
        into.setdefault(key, value)
