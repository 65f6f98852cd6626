"""The operator's own Kubernetes client over the simulated API server.

Only the HTTP request is replaced, so that every verb of `holdfast_operator.kube.Kube` is the real one. A request takes
time, may be refused, and may get lost before or after it took effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from holdfast_operator.kube import ApiError, Kube
from holdfast_operator.sim.apiserver import ApiServer
from holdfast_operator.sim.clock import EPOCH
from holdfast_operator.sim.objects import BY_PATH, Kind, Object, copy


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the API server understands it."""

    method: str
    kind: Kind
    namespace: str
    name: str
    sub: str
    body: Object
    content: str
    query: dict[str, str]

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    def __str__(self) -> str:
        name = self.name or self.body.get("metadata", {}).get("name", "")
        sub = f"/{self.sub}" if self.sub else ""
        return f"{self.method} {self.kind.name}{sub} {name}"


@dataclass(slots=True)
class Faults:
    """How often requests fail, and which writes are refused at all."""

    error: float = 0.0  # 500
    busy: float = 0.0  # 429
    lost_request: float = 0.0
    lost_answer: float = 0.0
    events_forbidden: bool = False
    latency: float = 0.01


class SimKube(Kube):
    """`before` is called with each request right before it takes effect, `after` once it has taken effect."""

    def __init__(
        self,
        api: ApiServer,
        rng: Random,
        faults: Faults,
        before: Callable[[Request], None],
        after: Callable[[Request], None],
    ) -> None:
        super().__init__("http://simulated", tls=None, token_file=None)
        self._api = api
        self._rng = rng
        self._faults = faults
        self._before = before
        self._after = after

    def now(self) -> datetime:
        return datetime.fromtimestamp(EPOCH + asyncio.get_running_loop().time(), UTC)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        content: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> Object:
        request = parse(method, path, body or {}, content, query or {})
        faults, rng = self._faults, self._rng
        await asyncio.sleep(rng.random() * faults.latency)
        fate = rng.random()
        for share, error in ((faults.error, (500, "InternalError")), (faults.busy, (429, "TooManyRequests"))):
            fate -= share
            if fate < 0:
                raise ApiError(*error, "injected by the simulation")
        if fate < faults.lost_request:
            await asyncio.sleep(5)
            raise TimeoutError
        if faults.events_forbidden and request.kind.name == "Event":
            raise ApiError(403, "Forbidden", "events is forbidden: exceeded quota: count/events=0")
        self._before(request)
        try:
            answer = serve(self._api, request)
        finally:
            self._after(request)
        await asyncio.sleep(rng.random() * faults.latency)
        if request.writes and fate < faults.lost_request + faults.lost_answer:
            await asyncio.sleep(5)
            raise TimeoutError
        return answer


def parse(method: str, path: str, body: Object, content: str, query: dict[str, str]) -> Request:
    """The meaning of a path such as apis/apps/v1/namespaces/d/statefulsets/x/status."""
    parts = path.split("/")
    api, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    name, sub = rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""
    kind = BY_PATH[api, rest[0]]
    return Request(method, kind, namespace, name, sub, body, content, query)


def serve(api: ApiServer, request: Request) -> Object:
    kind, namespace, name = request.kind.name, request.namespace, request.name
    if request.method == "GET" and name:
        return api.answer(api.named(kind, namespace, name), managers=not kind.startswith("Holdfast"))
    if request.method == "GET":
        labels = dict(part.split("=", 1) for part in request.query.get("labelSelector", "").split(",") if part)
        applied = kind == "StatefulSet"  # the only kind that is applied from what a list said; others would cost time
        items = [api.answer(obj, managers=applied) for obj in api.list(kind, namespace, labels)]
        return {"apiVersion": request.kind.api, "kind": f"{kind}List", "items": items}
    return copy(_write(api, request))


def _write(api: ApiServer, request: Request) -> Object:
    kind, namespace, name, body = request.kind.name, request.namespace, request.name, request.body
    manager = request.query.get("fieldManager", "operator")
    if request.method == "POST" and request.sub == "eviction":
        uid = body.get("deleteOptions", {}).get("preconditions", {}).get("uid", "")
        api.evict(namespace, name, uid=uid)
        return {"kind": "Status", "status": "Success"}
    if request.method == "POST":
        if kind == "Event":
            return body  # nobody reads events
        return api.create(kind, namespace, body, manager)
    if request.method == "PATCH" and request.content == "application/apply-patch+yaml":
        return api.apply(kind, namespace, body, manager)
    if request.method == "PATCH" and request.content == "application/merge-patch+json":
        return api.merge(kind, namespace, name, body, manager)
    if request.method == "PUT" and request.sub == "status":
        return api.set_status(body, body["status"])
    if request.method == "PUT":
        return api.update(body, manager)
    if request.method == "DELETE":
        return _delete(api, request)
    raise ApiError(405, "MethodNotAllowed", f"the simulation knows no {request.method} with {request.content}")


def _delete(api: ApiServer, request: Request) -> Object:
    before = request.body.get("preconditions") or {}
    api.delete(
        request.kind.name,
        request.namespace,
        request.name,
        uid=before.get("uid", ""),
        version=before.get("resourceVersion", ""),
        grace=request.body.get("gracePeriodSeconds"),
        orphan=request.body.get("propagationPolicy") == "Orphan",
    )
    return {"kind": "Status", "status": "Success"}
