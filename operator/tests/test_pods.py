"""What a pod's status means: statuses as kubelets and schedulers write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from holdfast_operator.plan.facts import Run
from holdfast_operator.pods import STARTING, run_of, trouble_of, troubles_of

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)


def pod(
    container: Object | None = None, *, ready: bool = False, scheduled: Object | None = None, **status: Any
) -> Object:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    conditions += [{"type": "PodScheduled", **scheduled}] if scheduled else []
    return {
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"conditions": conditions, **({"containerStatuses": [container]} if container else {}), **status},
    }


def waiting(reason: str, message: str = "", **more: Any) -> Object:
    return {"state": {"waiting": {"reason": reason, "message": message}}, "ready": False, "restartCount": 0, **more}


EXITED = {"terminated": {"exitCode": 4, "reason": "Error"}}
UNSCHEDULABLE = {"status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}


@pytest.mark.parametrize(
    ("found", "run", "trouble"),
    [
        (pod(phase="Pending"), Run.STARTING, ""),
        (pod(scheduled=UNSCHEDULABLE), Run.NEVER, "Unschedulable: 0/3 nodes are available"),
        (pod(waiting("ContainerCreating")), Run.STARTING, ""),
        (pod(waiting("ImagePullBackOff", "no such image")), Run.NEVER, "ImagePullBackOff: no such image"),
        (
            pod(waiting("CreateContainerConfigError", 'secret "x" not found')),
            Run.NEVER,
            'CreateContainerConfigError: secret "x" not found',
        ),
        (
            pod(waiting("CrashLoopBackOff", lastState=EXITED, restartCount=3)),
            Run.FAILING,
            "CrashLoopBackOff: exit code 4, Error",
        ),
        (pod({"state": EXITED, "ready": False, "restartCount": 0}), Run.FAILING, "Terminated: exit code 4, Error"),
        (pod({"state": {"running": {}}, "ready": False, "restartCount": 0}), Run.RUNNING, "it runs and is not ready"),
        (pod({"state": {"running": {}}, "ready": True, "restartCount": 0}, ready=True), Run.RUNNING, ""),
        # The node controller marks the pods of a silent node unready; the kubelet's last report stays.
        (pod({"state": {"running": {}}, "ready": True, "restartCount": 0}), Run.UNKNOWN, "its node does not report"),
        (pod(phase="Unknown"), Run.UNKNOWN, "its node does not report"),
    ],
)
def test_what_a_container_does_and_why_not(found: Object, run: Run, trouble: str) -> None:
    assert run_of(found, NOW) is run
    assert trouble_of(found, NOW) == trouble


def test_a_pod_that_has_been_starting_for_long_cannot_run() -> None:
    stuck = pod(waiting("ContainerCreating"))
    assert run_of(stuck, NOW + STARTING) is Run.NEVER
    assert trouble_of(stuck, NOW + STARTING) == "it has been starting for long: see its events"


def test_troubles_are_cut_short() -> None:
    assert len(trouble_of(pod(waiting("ErrImagePull", "x" * 5000)), NOW)) <= 200


def test_each_container_of_several_says_what_is_wrong() -> None:
    failing = {
        "name": "courier-eu--us",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 2}},
    }
    statuses = [{"name": "janitor", "ready": True, "state": {"running": {}}}, failing]
    assert troubles_of({"status": {"containerStatuses": statuses}}) == ["courier-eu--us CrashLoopBackOff: exit code 2"]
    starting = {"name": "janitor", "state": {"waiting": {"reason": "ContainerCreating"}}}
    assert troubles_of({"status": {"containerStatuses": [starting]}}) == []
    pull = {"name": "janitor", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    assert troubles_of({"status": {"containerStatuses": [pull]}}) == ["janitor ErrImagePull: no such image"]
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    assert troubles_of({"status": {"conditions": [unscheduled]}}) == ["Unschedulable: no node"]
