"""The simulated world of one seed: the API server, the controllers, machines, members, and the operators among them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from dataclasses import dataclass
from random import Random
from typing import Protocol

from holdfast.proto import holdfast_pb2, rpc_pb2

from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.model.common import dump
from holdfast_operator.resources.common import CLUSTER_LABEL
from holdfast_operator.sim.apiserver import ApiServer
from holdfast_operator.sim.clock import EPOCH
from holdfast_operator.sim.kube import Faults, Request
from holdfast_operator.sim.kubelet import Kubelets
from holdfast_operator.sim.machines import Hardware, Machine, Runtime
from holdfast_operator.sim.members import CallFaults
from holdfast_operator.sim.objects import Object, going, name_of, uid_of
from holdfast_operator.sim.raft import Disk, Group, Lost, Member, Process
from holdfast_operator.sim.scheduler import Scheduler
from holdfast_operator.sim.shape import NAMESPACE, Shape
from holdfast_operator.sim.statefulset import StatefulSets
from holdfast_operator.sim.upkeep import Upkeep

TICK = 0.25
KEPT_LINES = 60
_IDS = re.compile(r"\b(?:[0-9]{15,20}|[0-9a-f]{13,16})\b")


@dataclass(slots=True)
class WatchFaults:
    """How watch events reach an operator."""

    dropped: float = 0.0
    repeated: float = 0.0
    lag: float = 0.05


class Acting(Protocol):
    """A process of the operator."""

    name: str
    pass_at: float  # when the pass that is under way began to look

    async def crash(self) -> None: ...


class Judge(Protocol):
    """Is asked before anything that an operator does takes effect."""

    def before_write(self, operator: Acting, request: Request) -> None: ...

    def after_write(self) -> None: ...

    def before_form(self, cluster_id: int, disk: Disk) -> None: ...

    def before_change(self, group: Group, new: dict[int, Member]) -> None: ...


class World:
    """Implements `members.Network`."""

    def __init__(self, seed: int, shape: Shape, *, keep_all: bool = False) -> None:
        self.seed = seed
        self.shape = shape
        self.rng = Random(f"{seed}/world")
        self.lines: deque[str] = deque(maxlen=None if keep_all else KEPT_LINES)
        self._aliases: dict[int, str] = {}
        self.reached: Counter[str] = Counter()
        self.violation: tuple[str, str] | None = None
        self.faults, self.calls, self.watch = Faults(), CallFaults(), WatchFaults()
        self.api = ApiServer(lambda: self.now)
        self.hardware = Hardware(self.rng)
        self.groups: dict[int, Group] = {}
        self.operators: list[Acting] = []
        self.judge: Judge | None = None
        self.disrupted_at = -1.0  # when something other than an operator last took a voter away
        self._controllers = (
            StatefulSets(self.api),
            Scheduler(self.api, self.hardware, local_volumes=shape.local_volumes),
            Kubelets(self.api, self.hardware, lambda: self.now, self._passes_probe),
            Upkeep(self.api, self.hardware, lambda: self.now),
        )
        self.asked_to_hand_over: dict[int, float] = {}  # member id of a leader: when it was last asked
        self.wiped: set[int] = set()  # ids of clusters that their user gave up by annotation
        self.not_to_take = 0  # id of a cluster that its user has not said what to do with
        self.started = 0  # operators so far
        self.beyond_repair: list[str] = []  # what only the user can mend
        self.foreign: set[int] = set()  # ordinals whose volume holds another cluster
        for number in range(shape.nodes):
            self.add_machine(f"node-{number}", f"zone-{number % shape.zones}", shape.labels(number))

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    # ---- what is said about it -----------------------------------------------------------------------------

    def trace(self, line: str) -> None:
        self.lines.append(f"{self.now:8.2f}  {_IDS.sub(self._alias, line)}")

    def _alias(self, found: re.Match[str]) -> str:
        """A short name for a random id, so that the traces of two runs of one seed are the same."""
        value = int(found[0]) if found[0].isdigit() and len(found[0]) != 16 else int(found[0], 16)
        return self._aliases.setdefault(value, f"#{len(self._aliases) + 1}")

    def fail(self, name: str, what: str) -> None:
        """An invariant does not hold. The first violation counts; the run ends at the next step."""
        if self.violation is None:
            self.trace(f"VIOLATION of {name}: {what}")
            self.violation = (name, what)

    def disrupted(self) -> None:
        self.disrupted_at = self.now

    # ---- parts ---------------------------------------------------------------------------------------------

    def add_machine(self, name: str, zone: str, labels: dict[str, str]) -> None:
        all_labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone, **labels}
        self.hardware.machines[name] = Machine(name, zone, all_labels)
        node = self.api.create("Node", "", {"metadata": {"name": name, "labels": all_labels}, "spec": {}})
        self.api.put_status(node, {"conditions": [{"type": "Ready", "status": "True"}]})

    def create_cluster(self, spec: Object) -> Object:
        full = dump(ClusterSpec.model_validate(spec))  # as the CRD's defaults do
        return self.api.create("HoldfastCluster", NAMESPACE, {"metadata": {"name": self.shape.cluster}, "spec": full})

    def cluster(self) -> Object | None:
        return self.api.get("HoldfastCluster", NAMESPACE, self.shape.cluster)

    def voter_pods(self, *, with_going: bool = True) -> list[Object]:
        labels = {CLUSTER_LABEL: self.shape.cluster, "holdfast.dev/component": "voter"}
        return [p for p in self.api.list("Pod", NAMESPACE, labels) if with_going or not going(p)]

    def current_group(self) -> Group | None:
        """The cluster that the pods' volumes belong to; the one with the most volumes, if there are several."""
        counts = Counter(
            runtime.disk.cluster_id
            for runtime in self.hardware.runtimes.values()
            if runtime.component == "voter" and runtime.disk.cluster_id in self.groups and not runtime.disk.removed
        )
        return self.groups[counts.most_common(1)[0][0]] if counts else None

    # ---- for the members -----------------------------------------------------------------------------------

    def process_at(self, address: str) -> Process | None:
        for runtime, process in self.hardware.processes():
            if runtime.address == address:
                return process if process.reachable else None
        return None

    def asked(self, leader: int) -> None:
        self.asked_to_hand_over[leader] = self.now

    def group(self, cluster_id: int) -> Group | None:
        return self.groups.get(cluster_id)

    def found(self, cluster_id: int, process: Process) -> Group:
        disk = process.disk
        if self.judge is not None:
            self.judge.before_form(cluster_id, disk)
        disk.cluster_id, disk.member_id, disk.opened, disk.match = cluster_id, disk.volume_id, False, 1
        url = f"http://{process.pod}.{self.shape.cluster}-peers.{NAMESPACE}.svc:2380"
        member = Member(disk.member_id, process.pod, url, voter=True)
        group = Group(cluster_id, {disk.member_id: member}, Random(f"{self.seed}/group/{len(self.groups)}"))
        group.leaderless_since = self.now
        self.groups[cluster_id] = group
        self.trace(f"{process.pod} forms cluster number {len(self.groups)}")
        return group

    def running(self, group: Group) -> dict[int, Process]:
        """The processes of this cluster that can be reached, by member id."""
        return {
            process.disk.member_id: process
            for _, process in self.hardware.processes()
            if process.disk.cluster_id == group.cluster_id and process.reachable
        }

    def staying(self, group: Group) -> set[int]:
        """The members that answer, and whose pods are not on their way out."""
        uids = {uid_of(pod) for pod in self.voter_pods(with_going=False)}
        return {
            process.disk.member_id
            for runtime, process in self.hardware.processes()
            if process.disk.cluster_id == group.cluster_id and process.reachable and runtime.pod_uid in uids
        }

    def replica_reports(self, cluster_id: int) -> list[holdfast_pb2.ReplicaReport]:
        """Those that are cut off are listed, too, with the time of that."""
        return [
            holdfast_pb2.ReplicaReport(
                replica=runtime.pod,
                pool=runtime.pool,
                watermark=runtime.watermark,
                bound_seconds=2,
                offline_since=round(1000 * (EPOCH + runtime.offline_since)) if runtime.offline_since else 0,
            )
            for runtime, _ in self.hardware.processes()
            if runtime.component == "replica" and runtime.watermark
        ]

    def before_change(self, group: Group, new: dict[int, Member]) -> None:
        self.trace(f"membership: {sorted(m.name if m.voter else f'({m.name})' for m in new.values())}")
        if self.judge is not None:
            self.judge.before_change(group, new)

    def _passes_probe(self, runtime: Runtime) -> bool:
        process = runtime.process
        if process is None:
            return False
        if runtime.component == "replica":
            return runtime.watermark > 0
        group = self.groups.get(process.disk.cluster_id)
        disk = process.disk
        return group is not None and disk.opened and process.caught_up and disk.member_id in group.voters

    def put(self, group: Group, key: bytes, value: bytes) -> None:
        """Some client writes."""
        group.data.put(rpc_pb2.PutRequest(key=key, value=value))

    # ---- time ----------------------------------------------------------------------------------------------

    async def run(self, seconds: float) -> None:
        """Let the time pass; ends early at a violation."""
        until = self.now + seconds
        while self.now < until and self.violation is None:
            self.step()
            await asyncio.sleep(TICK)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def step(self) -> None:
        for controller in self._controllers:
            if self.rng.random() < self.shape.diligence:
                controller.step()
        for group in self.groups.values():
            try:
                group.step(self.now, self.running(group), self._at_url)
            except Lost as lost:
                self.fail("acknowledged writes are lost", str(lost))
        self._follow()

    def _at_url(self, url: str) -> Process | None:
        """The process of the pod that the host of a peer URL names."""
        pod = url.split("://")[1].split(".", maxsplit=1)[0]
        for runtime, process in self.hardware.processes():
            if runtime.pod == pod and process.reachable:
                return process
        return None

    def _follow(self) -> None:
        """Edge replicas follow the members."""
        group = self.current_group()
        if group is None or not group.leader:
            return
        for runtime, process in self.hardware.processes():
            if runtime.component != "replica":
                continue
            if process.reachable:
                runtime.watermark, runtime.offline_since = group.data.revision, 0.0
            elif runtime.watermark:
                runtime.offline_since = runtime.offline_since or self.now

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.shape}; pods {[name_of(p) for p in self.voter_pods()]}"
