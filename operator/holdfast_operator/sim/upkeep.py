"""The remaining controllers: garbage collection, protection of claims in use, nodes and the pods on them."""

from __future__ import annotations

from collections.abc import Callable

from holdfast_operator.sim.apiserver import ApiServer
from holdfast_operator.sim.machines import Hardware, Machine
from holdfast_operator.sim.objects import Object, going, holds, name_of, uid_of
from holdfast_operator.sim.scheduler import claims_of, tolerates

# Shorter than the real ones (50 s, 300 s), so that seeds need less virtual time.
SILENT_SECONDS = 5.0
EVICT_SECONDS = 60.0
GARBAGE_SECONDS = 2.0  # the garbage collector learns of deletions by watching, and works them off one by one
UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}


class Upkeep:
    def __init__(self, api: ApiServer, hardware: Hardware, clock: Callable[[], float]) -> None:
        self._api = api
        self._hardware = hardware
        self._clock = clock
        self._collected = (-1, -GARBAGE_SECONDS)  # the version and the time of the last collection
        self._released = -1

    def step(self) -> None:
        self._nodes()
        version, now = self._api.version, self._clock()
        if version != self._collected[0] and now - self._collected[1] >= GARBAGE_SECONDS:
            self._collect_garbage()
            self._collected = (self._api.version, now)
        if self._api.version != self._released:
            self._release_claims()
            self._released = self._api.version

    # ---- objects -------------------------------------------------------------------------------------------

    def _collect_garbage(self) -> None:
        """Delete what lost all its owners; forget owners that are gone."""
        alive = {uid_of(obj) for obj in self._api.everything()}
        for obj in self._api.everything():
            owners = obj["metadata"].get("ownerReferences") or []
            gone = [owner["uid"] for owner in owners if owner["uid"] not in alive]
            if gone and len(gone) == len(owners) and not going(obj):
                namespace = obj["metadata"].get("namespace", "")
                self._api.delete(obj["kind"], namespace, name_of(obj), uid=uid_of(obj))
            elif gone and len(gone) < len(owners):
                self._api.edit(obj, lambda o, gone=gone: _disown(o, gone), "garbage-collector")  # type: ignore[misc]

    def _release_claims(self) -> None:
        """A claim that is being deleted goes when no pod uses it; its volume and disk go with it."""
        used = {(p["metadata"]["namespace"], name) for p in self._api.list("Pod") for name in claims_of(p)}
        for claim in self._api.list("PersistentVolumeClaim"):
            if going(claim) and (claim["metadata"]["namespace"], name_of(claim)) not in used:
                self._api.edit(claim, lambda obj: obj["metadata"].update(finalizers=[]), "pvc-protection")
        claims = {uid_of(claim) for claim in self._api.list("PersistentVolumeClaim")}
        for uid in [uid for uid in self._hardware.volumes if uid not in claims]:
            del self._hardware.volumes[uid]

    # ---- nodes ---------------------------------------------------------------------------------------------

    def _nodes(self) -> None:
        now = self._clock()
        for machine in self._hardware.machines.values():
            node = self._api.get("Node", "", machine.name)
            if node is None:
                continue
            if machine.alive and machine.reports:
                machine.silent_since = None
                self._say(node, "True")
                continue
            machine.silent_since = now if machine.silent_since is None else machine.silent_since
            if now - machine.silent_since >= SILENT_SECONDS:
                self._say(node, "Unknown")
                self._lose_pods(machine, evict=now - machine.silent_since >= EVICT_SECONDS)
        nodes = {name_of(node) for node in self._api.list("Node")}
        for pod in self._api.list("Pod"):
            if pod["spec"].get("nodeName") and pod["spec"]["nodeName"] not in nodes:
                self._api.erase(pod)  # the pod garbage collector

    def _say(self, node: Object, ready: str) -> None:
        if (node.get("status") or {}).get("conditions", [{}])[0].get("status") == ready:
            return
        taints = [t for t in (node.get("spec") or {}).get("taints") or [] if t["key"] != UNREACHABLE["key"]]
        taints += [] if ready == "True" else [UNREACHABLE]
        self._api.edit(node, lambda obj: obj.setdefault("spec", {}).update(taints=taints), "node-controller")
        self._api.put_status(node, {"conditions": [{"type": "Ready", "status": ready}]})

    def _lose_pods(self, machine: Machine, *, evict: bool) -> None:
        """The pods of a silent node count as not ready; after a while those that do not tolerate it are deleted."""
        for pod in self._api.list("Pod"):
            if pod["spec"].get("nodeName") != machine.name:
                continue
            if holds(pod, "Ready"):
                conditions = [
                    {**c, "status": "False"} if c["type"] == "Ready" else c for c in pod["status"]["conditions"]
                ]
                self._api.put_status(pod, {**pod["status"], "conditions": conditions})
            stays = any(tolerates(t, UNREACHABLE) for t in pod["spec"].get("tolerations") or [])
            if evict and not stays and not going(pod):
                self._api.delete("Pod", pod["metadata"]["namespace"], name_of(pod))


def _disown(obj: Object, gone: list[str]) -> None:
    meta = obj["metadata"]
    meta["ownerReferences"] = [owner for owner in meta["ownerReferences"] if owner["uid"] not in gone]
