"""A model of the Kubernetes API server: versions, preconditions, ownership of fields, deletion, eviction, watches.

Everything here happens at once and in memory. Latency and lost answers belong to those who call (`sim.kube`). A stored
object is never changed in place, so that readers need no copies; a write puts a new object in its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

from holdfast_operator.kube import ApiError
from holdfast_operator.sim import admission
from holdfast_operator.sim.clock import timestamp
from holdfast_operator.sim.fields import Ownership
from holdfast_operator.sim.objects import BY_NAME, Object, copy, going, holds, matches

Where = tuple[str, str]  # namespace, name
Watcher = Callable[[str, Object], None]  # ADDED, MODIFIED or DELETED; the object

_PROTECTION = "kubernetes.io/pvc-protection"


def not_found(kind: str, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{kind} "{name}" not found')


def conflict(kind: str, name: str, message: str) -> ApiError:
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {kind} "{name}": {message}')


class ApiServer:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._objects: dict[str, dict[Where, Object]] = {kind: {} for kind in BY_NAME}
        self._ownership: dict[str, Ownership] = {}
        self._answers: dict[str, tuple[Object, Object]] = {}  # by uid: the stored object, and what readers get
        self._numbers = itertools.count(1)
        self._uids = itertools.count(1)
        self.version = 0  # of the last write
        self.watchers: list[Watcher] = []

    # ---- reading -------------------------------------------------------------------------------------------

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._objects[kind].get((namespace, name))

    def list(self, kind: str, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[Object]:
        """The objects in the order of their names; of all namespaces if none is given."""
        objects = self._objects[kind]
        return [
            objects[where]
            for where in sorted(objects)
            if (not namespace or where[0] == namespace) and (not labels or matches(objects[where], labels))
        ]

    def everything(self) -> Iterator[Object]:
        for objects in self._objects.values():
            yield from list(objects.values())

    def named(self, kind: str, namespace: str, name: str) -> Object:
        found = self.get(kind, namespace, name)
        if found is None:
            raise not_found(kind, name)
        return found

    def answer(self, obj: Object, *, managers: bool = False) -> Object:
        """What a reader gets. Readers share one copy of each version; its top level and its metadata are their own."""
        uid = obj["metadata"]["uid"]
        known = self._answers.get(uid)
        if known is None or known[0] is not obj:
            known = self._answers[uid] = (obj, copy(obj))
        meta = dict(known[1]["metadata"])
        if managers:
            meta["managedFields"] = self._ownership[uid].shown()
        return {**known[1], "metadata": meta}

    # ---- writing -------------------------------------------------------------------------------------------

    def create(self, kind: str, namespace: str, wanted: Object, manager: str = "someone") -> Object:
        obj = copy(wanted)
        meta = obj["metadata"]
        obj["kind"], obj["apiVersion"] = kind, BY_NAME[kind].api
        if "name" not in meta:
            meta["name"] = f"{meta['generateName']}{next(self._numbers):05d}"
        name = meta["name"]
        if self.get(kind, namespace, name) is not None:
            raise ApiError(409, "AlreadyExists", f'{kind} "{name}" already exists')
        for key in ("resourceVersion", "deletionTimestamp", "managedFields"):
            meta.pop(key, None)
        if namespace:
            meta["namespace"] = namespace
        meta["uid"] = f"uid-{next(self._uids)}"
        meta["generation"] = 1
        meta["creationTimestamp"] = timestamp(self._clock())
        if kind == "PersistentVolumeClaim":
            meta["finalizers"] = [*meta.get("finalizers", []), _PROTECTION]
        if kind in ("Pod", "PersistentVolumeClaim"):
            obj["status"] = {"phase": "Pending"}
        else:
            obj.pop("status", None)
        admission.add_defaults(obj)
        admission.check(obj, None)
        self._ownership[meta["uid"]] = Ownership()
        self._ownership[meta["uid"]].updated(manager, None, obj)
        self._store(obj, "ADDED")
        return obj

    def apply(self, kind: str, namespace: str, wanted: Object, manager: str) -> Object:
        """Server-side apply with force."""
        meta = wanted["metadata"]
        live = self.get(kind, namespace, meta["name"])
        if live is None:
            if meta.get("uid"):
                raise conflict(kind, meta["name"], "the object with this uid is gone")
            made = self.create(kind, namespace, wanted, manager)
            ownership = self._ownership[made["metadata"]["uid"]] = Ownership()
            ownership.applied(manager, made, wanted)
            return made
        self._check_version(live, meta)
        ownership = self._ownership[live["metadata"]["uid"]]
        result = ownership.applied(manager, live, wanted)
        return self._replace(live, result, spec=True)

    def update(self, obj: Object, manager: str = "someone") -> Object:
        """Replace everything but the status (PUT). Checks the version if `obj` has one."""
        live = self.named(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        self._check_version(live, obj["metadata"])
        wanted = copy(obj)
        if "status" in live:
            wanted["status"] = live["status"]
        self._ownership[live["metadata"]["uid"]].updated(manager, live, wanted)
        return self._replace(live, wanted, spec=True)

    def edit(self, obj: Object, change: Callable[[Object], None], manager: str = "someone") -> Object:
        """Change the newest version of the object; nothing happens if it is gone."""
        live = self.get(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if live is None or live["metadata"]["uid"] != obj["metadata"]["uid"]:
            return obj
        wanted = copy(live)
        change(wanted)
        return self.update(wanted, manager)

    def merge(self, kind: str, namespace: str, name: str, patch: Object, manager: str) -> Object:
        """JSON merge patch (RFC 7386)."""
        live = self.named(kind, namespace, name)
        self._check_version(live, patch.get("metadata") or {})
        wanted = copy(live)
        _merge_patch(wanted, patch)
        managers = wanted["metadata"].pop("managedFields", None)
        if managers is not None:
            self._ownership[live["metadata"]["uid"]].replace(managers)
        return self.update(wanted, manager)

    def set_status(self, obj: Object, status: Object) -> Object:
        """Replace the status. Checks the version if `obj` has one that is not the live one's."""
        live = self.named(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        self._check_version(live, obj["metadata"])
        if live.get("status") == status:
            return live
        return self._replace(live, {**live, "status": copy(status)}, spec=False)

    def put_status(self, obj: Object, status: Object) -> None:
        """As a controller that is alone in writing this status: whatever version the object has."""
        live = self.get(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if live is not None and live["metadata"]["uid"] == obj["metadata"]["uid"]:
            meta = {"name": obj["metadata"]["name"], "namespace": obj["metadata"].get("namespace", "")}
            self.set_status({"kind": obj["kind"], "metadata": meta}, status)

    def _replace(self, live: Object, wanted: Object, *, spec: bool) -> Object:
        meta = dict(wanted["metadata"])
        for key in ("uid", "generation", "creationTimestamp", "deletionTimestamp", "resourceVersion"):
            if key in live["metadata"]:
                meta[key] = live["metadata"][key]
        obj = {**wanted, "kind": live["kind"], "apiVersion": live["apiVersion"], "metadata": meta}
        if spec:
            admission.add_defaults(obj)
            admission.check(obj, live)
            if obj.get("spec") != live.get("spec"):
                meta["generation"] = live["metadata"]["generation"] + 1
        if obj == live:
            return live  # a write that changes nothing makes no new version
        if going(obj) and not meta.get("finalizers") and live["metadata"].get("finalizers"):
            self.erase(obj)
            return obj
        self._store(obj, "MODIFIED")
        return obj

    def _store(self, obj: Object, event: str) -> None:
        self.version += 1
        meta = obj["metadata"]
        meta["resourceVersion"] = str(self.version)
        self._objects[obj["kind"]][meta.get("namespace", ""), meta["name"]] = obj
        for watcher in self.watchers:
            watcher(event, obj)

    @staticmethod
    def _check_version(live: Object, meta: Object) -> None:
        for key in ("uid", "resourceVersion"):
            if meta.get(key) and meta[key] != live["metadata"][key]:
                message = f"the object has been modified: {key} is {live['metadata'][key]}, not {meta[key]}"
                raise conflict(live["kind"], live["metadata"]["name"], message)

    # ---- deletion ------------------------------------------------------------------------------------------

    def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        version: str = "",
        grace: float | None = None,
        orphan: bool = False,
    ) -> None:
        """Begin the deletion. It ends when no finalizer is left, and for a pod when its kubelet says so."""
        live = self.named(kind, namespace, name)
        self._check_version(live, {"uid": uid, "resourceVersion": version})
        if orphan:
            self._orphan(live)
        if kind == "Pod":
            self._delete_pod(live, grace)
        elif live["metadata"].get("finalizers"):
            self._mark(live, 0)
        else:
            self.erase(live)

    def _orphan(self, owner: Object) -> None:
        uid = owner["metadata"]["uid"]

        def forget(obj: Object) -> None:
            meta = obj["metadata"]
            meta["ownerReferences"] = [o for o in meta["ownerReferences"] if o["uid"] != uid]

        for obj in self.everything():
            if any(o["uid"] == uid for o in obj["metadata"].get("ownerReferences") or []):
                self.edit(obj, forget)

    def _delete_pod(self, pod: Object, grace: float | None) -> None:
        seconds = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        if seconds == 0 or not pod["spec"].get("nodeName"):
            self.erase(pod)
        else:
            self._mark(pod, seconds)

    def _mark(self, live: Object, grace: float) -> None:
        if going(live):
            return
        meta = {**live["metadata"], "deletionTimestamp": timestamp(self._clock()), "deletionGracePeriodSeconds": grace}
        self._store({**live, "metadata": meta}, "MODIFIED")

    def erase(self, obj: Object) -> None:
        """The object is gone."""
        meta = obj["metadata"]
        live = self._objects[obj["kind"]].pop((meta.get("namespace", ""), meta["name"]), None)
        if live is not None:
            self.version += 1
            self._ownership.pop(meta["uid"], None)
            for watcher in self.watchers:
                watcher("DELETED", live)

    def evict(self, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete the pod if no disruption budget forbids it."""
        pod = self.named("Pod", namespace, name)
        self._check_version(pod, {"uid": uid})
        if not going(pod) and holds(pod, "Ready"):
            for budget in self.list("PodDisruptionBudget", namespace):
                if matches(pod, budget["spec"]["selector"]["matchLabels"]) and self._allowed(budget) < 1:
                    message = "Cannot evict pod as it would violate the pod's disruption budget."
                    raise ApiError(429, "TooManyRequests", message)
        self.delete("Pod", namespace, name, uid=uid)

    def _allowed(self, budget: Object) -> int:
        """How many pods the budget lets go now."""
        spec = budget["spec"]
        pods = self.list("Pod", budget["metadata"]["namespace"], spec["selector"]["matchLabels"])
        healthy = sum(1 for pod in pods if holds(pod, "Ready") and not going(pod))
        if "maxUnavailable" in spec:
            return int(spec["maxUnavailable"]) - (len(pods) - healthy)
        return healthy - int(spec["minAvailable"])


def _merge_patch(into: Object, patch: Object) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            inner = into[key] if isinstance(into.get(key), dict) else {}
            into[key] = inner
            _merge_patch(inner, value)
        else:
            into[key] = value
