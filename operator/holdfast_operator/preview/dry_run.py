"""The API server as the operator would find it after a file was applied; every write is a dry run, and is noted.

The API server itself merges, defaults and checks what is written (dryRun=All), so its refusals are the real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import aiohttp

from holdfast_operator.kube import Kube, Object
from holdfast_operator.preview import forward

USER = "holdfast-operator-plan"
_IGNORED = {"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"}
_OURS = ("HoldfastCluster", "HoldfastEdgePool", "HoldfastConfig")
SHOWN_CHANGES = 20


class DryRun(Kube):
    """`objects`: those of the file. `changes`: what would be written, in words. `conditions`: those that would be
    written, by kind and name."""

    def hold(self, objects: list[Object]) -> None:
        self._held = {(o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]): o for o in objects}
        self._merged: dict[tuple[str, str, str], Object] = {}
        self.changes: list[str] = []
        self.conditions: dict[tuple[str, str], list[Object]] = {}

    # ---- reads: the objects of the file are there ----------------------------------------------------------

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        if (kind, namespace, name) in self._held:
            return await self._applied(kind, namespace, name)
        return await super().get(kind, namespace, name)

    async def list(self, kind: str, namespace: str = "", *, labels: str = "") -> list[Object]:
        found = await super().list(kind, namespace, labels=labels)
        if kind not in _OURS:
            return found
        named = {o["metadata"]["name"]: o for o in found}
        for held_kind, held_namespace, name in self._held:
            if (held_kind, held_namespace) == (kind, namespace):
                named[name] = await self._applied(kind, namespace, name)
        return list(named.values())

    async def _applied(self, kind: str, namespace: str, name: str) -> Object:
        """The object of the file as it would be afterwards: its spec, and its labels and annotations beside others."""
        key = (kind, namespace, name)
        if key not in self._merged:
            held, live = self._held[key], await super().get(*key)
            if live is None:
                method, path, body = "POST", self.path(kind, namespace), held
            else:
                meta = dict(live["metadata"])
                for words in ("labels", "annotations"):
                    meta[words] = {**(meta.get(words) or {}), **(held["metadata"].get(words) or {})}
                method, path, body = "PUT", self.path(*key), {**live, "metadata": meta, "spec": held.get("spec", {})}
            made = await super().request(method, path, body=body, query={"fieldManager": USER, "dryRun": "All"})
            # What is made by a dry run has no resource version, and an operator would read it again before it writes.
            meta = {"resourceVersion": "0", "generation": 1, **made["metadata"]}
            self._merged[key] = {**made, "apiVersion": held["apiVersion"], "kind": kind, "metadata": meta}
        return self._merged[key]

    # ---- writes: dry runs ----------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        content: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> Object:
        if method == "GET":
            return await super().request(method, path, body=body, content=content, query=query)
        if path.endswith("/status"):
            assert body is not None
            self.conditions[body["kind"], body["metadata"]["name"]] = body["status"].get("conditions", [])
            return body
        if path.endswith("/events") or "managedFields" in (body or {}).get("metadata", {}):
            return body or {}
        live = await self._live(method, path)
        dry = {**(query or {}), "dryRun": "All"}
        answer = await super().request(method, path, body=body, content=content, query=dry)
        self._note(method, path, live, answer, body or {})
        return answer

    async def _live(self, method: str, path: str) -> Object:
        return await super().request("GET", path) if method in ("PATCH", "PUT") else {}

    def _note(self, method: str, path: str, live: Object, answer: Object, body: Object) -> None:
        if method == "POST":
            self.changes.append(f"create the {body.get('kind', '')} {body['metadata']['name']}")
        elif method == "DELETE":
            self.changes.append(f"delete {path}")
        else:
            found = list(differences(live, answer, values=answer.get("kind") != "Secret"))
            more = f"; and {len(found) - SHOWN_CHANGES} more" if len(found) > SHOWN_CHANGES else ""
            words = "; ".join(found[:SHOWN_CHANGES]) + more
            self.changes.append(f"change the {answer.get('kind', '')} {answer['metadata']['name']}: {words}")

    # ---- members -------------------------------------------------------------------------------------------

    async def open_pod(self, namespace: str, pod: str) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to the client port of a pod."""
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return await self._session.ws_connect(
            f"{self._base}/{forward.path(namespace, pod)}",
            protocols=(forward.PROTOCOL,),
            headers={**self._headers(None), "accept": "*/*"},  # JSON it cannot be: that is refused
            ssl=self._tls if self._tls is not None else False,
        )


def differences(live: Any, wanted: Any, at: str = "", *, values: bool = True) -> Iterator[str]:
    """The fields that differ, each as `path: before → after`, or without `values` as `path`."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        for key in sorted({*live, *wanted} - _IGNORED):
            yield from differences(live.get(key), wanted.get(key), f"{at}.{key}" if at else key, values=values)
    elif isinstance(live, list) and isinstance(wanted, list) and len(live) == len(wanted):
        for n, (before, after) in enumerate(zip(live, wanted, strict=True)):
            yield from differences(before, after, f"{at}[{n}]", values=values)
    elif live != wanted:
        yield f"{at}: {_short(live)} → {_short(wanted)}" if values else at


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
