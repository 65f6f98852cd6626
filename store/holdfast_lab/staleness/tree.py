"""Three members, two relays, and four replicas below them, one of which has two replicas above it."""

from __future__ import annotations

from pathlib import Path

from holdfast_lab.processes import LocalCluster, Process, free_ports
from holdfast_lab.staleness.links import Link

PREFIX = "/k/"
MEMBERS = "members"
# Who follows whom, upper ones first; `MEMBERS` is where a replica goes when none of its parents reaches the cluster.
PLACES: dict[str, tuple[str, ...]] = {
    "relay1": (MEMBERS,),
    "relay2": (MEMBERS,),
    "leaf1": ("relay1", MEMBERS),
    "leaf2": ("relay2", MEMBERS),
    "leaf3": ("relay1", "relay2", MEMBERS),
    "leaf4": ("leaf1",),  # below a replica that is below a relay; it may go nowhere else
}


class Tree:
    """All processes, and the links between them: (replica, the server that it connects to) -> link."""

    def __init__(self, directory: Path) -> None:
        self.cluster = LocalCluster(directory)
        self._directory = directory
        self._ports = dict(zip(PLACES, free_ports(len(PLACES)), strict=True))
        self.replicas: dict[str, Process] = {}
        self.links: dict[tuple[str, str], Link] = {}

    def endpoint(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    async def start(self) -> None:
        self.cluster.start()
        await self.cluster.wait_ready(60)
        for name, above in PLACES.items():
            self.replicas[name] = await self._replica(name, above)
            self.replicas[name].start()

    async def _replica(self, name: str, above: tuple[str, ...]) -> Process:
        parents = [await self._link(name, other, self.endpoint(other)) for other in above if other != MEMBERS]
        members = [await self._link(name, m, p.endpoint) for m, p in self.cluster.voters.items() if MEMBERS in above]
        arguments = [
            "edge",
            f"--name={name}",
            f"--data-dir={self._directory / name}",
            f"--listen-client-urls=http://{self.endpoint(name)}",
            f"--prefix={PREFIX}",
            f"--endpoints={','.join(members or parents)}",
            *([f"--parents={','.join(parents)}"] if members and parents else []),
        ]
        return Process(name, arguments, self._directory / f"{name}.log", self._ports[name])

    async def _link(self, name: str, other: str, target: str) -> str:
        link = self.links[name, other] = Link(target)
        await link.start()
        return link.endpoint

    def ended(self) -> str | None:
        """The name of a process that ended by itself."""
        for name, process in {**self.cluster.voters, **self.replicas}.items():
            if process.running is not None and process.running.poll() is not None:
                return name
        return None

    def log_of(self, name: str) -> str:
        return {**self.cluster.voters, **self.replicas}[name].tail()

    async def close(self) -> None:
        for process in self.replicas.values():
            process.kill()
        self.cluster.kill()
        for link in self.links.values():
            await link.close()
