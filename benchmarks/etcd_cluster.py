"""etcd members as processes on loopback, to be measured beside ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from holdfast_lab.processes import free_ports

TOOLS = Path(os.environ.get("HOLDFAST_CACHE", Path.home() / ".cache" / "holdfast")) / "bin"


class EtcdCluster:
    """etcd 3.6 with its default settings, built by `make tools`."""

    def __init__(self, directory: Path, members: int = 3) -> None:
        ports = free_ports(2 * members)
        names = [f"m{number + 1}" for number in range(members)]
        initial = ",".join(f"{n}=http://127.0.0.1:{ports[members + i]}" for i, n in enumerate(names))
        self.endpoints = [f"127.0.0.1:{port}" for port in ports[:members]]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._words = {
            self.endpoints[i]: [
                str(TOOLS / "etcd"),
                f"--name={name}",
                f"--data-dir={directory / name}",
                f"--listen-client-urls=http://127.0.0.1:{ports[i]}",
                f"--advertise-client-urls=http://127.0.0.1:{ports[i]}",
                f"--listen-peer-urls=http://127.0.0.1:{ports[members + i]}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{ports[members + i]}",
                f"--initial-cluster={initial}",
                "--log-level=error",
            ]
            for i, name in enumerate(names)
        }

    def start(self, endpoint: str = "") -> None:
        """One member, or all."""
        for one in [endpoint] if endpoint else self.endpoints:
            self.running[one] = subprocess.Popen(self._words[one], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self, endpoint: str) -> None:
        """kill -9."""
        process = self.running.pop(endpoint)
        process.kill()
        process.wait()

    def wait_ready(self) -> None:
        """Until every member answers a linearizable read."""
        for endpoint in self.endpoints:
            words = [str(TOOLS / "etcdctl"), f"--endpoints={endpoint}", "--command-timeout=30s", "get", "ready?"]
            subprocess.run(words, check=True, capture_output=True)

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait()
        self.running.clear()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.running.values()]
