"""A cluster of local processes, for the demonstration and for the tests: real servers, real sockets, real kill -9."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from holdfast import client

_handed_out: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports on loopback on which no process listens now, and that the system gives to no outgoing connection: such a
    connection could have the port when the server starts that was told to listen on it."""
    outgoing, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    end = outgoing if outgoing > 20_000 else 65_536  # a machine that gives most ports to outgoing connections
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, end)
        if port in _handed_out:
            continue
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        _handed_out.add(port)
        found.append(port)
    return found


def rss_mib(pid: int) -> float:
    """The resident memory of a process."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


async def leader_among(endpoints: Iterable[str], timeout: float = 2.0) -> str | None:
    """The first of `endpoints` that reports that it is the leader. `timeout` in seconds is for each of them."""
    for endpoint in endpoints:
        try:
            async with client.connect(endpoint, timeout=timeout) as hf:
                status = await hf.status()
        except client.ClientError:
            continue
        if status.leader and status.leader == status.header.member_id:
            return endpoint
    return None


@dataclass(slots=True)
class Process:
    """One `holdfast` process that can be killed and started again with the same arguments."""

    name: str
    arguments: list[str]
    log: Path
    port: int
    running: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    inside: list[str] = field(default_factory=list)  # prefix of the command: the network namespace to run it in

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                [*self.inside, sys.executable, "-m", "holdfast", *self.arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
            )

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()
            self.running = None

    def stop(self, seconds: float = 10.0) -> int:
        """SIGTERM; returns the exit status."""
        if self.running is None:
            return 0
        self.running.terminate()
        try:
            return self.running.wait(seconds)
        except subprocess.TimeoutExpired:
            self.running.kill()
            return self.running.wait()
        finally:
            self.running = None

    def send_signal(self, number: signal.Signals) -> None:
        if self.running is not None:
            self.running.send_signal(number)

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


class LocalCluster:
    """Voters as processes below `directory`, founded statically."""

    def __init__(self, directory: Path, voters: int = 3, extra: Iterable[str] = ()) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        ports = free_ports(2 * voters)
        names = [f"m{n + 1}" for n in range(voters)]
        self._peer_urls = {name: f"http://127.0.0.1:{ports[2 * n + 1]}" for n, name in enumerate(names)}
        self._extra = list(extra)
        self.voters = {name: self._voter(name, ports[2 * n]) for n, name in enumerate(names)}

    def add_voter(self, name: str, state: str = "existing") -> Process:
        """One more process, not started, for a place made by `member add`."""
        port, peer_port = free_ports(2)
        self._peer_urls[name] = f"http://127.0.0.1:{peer_port}"
        self.voters[name] = self._voter(name, port, [f"--initial-cluster-state={state}"])
        return self.voters[name]

    def peer_url(self, name: str) -> str:
        return self._peer_urls[name]

    def _voter(self, name: str, port: int, more: Iterable[str] = ()) -> Process:
        cluster = ",".join(f"{n}={url}" for n, url in self._peer_urls.items())
        arguments = [
            "serve",
            f"--name={name}",
            f"--data-dir={self.directory / name}",
            f"--listen-client-urls=http://127.0.0.1:{port}",
            f"--listen-peer-urls={self._peer_urls[name]}",
            f"--initial-cluster={cluster}",
            *self._extra,
            *more,
        ]
        return Process(name, arguments, self.directory / f"{name}.log", port)

    @property
    def endpoints(self) -> list[str]:
        return [p.endpoint for p in self.voters.values()]

    def start(self) -> None:
        for process in self.voters.values():
            process.start()

    def stop(self) -> None:
        for process in self.voters.values():
            process.send_signal(signal.SIGTERM)
        for process in self.voters.values():
            process.stop()

    def kill(self) -> None:
        for process in self.voters.values():
            process.kill()

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.tail()}" for p in self.voters.values())

    async def wait_ready(self, seconds: float = 30.0) -> None:
        """Wait until every running voter answers a linearizable read. Raises RuntimeError with the last lines of one
        that does not."""
        end = time.monotonic() + seconds
        for process in self.voters.values():
            if process.running is None:
                continue
            async with client.connect(process.endpoint, timeout=max(0.1, end - time.monotonic())) as hf:
                try:
                    await hf.get("ready?")
                except client.Unavailable as error:
                    raise RuntimeError(f"{process.name} is not ready: {error}\n{process.tail()}") from error

    async def leader(self, seconds: float = 15.0) -> Process:
        """The current leader, as most members report it. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            running = {p.endpoint: p for p in self.voters.values() if p.running is not None}
            endpoint = await leader_among(running)
            if endpoint is not None:
                return running[endpoint]
            await asyncio.sleep(0.05)
        raise TimeoutError("no leader")
