"""Servers as processes, each on a small disk of its own, and the proxies between them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

from holdfast import client

from holdfast_lab.crash.powercut import PowerCut
from holdfast_lab.crash.proxy import PeerProxy
from holdfast_lab.processes import Process, free_ports, leader_among
from holdfast_lab.sim.violation import Violation

DISK_BYTES = 256 << 20


class CrashCluster:
    """`members` servers, founded statically. With root, each has a file system of its own that can be filled."""

    def __init__(self, directory: Path, members: int, power: PowerCut | None) -> None:
        self.directory = directory
        self.power = power
        self.names = [f"m{n + 1}" for n in range(members)]
        ports = free_ports(3 * members)
        self._client = dict(zip(self.names, ports[:members], strict=True))
        self._peer = dict(zip(self.names, ports[members : 2 * members], strict=True))
        self._door = dict(zip(self.names, ports[2 * members :], strict=True))
        self.proxies = {name: PeerProxy(("127.0.0.1", self._peer[name])) for name in self.names}
        self.ids: dict[str, int] = {}
        self.mounted = os.geteuid() == 0 and all(self._mount(name) for name in self.names)
        self.processes = {name: self._process(name) for name in self.names}

    def data(self, name: str) -> Path:
        return self.directory / name / "data"

    def _mount(self, name: str) -> bool:
        place = self.directory / name
        place.mkdir(parents=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
        return subprocess.run(words, check=False, capture_output=True).returncode == 0

    def _process(self, name: str, state: str = "new") -> Process:
        founders = ",".join(f"{n}={self.peer_url(n)}" for n in self.names)
        arguments = [
            "serve",
            f"--name={name}",
            f"--data-dir={self.data(name)}",
            f"--listen-client-urls=http://127.0.0.1:{self._client[name]}",
            f"--listen-peer-urls=http://127.0.0.1:{self._peer[name]}",
            f"--initial-advertise-peer-urls={self.peer_url(name)}",
            f"--initial-cluster={founders}",
            f"--initial-cluster-state={state}",
        ]
        environment = self.power.environment(name, self.data(name)) if self.power is not None else {}
        log = self.directory / f"{name}.log"
        return Process(name, arguments, log, self._client[name], environment=environment)

    def peer_url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._door[name]}"

    @property
    def endpoints(self) -> list[str]:
        return [p.endpoint for p in self.processes.values()]

    @property
    def endpoint_of(self) -> dict[str, str]:
        return {name: process.endpoint for name, process in self.processes.items()}

    def replace(self, name: str, member: int) -> None:
        """From its next start on, this server runs as a new member, which was added for it."""
        self.processes[name] = self._process(name, "existing")
        self.ids[name] = member

    async def start(self) -> None:
        for name, proxy in self.proxies.items():
            await proxy.listen(self._door[name])
        for process in self.processes.values():
            process.start()
        await self.wait_ready()
        for name, process in self.processes.items():
            async with client.connect(process.endpoint) as hf:
                self.ids[name] = (await hf.status()).header.member_id

    async def wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until every server answers a linearizable read. Raises Violation if one has exited by itself."""
        for name, process in self.processes.items():
            end = time.monotonic() + seconds
            async with client.connect(process.endpoint, timeout=1.0) as hf:
                while True:
                    try:
                        await hf.get("ready?")
                        break
                    except client.ClientError as error:
                        self.check_running(name)
                        if time.monotonic() > end:
                            raise Violation("L1", f"{name} does not serve within {seconds:g} s: {error}") from None

    def check_running(self, name: str) -> None:
        """Raise Violation if this server exited without being killed."""
        if name in self.stopped_by_itself():
            raise Violation("crash", f"{name} ended by itself:\n{self.processes[name].tail(3)}")

    async def leader(self) -> str | None:
        by_endpoint = {process.endpoint: name for name, process in self.processes.items()}
        endpoint = await leader_among(by_endpoint, timeout=0.5)
        return None if endpoint is None else by_endpoint[endpoint]

    # ---- faults --------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        self.processes[name].kill()

    def cut_power(self, name: str) -> int:
        """kill -9, and lose what was not synced. Returns how many files this changed."""
        assert self.power is not None
        self.processes[name].kill()
        return self.power.lose_unsynced(name)

    def start_one(self, name: str) -> None:
        if self.power is not None:
            self.power.begin(name)
        self.processes[name].start()

    def stopped_by_itself(self) -> list[str]:
        """Servers that exited without being killed."""
        return [n for n, p in self.processes.items() if p.running is not None and p.running.poll() is not None]

    def fill(self, name: str) -> None:
        """Fill this server's disk completely."""
        ballast = self.directory / name / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError:
                pass  # full, as intended

    def empty(self, name: str) -> None:
        (self.directory / name / "ballast").unlink(missing_ok=True)

    async def close(self) -> None:
        for process in self.processes.values():
            if process.running is not None:
                process.running.kill()
                process.running.wait()
        for proxy in self.proxies.values():
            await proxy.close()
        await asyncio.sleep(0)
        if self.mounted:
            for name in self.names:
                subprocess.run(["umount", "-l", str(self.directory / name)], check=False, capture_output=True)
