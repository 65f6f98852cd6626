"""What a pod's status says about its container, in the terms that plans use."""

from __future__ import annotations

from datetime import datetime, timedelta

from holdfast_operator.kube import Object
from holdfast_operator.plan.facts import Run

SHOWN_CHARACTERS = 200
STARTING = timedelta(seconds=90)
_NORMAL = ("ContainerCreating", "PodInitializing")


def is_ready(obj: Object) -> bool:
    """Whether a pod or a node is ready."""
    return _condition(obj, "Ready").get("status") == "True"


def is_unschedulable(pod: Object) -> bool:
    return _condition(pod, "PodScheduled").get("status") == "False"


def run_of(pod: Object, now: datetime) -> Run:
    """What the container does. A pod that has been starting for long cannot run, even if nothing says why: what is
    wrong with a volume or a Secret is told in events only. A node that stopped reporting leaves the last report of its
    kubelet behind, which the API server contradicts by an unready pod with a ready container."""
    status = pod.get("status", {})
    if status.get("phase") == "Unknown":
        return Run.UNKNOWN
    container = _container(pod)
    if not container:
        return Run.NEVER if is_unschedulable(pod) else _starting(pod, now)
    if container.get("ready") and not is_ready(pod):
        return Run.UNKNOWN
    if "running" in container.get("state", {}):
        return Run.RUNNING
    if container.get("restartCount") or _terminated(container):
        return Run.FAILING
    return _starting(pod, now) if _waiting(container).get("reason") in _NORMAL else Run.NEVER


def _starting(pod: Object, now: datetime) -> Run:
    created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return Run.STARTING if now < created + STARTING else Run.NEVER


def trouble_of(pod: Object, now: datetime) -> str:
    """Why the pod does not run or is not ready; empty if it is ready, or on its way and nothing is wrong."""
    if is_ready(pod):
        return ""
    if "deletionTimestamp" in pod["metadata"]:
        return "it is being deleted"
    run = run_of(pod, now)
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _words(scheduled)
    if run is Run.UNKNOWN:
        return "its node does not report"
    container = _container(pod)
    waiting = _waiting(container)
    terminated = _terminated(container)
    if run is Run.FAILING and terminated:
        why = f"exit code {terminated.get('exitCode')}, {terminated.get('reason', 'Error')}"
        return f"{waiting.get('reason', 'Terminated')}: {why}"
    if waiting and waiting.get("reason") not in _NORMAL:
        return _words(waiting)
    if run is Run.RUNNING:
        return "it runs and is not ready"
    return "it has been starting for long: see its events" if run is Run.NEVER else ""


def troubles_of(pod: Object) -> list[str]:
    """What is wrong with each container of a pod that has several, and with the pod; empty if nothing is."""
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return [_words(scheduled)]
    found = []
    for container in pod.get("status", {}).get("containerStatuses") or ():
        waiting, terminated = _waiting(container), _terminated(container)
        if container.get("ready") or waiting.get("reason") in _NORMAL:
            continue
        why = f"{waiting.get('reason', 'Terminated')}: exit code {terminated.get('exitCode')}" if terminated else ""
        found.append(f"{container['name']} {why or _words(waiting)}")
    return found


def _container(pod: Object) -> Object:
    found: list[Object] = pod.get("status", {}).get("containerStatuses") or [{}]
    return found[0]


def _waiting(container: Object) -> Object:
    found: Object = container.get("state", {}).get("waiting") or {}
    return found


def _terminated(container: Object) -> Object:
    state: Object = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    return state or {}


def _condition(obj: Object, type_: str) -> Object:
    conditions: list[Object] = obj.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == type_), {})


def _words(told: Object) -> str:
    message = told.get("message", "")
    reason = told.get("reason", "")
    return (f"{reason}: {message}" if message else str(reason))[:SHOWN_CHARACTERS]
