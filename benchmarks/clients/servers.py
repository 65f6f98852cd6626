"""The members that clients are measured against, and proxies before them, as real processes on loopback."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from holdfast import client
from holdfast_lab.processes import LocalCluster, Process, free_ports

HERE = Path(__file__).parent


@contextmanager
def cluster(directory: Path) -> Iterator[LocalCluster]:
    local = LocalCluster(directory)
    local.start()
    try:
        yield local
    finally:
        for process in local.voters.values():
            process.send_signal(signal.SIGCONT)
        local.stop()


async def victim(local: LocalCluster, *, leader: bool) -> Process:
    """The leader, or a follower."""
    await local.wait_ready()
    leads = await local.leader()
    return leads if leader else next(p for p in local.voters.values() if p is not leads)


def _metrics(endpoint: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def ranges(endpoints: list[str]) -> dict[str, float]:
    """How many reads each member has received, of all clients."""
    return {
        endpoint: sum(
            value
            for name, value in _metrics(endpoint).items()
            if name.startswith("grpc_server_started_total{") and 'grpc_method="Range"' in name
        )
        for endpoint in endpoints
    }


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - count for name, count in before.items()}


def watchers(endpoint: str) -> int:
    """How many watches a member has."""
    return int(_metrics(endpoint)["etcd_debugging_mvcc_watcher_total"])


@contextmanager
def far(process: Process, milliseconds: float) -> Iterator[str]:
    """An address at which a member is `milliseconds` away, each way."""
    (port,) = free_ports(1)
    with _running(["far.py", str(port), str(process.port), f"{milliseconds:g}"], [port]):
        yield f"127.0.0.1:{port}"


@contextmanager
def stalling(endpoints: list[str], stalled: int, milliseconds: float, share: float) -> Iterator[list[str]]:
    """Addresses of all members through a proxy, of which the first `stalled` hold up a share of the calls."""
    ports = free_ports(len(endpoints))
    places = [f"{port}={endpoint}" for port, endpoint in zip(ports, endpoints, strict=True)]
    slow = ["stalls.py", f"{milliseconds:g}", str(share), *places[:stalled]]
    with _running(slow, ports[:stalled]):
        if stalled == len(places):
            yield [f"127.0.0.1:{port}" for port in ports]
            return
        with _running(["stalls.py", "0", "0", *places[stalled:]], ports[stalled:]):
            yield [f"127.0.0.1:{port}" for port in ports]


@contextmanager
def _running(words: list[str], ports: list[int]) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, str(HERE / words[0]), *words[1:]])
    try:
        for port in ports:
            _wait_for(port)
        yield
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


async def prepare(local: LocalCluster, keys: Mapping[str, str]) -> None:
    await local.wait_ready()
    async with client.connect(local.endpoints) as hf:
        for key, value in keys.items():
            await hf.put(key, value)
