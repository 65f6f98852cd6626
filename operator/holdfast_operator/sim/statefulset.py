"""The StatefulSet controller, for OnDelete and Parallel: what it does with ordinals, claims and ownership."""

from __future__ import annotations

import hashlib
import json

from holdfast_operator.kube import ApiError
from holdfast_operator.sim.apiserver import ApiServer
from holdfast_operator.sim.objects import (
    Object,
    controller_of,
    copy,
    going,
    holds,
    labels_of,
    matches,
    name_of,
    uid_of,
)


def ordinal(pod: str, of: str) -> int:
    head, _, tail = pod.rpartition("-")
    return int(tail) if head == of and tail.isdigit() else -1


class StatefulSets:
    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._seen = -1

    def step(self) -> None:
        if self._seen == self._api.version:
            return  # everything is as it was
        self._seen = self._api.version
        for stateful in self._api.list("StatefulSet"):
            if not going(stateful):
                self._one(stateful)

    def _one(self, stateful: Object) -> None:
        api, name, spec = self._api, name_of(stateful), stateful["spec"]
        namespace = stateful["metadata"]["namespace"]
        pods: dict[int, Object] = {}
        for pod in api.list("Pod", namespace, spec["selector"]["matchLabels"]):
            number = ordinal(name_of(pod), name)
            if number >= 0 and self._is_ours(stateful, pod):
                pods[number] = pod
        for number in range(spec["replicas"]):
            if number not in pods or not pods[number]["spec"].get("nodeName"):
                self._claims(stateful, number)
            if number not in pods:
                self._make(stateful, number)
        for number in sorted(pods, reverse=True):
            if number >= spec["replicas"] and not going(pods[number]):
                api.delete("Pod", namespace, name_of(pods[number]))
        ready = sum(1 for pod in pods.values() if holds(pod, "Ready"))
        api.put_status(
            stateful,
            {
                "observedGeneration": stateful["metadata"]["generation"],
                "replicas": len(pods),
                "readyReplicas": ready,
                "updateRevision": revision(stateful),
            },
        )

    def _is_ours(self, stateful: Object, pod: Object) -> bool:
        """Whether we control the pod; an orphan is adopted."""
        controller = controller_of(pod)
        if controller is not None:
            return bool(controller["uid"] == uid_of(stateful))
        if going(pod):
            return False

        def adopt(obj: Object) -> None:
            obj["metadata"].setdefault("ownerReferences", []).append(_owner(stateful))

        self._api.edit(pod, adopt, "statefulset-controller")
        return True

    def _claims(self, stateful: Object, number: int) -> None:
        spec, namespace = stateful["spec"], stateful["metadata"]["namespace"]
        for template in spec.get("volumeClaimTemplates") or []:
            name = f"{name_of(template)}-{name_of(stateful)}-{number}"
            if self._api.get("PersistentVolumeClaim", namespace, name) is None:
                labels = {**labels_of(template), **spec["selector"]["matchLabels"]}
                claim = {"metadata": {"name": name, "labels": labels}, "spec": copy(template["spec"])}
                self._api.create("PersistentVolumeClaim", namespace, claim, "statefulset-controller")

    def _make(self, stateful: Object, number: int) -> None:
        spec, name = stateful["spec"], name_of(stateful)
        namespace = stateful["metadata"]["namespace"]
        volumes = []
        for template in spec.get("volumeClaimTemplates") or []:
            claim_name = f"{name_of(template)}-{name}-{number}"
            claim = self._api.get("PersistentVolumeClaim", namespace, claim_name)
            if claim is None or going(claim):
                return  # the real controller waits, too, until a claim that is being deleted is gone
            volumes.append({"name": name_of(template), "persistentVolumeClaim": {"claimName": claim_name}})
        pod = copy(spec["template"])
        pod["metadata"]["name"] = f"{name}-{number}"
        pod["metadata"]["labels"].update(
            {
                "controller-revision-hash": revision(stateful),
                "statefulset.kubernetes.io/pod-name": f"{name}-{number}",
                "apps.kubernetes.io/pod-index": str(number),
            }
        )
        pod["metadata"]["ownerReferences"] = [_owner(stateful)]
        pod["spec"]["volumes"] = [*(pod["spec"].get("volumes") or []), *volumes]
        pod["spec"]["hostname"] = f"{name}-{number}"
        pod["spec"]["subdomain"] = spec["serviceName"]
        try:
            self._api.create("Pod", namespace, pod, "statefulset-controller")
        except ApiError as error:
            if error.reason not in ("AlreadyExists", "Invalid"):  # a pod of another owner, or a bad template: waits
                raise


def _owner(stateful: Object) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": name_of(stateful),
        "uid": uid_of(stateful),
        "controller": True,
        "blockOwnerDeletion": True,
    }


_revisions: dict[str, tuple[Object, str]] = {}  # by uid: the template, which is compared by identity, and its name


def revision(stateful: Object) -> str:
    """The name of the revision that the template is; it takes a while to compute, and is asked for at every step."""
    template = stateful["spec"]["template"]
    known = _revisions.get(uid_of(stateful))
    if known is None or known[0] is not template:
        known = _revisions[uid_of(stateful)] = (template, _revision(stateful))
    return known[1]


def _revision(stateful: Object) -> str:
    text = json.dumps(stateful["spec"]["template"], sort_keys=True)
    return f"{name_of(stateful)}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def selects(stateful: Object, pod: Object) -> bool:
    return matches(pod, stateful["spec"]["selector"]["matchLabels"])
