"""The operator's process: kopf watches, our own loops reconcile. Handlers only wake the loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Any

import kopf
from holdfast import __version__

from holdfast_operator.cells_loop import cells_loops
from holdfast_operator.cluster_loop import cluster_loops
from holdfast_operator.kube import Kube
from holdfast_operator.loop import Loops
from holdfast_operator.model.common import GROUP, VERSION
from holdfast_operator.pods import is_ready
from holdfast_operator.resources.common import CELLS_LABEL, CLUSTER_LABEL

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
WORKERS = ("apps", "v1", "deployments")


def configure(settings: kopf.OperatorSettings) -> None:
    settings.posting.enabled = False
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.process.ultimate_exiting_timeout = 20
    for child in CHILDREN:  # the API server sends no others, above all no other Secrets
        settings.watching.label_selectors[child] = CLUSTER_LABEL
    settings.watching.label_selectors[WORKERS] = CELLS_LABEL


def registry(loops: Loops, cells: Loops) -> kopf.OperatorRegistry:
    """Our handlers; `loops`: of clusters. They are event handlers, because these put no finalizer and no annotation on
    objects."""
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

    generations: dict[str, int] = {}  # of HoldfastCells, by uid

    @kopf.on.event(GROUP, VERSION, "holdfastcells", registry=found)
    async def of_cells(namespace: str | None, name: str | None, type: str | None, meta: Any, **_: Any) -> None:
        """The status that a pass writes makes no other pass."""
        uid, now = str(meta["uid"]), int(meta["generation"])
        if type == "DELETED" or "deletionTimestamp" in meta or generations.get(uid) != now:
            cells.wake(namespace or "", name or "")
        generations[uid] = now
        if type == "DELETED":
            del generations[uid]

    @kopf.on.event(*WORKERS, labels={CELLS_LABEL: kopf.PRESENT}, registry=found)
    async def workers(namespace: str | None, labels: Any, **_: Any) -> None:
        cells.wake(namespace or "", labels[CELLS_LABEL])

    known: dict[str, object] = {}  # what matters of each node; kubelets report more often than that changes

    @kopf.on.event("v1", "nodes", registry=found)
    async def node(name: str | None, type: str | None, body: Any, **_: Any) -> None:
        now = None if type == "DELETED" else (dict(body["metadata"].get("labels", {})), is_ready(dict(body)))
        if known.get(name or "") != now:
            known[name or ""] = now
            loops.wake_all()

    @kopf.on.probe(id="loops", registry=found)
    async def alive(**_: Any) -> float:
        stuck = max(loops.stuck_seconds, cells.stuck_seconds)
        if stuck > STUCK_SECONDS:
            raise kopf.PermanentError(f"a loop has been stuck for {stuck:.0f} s")
        return stuck

    return found


async def main(stop: asyncio.Event) -> None:
    """Run until `stop`. A failed watch ends the process: Kubernetes starts it again, and everything is read anew."""
    for chatty in ("kopf", "aiohttp.access"):  # they log every event and every probe
        logging.getLogger(chatty).setLevel(logging.WARNING)
    kube = Kube.in_cluster()
    repository = os.environ.get("HOLDFAST_IMAGE_REPOSITORY", "holdfast")
    loops = cluster_loops(kube, repository, kubernetes=await kube.version())
    cells = cells_loops(kube, f"{repository}:{__version__}")
    namespaces = [n for n in os.environ.get("WATCH_NAMESPACES", "").split(",") if n]
    running = asyncio.ensure_future(
        kopf.operator(
            registry=registry(loops, cells),
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
        await cells.close()
        await kube.close()
        with contextlib.suppress(asyncio.CancelledError):
            running.cancel()
