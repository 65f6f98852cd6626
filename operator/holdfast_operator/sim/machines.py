"""What is physical in the world: machines, what runs on them, and the volumes with their disks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from holdfast_operator.sim.raft import Disk, Process


@dataclass(slots=True)
class Machine:
    """The computer behind a Node object."""

    name: str
    zone: str
    labels: dict[str, str]
    cpus: float = 8.0
    alive: bool = True
    reports: bool = True  # its kubelet reaches the API server
    reachable: bool = True  # its processes can be reached by others
    silent_since: float | None = None


@dataclass(slots=True)
class Runtime:
    """The one container of a pod, on a machine. It outlives a pod that was deleted by force."""

    pod_uid: str
    pod: str
    machine: Machine
    image: str
    component: str
    address: str
    disk: Disk
    starts_at: float
    stops_at: float | None = None
    process: Process | None = None
    restarts: int = 0
    unready_until: float = 0.0  # the kubelet says so, whatever the process says
    watermark: int = 0  # of an edge replica
    pool: str = ""
    offline_since: float = 0.0  # of an edge replica: when the members last heard from it; 0: they hear from it now


@dataclass(slots=True)
class Volume:
    """What a bound PersistentVolumeClaim stands for."""

    claim: str
    node: str  # the only node that can attach it; empty: any
    disk: Disk


IMAGES = {"holdfast:0.1.0": 1, "holdfast:0.2.0": 2, "holdfast:0.3.0": 3}
CRASHING = "holdfast:crashes"
TYPO = "holdfast:0.1.0-typo"


@dataclass(slots=True)
class Hardware:
    rng: Random
    machines: dict[str, Machine] = field(default_factory=dict)
    runtimes: dict[str, Runtime] = field(default_factory=dict)  # by pod uid
    volumes: dict[str, Volume] = field(default_factory=dict)  # by claim uid
    addresses: int = 0

    def fresh_disk(self) -> Disk:
        return Disk(self.rng.getrandbits(63) | 1)

    def fresh_address(self) -> str:
        self.addresses += 1
        return f"10.{self.addresses >> 16}.{self.addresses >> 8 & 255}.{self.addresses & 255}"

    def processes(self) -> Iterator[tuple[Runtime, Process]]:
        """Everything that runs on a machine that runs."""
        for runtime in self.runtimes.values():
            if runtime.process is not None and runtime.machine.alive:
                runtime.process.reachable = runtime.machine.reachable
                yield runtime, runtime.process

    def held(self, disk: Disk) -> bool:
        """Whether a container has this disk attached."""
        return any(runtime.disk is disk for runtime in self.runtimes.values())
