"""The kubelets: start and stop containers, and report what the pods are like; as long as they reach the API server."""

from __future__ import annotations

from collections.abc import Callable

from holdfast_operator.resources.common import COMPONENT_LABEL, POOL_LABEL
from holdfast_operator.sim.apiserver import ApiServer
from holdfast_operator.sim.machines import CRASHING, IMAGES, Hardware, Runtime
from holdfast_operator.sim.objects import Object, going, labels_of, name_of, uid_of
from holdfast_operator.sim.raft import Process
from holdfast_operator.sim.scheduler import claims_of

STOP_SECONDS = 2.0


class Kubelets:
    """`is_ready`: whether the process passes its readiness probe."""

    def __init__(
        self, api: ApiServer, hardware: Hardware, clock: Callable[[], float], is_ready: Callable[[Runtime], bool]
    ) -> None:
        self._api = api
        self._hardware = hardware
        self._clock = clock
        self._is_ready = is_ready

    def step(self) -> None:
        now, hardware = self._clock(), self._hardware
        pods = {uid_of(pod): pod for pod in self._api.list("Pod") if pod["spec"].get("nodeName")}
        for uid, runtime in list(hardware.runtimes.items()):
            if not runtime.machine.alive or runtime.machine.name not in hardware.machines:
                del hardware.runtimes[uid]  # the container died with its machine
            elif runtime.machine.reports:
                self._stop(runtime, pods.get(uid), now)
        for uid, pod in pods.items():
            machine = hardware.machines.get(pod["spec"]["nodeName"])
            if machine is None or not (machine.alive and machine.reports):
                continue
            runtime_ = hardware.runtimes.get(uid)
            if runtime_ is None and going(pod):
                self._api.erase(pod)
            elif runtime_ is None:
                self._begin(pod, now)
            elif runtime_.stops_at is None:
                self._run(runtime_, now)
                self._report(pod, runtime_, now)

    # ---- containers ----------------------------------------------------------------------------------------

    def _stop(self, runtime: Runtime, pod: Object | None, now: float) -> None:
        """Stop the container of a pod that is going or gone; when it has ended, the pod goes, too."""
        if pod is not None and not going(pod):
            return
        if runtime.stops_at is None:
            grace = pod["metadata"]["deletionGracePeriodSeconds"] if pod is not None else 0.0
            runtime.stops_at = now + min(grace, STOP_SECONDS * (0.5 + self._hardware.rng.random()))
        if runtime.stops_at <= now:
            del self._hardware.runtimes[runtime.pod_uid]
            if pod is not None:
                self._api.erase(pod)

    def _begin(self, pod: Object, now: float) -> None:
        """Mount the volumes; the container starts a little later."""
        namespace, spec = pod["metadata"]["namespace"], pod["spec"]
        claims = [self._api.get("PersistentVolumeClaim", namespace, name) for name in claims_of(pod)]
        disks = [self._hardware.volumes[uid_of(c)].disk for c in claims if c is not None and uid_of(c) in self._volumes]
        secrets = [v["secret"]["secretName"] for v in spec.get("volumes") or [] if "secret" in v]
        mounted = len(disks) == len(claims) and not any(self._hardware.held(disk) for disk in disks)
        if not mounted or any(self._api.get("Secret", namespace, name) is None for name in secrets):
            self._waiting(pod, "ContainerCreating", "volumes are not mounted yet", "")
            return
        labels, rng = labels_of(pod), self._hardware.rng
        self._hardware.runtimes[uid_of(pod)] = Runtime(
            pod_uid=uid_of(pod),
            pod=name_of(pod),
            machine=self._hardware.machines[spec["nodeName"]],
            image=spec["containers"][0]["image"],
            component=labels.get(COMPONENT_LABEL, ""),
            pool=labels.get(POOL_LABEL, ""),
            address=self._hardware.fresh_address(),
            disk=disks[0] if disks else self._hardware.fresh_disk(),
            starts_at=now + 0.5 + 2 * rng.random(),
        )

    @property
    def _volumes(self) -> dict[str, object]:
        return {**self._hardware.volumes}

    def _run(self, runtime: Runtime, now: float) -> None:
        if runtime.process is None and runtime.image in IMAGES and runtime.starts_at <= now:
            runtime.process = Process(runtime.pod, runtime.disk, started_at=now)

    # ---- reports -------------------------------------------------------------------------------------------

    def _report(self, pod: Object, runtime: Runtime, now: float) -> None:
        if runtime.image == CRASHING and runtime.starts_at <= now:
            self._crashed(pod, runtime.address, max(1, runtime.restarts))
        elif runtime.image not in IMAGES:
            self._waiting(pod, "ImagePullBackOff", f"Back-off pulling image {runtime.image}", runtime.address)
        elif runtime.process is None and runtime.restarts:
            self._crashed(pod, runtime.address, runtime.restarts)
        elif runtime.process is None:
            self._waiting(pod, "ContainerCreating", "", runtime.address)
        else:
            ready = self._is_ready(runtime) and runtime.unready_until <= now
            state: Object = {"running": {}}
            self._write(pod, "Running", ready, state, runtime.address, runtime.restarts)

    def _waiting(self, pod: Object, reason: str, message: str, address: str) -> None:
        state = {"waiting": {"reason": reason, "message": message}}
        self._write(pod, "Pending", False, state, address, 0)

    def _crashed(self, pod: Object, address: str, restarts: int) -> None:
        """It ran, and its next start is some time off. The phase of such a pod stays Running."""
        message = "back-off restarting failed container"
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        self._write(pod, "Running", False, state, address, restarts)

    def _write(self, pod: Object, phase: str, ready: bool, state: Object, address: str, restarts: int) -> None:
        word = "True" if ready else "False"
        container = pod["spec"]["containers"][0]
        status: Object = {
            "phase": phase,
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "ContainersReady", "status": word},
                {"type": "Ready", "status": word},
            ],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "ready": ready,
                    "started": "running" in state,
                    "restartCount": restarts,
                    "state": state,
                    **({"lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}} if restarts else {}),
                }
            ],
        }
        if address:
            status["podIP"] = address
        self._api.put_status(pod, status)
