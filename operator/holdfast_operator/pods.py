"""What a pod's status says about its container, in the terms that plans use."""

from __future__ import annotations

from holdfast_operator.kube import Object
from holdfast_operator.plan.facts import Run

SHOWN_CHARACTERS = 200
_NORMAL = ("ContainerCreating", "PodInitializing")


def is_ready(obj: Object) -> bool:
    """Whether a pod or a node is ready."""
    return _condition(obj, "Ready").get("status") == "True"


def is_unschedulable(pod: Object) -> bool:
    return _condition(pod, "PodScheduled").get("status") == "False"


def run_of(pod: Object) -> Run:
    """What the container does. A node that stopped reporting leaves the last report of its kubelet behind, which the
    API server contradicts by an unready pod with a ready container."""
    status = pod.get("status", {})
    if status.get("phase") == "Unknown":
        return Run.UNKNOWN
    container = _container(pod)
    if not container:
        return Run.NEVER
    if container.get("ready") and not is_ready(pod):
        return Run.UNKNOWN
    if "running" in container.get("state", {}):
        return Run.RUNNING
    return Run.FAILING if container.get("restartCount") or _terminated(container) else Run.NEVER


def trouble_of(pod: Object) -> str:
    """Why the pod does not run or is not ready; empty if it is ready, or on its way and nothing is wrong."""
    if is_ready(pod):
        return ""
    if "deletionTimestamp" in pod["metadata"]:
        return "it is being deleted"
    run = run_of(pod)
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _words(scheduled)
    if run is Run.UNKNOWN:
        return "its node does not report"
    container = _container(pod)
    waiting = container.get("state", {}).get("waiting", {})
    terminated = _terminated(container)
    if run is Run.FAILING and terminated:
        why = f"exit code {terminated.get('exitCode')}, {terminated.get('reason', 'Error')}"
        return f"{waiting.get('reason', 'Terminated')}: {why}"
    if waiting and waiting.get("reason") not in _NORMAL:
        return _words(waiting)
    return "it runs and is not ready" if run is Run.RUNNING else ""


def _container(pod: Object) -> Object:
    found: list[Object] = pod.get("status", {}).get("containerStatuses") or [{}]
    return found[0]


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
