"""The scheduler: binds a pod, and the volumes of its claims, to a node; or says why it cannot."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast_operator.sim.admission import quantity
from holdfast_operator.sim.apiserver import ApiServer
from holdfast_operator.sim.machines import Hardware, Volume
from holdfast_operator.sim.objects import Object, going, holds, labels_of, matches, name_of, uid_of

HOSTNAME = "kubernetes.io/hostname"


class Scheduler:
    def __init__(self, api: ApiServer, hardware: Hardware, *, local_volumes: bool) -> None:
        self._api = api
        self._hardware = hardware
        self._local = local_volumes

    def step(self) -> None:
        for pod in self._api.list("Pod"):
            if not pod["spec"].get("nodeName") and not going(pod):
                self._one(pod)

    def _one(self, pod: Object) -> None:
        claims = [self._api.get("PersistentVolumeClaim", pod["metadata"]["namespace"], n) for n in claims_of(pod)]
        if any(claim is None or going(claim) for claim in claims):
            self._unschedulable(pod, 'persistentvolumeclaim "data" not found, or is being deleted')
            return
        volumes = [self._hardware.volumes.get(uid_of(claim)) for claim in claims if claim is not None]
        nodes = self._api.list("Node")
        fitting = [n for n in nodes if self._fits(pod, n, volumes, nodes)]
        if not fitting:
            self._unschedulable(pod, f"0/{len(nodes)} nodes are available: no node fits the pod")
            return
        node = min(fitting, key=lambda n: (len(self._on(name_of(n))), name_of(n)))
        for claim, volume in zip(claims, volumes, strict=True):
            if claim is not None and volume is None:
                self._provision(claim, name_of(node))
        self._api.edit(pod, lambda obj: obj["spec"].update(nodeName=name_of(node)), "scheduler")
        self._api.put_status(pod, {"phase": "Pending", "conditions": [_scheduled("True", "", "")]})

    def _provision(self, claim: Object, node: str) -> None:
        bound = node if self._local else ""
        self._hardware.volumes[uid_of(claim)] = Volume(name_of(claim), bound, self._hardware.fresh_disk())

        def bind(obj: Object) -> None:
            obj["spec"]["volumeName"] = f"pv-{uid_of(claim)}"
            obj["metadata"].setdefault("annotations", {})["volume.kubernetes.io/selected-node"] = node

        if self._local:
            here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
            affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}}
            volume = {"metadata": {"name": f"pv-{uid_of(claim)}"}, "spec": {"nodeAffinity": affinity}}
            self._api.create("PersistentVolume", "", volume)
        self._api.edit(claim, bind, "pv-controller")
        self._api.put_status(claim, {"phase": "Bound"})

    def _unschedulable(self, pod: Object, message: str) -> None:
        conditions = [_scheduled("False", "Unschedulable", message)]
        self._api.put_status(pod, {"phase": "Pending", "conditions": conditions})

    def _on(self, node: str) -> list[Object]:
        return [p for p in self._api.list("Pod") if p["spec"].get("nodeName") == node]

    # ---- predicates ----------------------------------------------------------------------------------------

    def _fits(self, pod: Object, node: Object, volumes: Iterable[Volume | None], nodes: list[Object]) -> bool:
        spec, name = pod["spec"], name_of(node)
        machine = self._hardware.machines.get(name)
        return (
            machine is not None
            and holds(node, "Ready")
            and not node.get("spec", {}).get("unschedulable")
            and matches(node, spec.get("nodeSelector") or {})
            and _wanted_by_affinity(spec, node)
            and _tolerates(spec, node)
            and all(volume is None or volume.node in ("", name) for volume in volumes)
            and _cpus(spec) <= machine.cpus
            and self._apart(pod, name)
            and self._spread(pod, name, nodes)
        )

    def _apart(self, pod: Object, node: str) -> bool:
        """Required anti-affinity, by hostname."""
        affinity = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
        here = self._on(node)
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or []:
            if any(matches(other, term["labelSelector"]["matchLabels"]) for other in here):
                return False
        return True

    def _spread(self, pod: Object, node: str, nodes: list[Object]) -> bool:
        """Topology spread by hostname. Cordoned nodes count, as by default in Kubernetes."""
        for rule in pod["spec"].get("topologySpreadConstraints") or []:
            if rule["topologyKey"] != HOSTNAME or rule["whenUnsatisfiable"] != "DoNotSchedule":
                continue
            labels = rule["labelSelector"]["matchLabels"]
            eligible = [name_of(n) for n in nodes if matches(n, pod["spec"].get("nodeSelector") or {})]
            counts = {n: sum(1 for p in self._on(n) if matches(p, labels) and not going(p)) for n in eligible}
            if counts.get(node, 0) + 1 - min(counts.values(), default=0) > rule["maxSkew"]:
                return False
        return True


def claims_of(pod: Object) -> list[str]:
    volumes = pod["spec"].get("volumes") or []
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def _scheduled(status: str, reason: str, message: str) -> Object:
    found = {"type": "PodScheduled", "status": status}
    return {**found, "reason": reason, "message": message} if reason else found


def _cpus(spec: Object) -> float:
    requests = [(c.get("resources") or {}).get("requests") or {} for c in spec["containers"]]
    return sum(quantity(r.get("cpu", "0")) for r in requests)


def _tolerates(spec: Object, node: Object) -> bool:
    for taint in (node.get("spec") or {}).get("taints") or []:
        if taint["effect"] in ("NoSchedule", "NoExecute") and not any(
            tolerates(toleration, taint) for toleration in spec.get("tolerations") or []
        ):
            return False
    return True


def tolerates(toleration: Object, taint: Object) -> bool:
    key, effect = toleration.get("key"), toleration.get("effect")
    if (key and key != taint["key"]) or (effect and effect != taint["effect"]):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _wanted_by_affinity(spec: Object, node: Object) -> bool:
    """Required node affinity: matchExpressions with In, matchFields with the node's name."""
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not required:
        return True
    for term in required["nodeSelectorTerms"]:
        by_label = [labels_of(node).get(e["key"]) in e.get("values", []) for e in term.get("matchExpressions") or []]
        by_field = [name_of(node) in e.get("values", []) for e in term.get("matchFields") or []]
        if all(by_label) and all(by_field):
            return True
    return False
