"""A small asyncio client of the Kubernetes API: server-side apply, status, and the few verbs the operator uses.

The official client needs 40 MB of memory and has no usable server-side apply; kopf has none at all.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

Object = dict[str, Any]
FIELD_MANAGER = "holdfast-operator"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_SECONDS = 60.0
TIMEOUT = aiohttp.ClientTimeout(total=30)

_PATHS = {
    "Pod": "api/v1/{ns}pods",
    "Service": "api/v1/{ns}services",
    "Secret": "api/v1/{ns}secrets",
    "ServiceAccount": "api/v1/{ns}serviceaccounts",
    "PersistentVolumeClaim": "api/v1/{ns}persistentvolumeclaims",
    "Event": "api/v1/{ns}events",
    "Node": "api/v1/nodes",
    "PersistentVolume": "api/v1/persistentvolumes",
    "Deployment": "apis/apps/v1/{ns}deployments",
    "StatefulSet": "apis/apps/v1/{ns}statefulsets",
    "PodDisruptionBudget": "apis/policy/v1/{ns}poddisruptionbudgets",
    "HoldfastCluster": "apis/holdfast.dev/v1alpha1/{ns}holdfastclusters",
    "HoldfastEdgePool": "apis/holdfast.dev/v1alpha1/{ns}holdfastedgepools",
    "HoldfastConfig": "apis/holdfast.dev/v1alpha1/{ns}holdfastconfigs",
    "HoldfastCells": "apis/holdfast.dev/v1alpha1/{ns}holdfastcells",
}


class ApiError(Exception):
    """The API server refused the request. `reason` is its machine-readable reason, such as NotFound or Conflict."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{reason} ({status}): {message}")
        self.status = status
        self.reason = reason

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later, so that the user need not know of it."""
        return self.reason == "Conflict" or self.status == 429 or self.status >= 500


class Kube:
    """One connection to the API server, in a pod as its service account."""

    def __init__(self, base: str, *, tls: ssl.SSLContext | None, token_file: Path | None, token: str = "") -> None:
        """`token_file` is read again, because Kubernetes rotates the token; `token` is used if there is no file."""
        self._base = base.rstrip("/")
        self._tls = tls
        self._token_file = token_file
        self._token = token
        self._token_at = 0.0
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def in_cluster(cls) -> Kube:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        host = f"[{host}]" if ":" in host else host
        tls = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
        return cls(f"https://{host}:{port}", tls=tls, token_file=_ACCOUNT / "token")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _headers(self, content: str | None) -> dict[str, str]:
        headers = {"accept": "application/json"}
        if content:
            headers["content-type"] = content
        if self._token_file is not None and time.monotonic() - self._token_at > _TOKEN_SECONDS:
            self._token = self._token_file.read_text().strip()
            self._token_at = time.monotonic()
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        return headers

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        content: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> Object:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method,
            f"{self._base}/{path}",
            data=data,
            params=query or {},
            headers=self._headers(content if body is not None else None),
            ssl=self._tls if self._tls is not None else False,
        ) as response:
            answer: Object = await response.json(content_type=None)
            if response.status >= 400:
                raise ApiError(response.status, answer.get("reason", "Unknown"), answer.get("message", "no message"))
            return answer

    async def version(self) -> tuple[int, int]:
        """(major, minor) of the API server."""
        found = await self.request("GET", "version")
        minor = "".join(c for c in found["minor"] if c.isdigit())  # some distributions write 34+
        return int(found["major"]), int(minor)

    @staticmethod
    def path(kind: str, namespace: str = "", name: str = "", sub: str = "") -> str:
        path = _PATHS[kind].format(ns=f"namespaces/{namespace}/" if namespace else "")
        return path + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")

    def now(self) -> datetime:
        """The time by which the age of objects and certificates is judged."""
        return datetime.now(UTC)

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        try:
            return await self.request("GET", self.path(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: str, namespace: str = "", *, labels: str = "") -> list[Object]:
        query = {"labelSelector": labels} if labels else {}
        answer = await self.request("GET", self.path(kind, namespace), query=query)
        named = {"apiVersion": answer["apiVersion"], "kind": kind}  # a list names them once, not in each item
        return [{**named, **item} for item in answer.get("items") or []]

    async def create(self, kind: str, namespace: str, obj: Object) -> Object:
        return await self.request("POST", self.path(kind, namespace), body=obj, query={"fieldManager": FIELD_MANAGER})

    async def apply(self, kind: str, namespace: str, obj: Object) -> Object:
        """Server-side apply: we own the fields that we set, what we no longer set goes, other fields stay as they are.
        If `obj.metadata` has uid or resourceVersion, only that object in that version is changed, else Conflict."""
        return await self.request(
            "PATCH",
            self.path(kind, namespace, obj["metadata"]["name"]),
            body=obj,
            content="application/apply-patch+yaml",
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
        )

    async def replace(self, obj: Object) -> Object:
        """Replace exactly this version of the object."""
        meta = obj["metadata"]
        path = self.path(obj["kind"], meta["namespace"], meta["name"])
        return await self.request("PUT", path, body=obj, query={"fieldManager": FIELD_MANAGER})

    async def replace_managers(self, obj: Object, managers: Sequence[Object]) -> None:
        """Replace the managed fields of exactly this version of the object."""
        meta = obj["metadata"]
        await self.request(
            "PATCH",
            self.path(obj["kind"], meta["namespace"], meta["name"]),
            body={
                "metadata": {
                    "uid": meta["uid"],
                    "resourceVersion": meta["resourceVersion"],
                    "managedFields": list(managers),
                }
            },
            content="application/merge-patch+json",
        )

    async def annotate(self, kind: str, namespace: str, name: str, *, uid: str, annotations: dict[str, str]) -> None:
        """Set annotations of exactly the object with this uid."""
        await self.request(
            "PATCH",
            self.path(kind, namespace, name),
            body={"metadata": {"uid": uid, "annotations": annotations}},
            content="application/merge-patch+json",
            query={"fieldManager": FIELD_MANAGER},
        )

    async def update_status(self, obj: Object, status: Object) -> Object:
        """Replace the status of one of our kinds. Raises ApiError with reason Conflict if the object has changed since
        it was read."""
        meta = obj["metadata"]
        keys = ("name", "namespace", "uid", "resourceVersion")
        body = {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "metadata": {key: meta[key] for key in keys},
            "spec": obj["spec"],
            "status": status,
        }
        return await self.request("PUT", self.path(obj["kind"], meta["namespace"], meta["name"], "status"), body=body)

    async def delete(
        self, kind: str, namespace: str, name: str, *, uid: str, version: str = "", now: bool = False
    ) -> bool:
        """Delete exactly the object with this uid, and if `version` is given in this resource version; `now`: without a
        grace period. It is no error if it is gone or has changed: then the answer is False."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        if version:
            body["preconditions"]["resourceVersion"] = version
        if now:
            body["gracePeriodSeconds"] = 0
        try:
            await self.request("DELETE", self.path(kind, namespace, name), body=body)
        except ApiError as error:
            if error.status != 404 and error.reason != "Conflict":
                raise
            return False
        return True

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        """End exactly the pod with this uid if no disruption budget forbids it: then ApiError with status 429. False:
        it is gone."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        try:
            await self.request("POST", self.path("Pod", namespace, name, "eviction"), body=body)
        except ApiError as error:
            if error.status != 404 and error.reason != "Conflict":
                raise
            return False
        return True

    async def event(self, about: Object, type_: str, reason: str, message: str) -> None:
        """Record an event, which `kubectl describe` shows."""
        meta = about["metadata"]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name']}-", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "type": type_,
            "reason": reason,
            "message": message[:1000],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": FIELD_MANAGER},
        }
        await self.create("Event", meta["namespace"], event)
