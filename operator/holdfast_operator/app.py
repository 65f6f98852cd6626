"""The operator's process: kopf watches, our own loops reconcile. Handlers only wake the loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Any

import kopf

from holdfast_operator.kube import Kube
from holdfast_operator.loop import Loops
from holdfast_operator.model.common import GROUP, VERSION
from holdfast_operator.pods import is_ready
from holdfast_operator.resources.common import CLUSTER_LABEL

log = logging.getLogger("holdfast.operator")

LIVENESS = "http://0.0.0.0:8080/healthz"
STUCK_SECONDS = 300.0
CHILDREN = (
    ("", "v1", "secrets"),
    ("", "v1", "pods"),
    ("", "v1", "persistentvolumeclaims"),
    ("", "v1", "services"),
    ("apps", "v1", "statefulsets"),
    ("policy", "v1", "poddisruptionbudgets"),
)


def configure(settings: kopf.OperatorSettings) -> None:
    settings.posting.enabled = False
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.process.ultimate_exiting_timeout = 20
    for child in CHILDREN:  # the API server sends no others, above all no other Secrets
        settings.watching.label_selectors[child] = CLUSTER_LABEL


def registry(loops: Loops) -> kopf.OperatorRegistry:
    """Our handlers. They are event handlers, because these put no finalizer and no annotation on objects."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)
    def login(**kwargs: Any) -> Any:
        return kopf.login_with_service_account(**kwargs)

    @kopf.on.startup(registry=found)
    async def startup(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)

    @kopf.on.event(GROUP, VERSION, "holdfastclusters", registry=found)
    async def cluster(namespace: str | None, name: str | None, **_: Any) -> None:
        loops.wake(namespace or "", name or "")

    async def dependent(namespace: str | None, spec: Any, **_: Any) -> None:
        name = (spec.get("clusterRef") or {}).get("name")
        if name:
            loops.wake(namespace or "", name)

    kopf.on.event(GROUP, VERSION, "holdfastedgepools", id="pool", registry=found)(dependent)
    kopf.on.event(GROUP, VERSION, "holdfastconfigs", id="config", registry=found)(dependent)

    async def child(namespace: str | None, labels: Any, **_: Any) -> None:
        loops.wake(namespace or "", labels[CLUSTER_LABEL])

    for group, version, plural in CHILDREN:
        kopf.on.event(group, version, plural, id=plural, labels={CLUSTER_LABEL: kopf.PRESENT}, registry=found)(child)

    known: dict[str, object] = {}  # what matters of each node; kubelets report more often than that changes

    @kopf.on.event("v1", "nodes", registry=found)
    async def node(name: str | None, type: str | None, body: Any, **_: Any) -> None:
        now = None if type == "DELETED" else (dict(body["metadata"].get("labels", {})), is_ready(dict(body)))
        if known.get(name or "") != now:
            known[name or ""] = now
            loops.wake_all()

    @kopf.on.probe(id="loops", registry=found)
    async def alive(**_: Any) -> float:
        if loops.stuck_seconds > STUCK_SECONDS:
            raise kopf.PermanentError(f"a loop has been stuck for {loops.stuck_seconds:.0f} s")
        return loops.stuck_seconds

    return found


async def main(stop: asyncio.Event) -> None:
    """Run until `stop`. A failed watch ends the process: Kubernetes starts it again, and everything is read anew."""
    for chatty in ("kopf", "aiohttp.access"):  # they log every event and every probe
        logging.getLogger(chatty).setLevel(logging.WARNING)
    kube = Kube.in_cluster()
    repository = os.environ.get("HOLDFAST_IMAGE_REPOSITORY", "holdfast")
    loops = Loops(kube, repository, kubernetes=await kube.version())
    namespaces = [n for n in os.environ.get("WATCH_NAMESPACES", "").split(",") if n]
    running = asyncio.ensure_future(
        kopf.operator(
            registry=registry(loops),
            settings=kopf.OperatorSettings(),
            namespaces=namespaces,
            clusterwide=not namespaces,
            standalone=True,
            liveness_endpoint=LIVENESS,
            stop_flag=stop,
        )
    )
    try:
        await running
    finally:
        await loops.close()
        await kube.close()
        with contextlib.suppress(asyncio.CancelledError):
            running.cancel()
