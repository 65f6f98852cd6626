"""Real servers for the recipes: three members of ours, and one etcd."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest
from holdfast import client
from holdfast_lab.processes import LocalCluster, free_ports

from ..tools import tool


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    cluster = LocalCluster(tmp_path_factory.mktemp("recipes"))
    cluster.start()
    try:
        asyncio.run(cluster.wait_ready())
        yield ",".join(cluster.endpoints)
    finally:
        cluster.kill()
        print(cluster.logs())  # pytest shows it if a test failed


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, peer_port = free_ports(2)
    peer = f"http://127.0.0.1:{peer_port}"
    words = [tool("etcd"), f"--data-dir={tmp_path_factory.mktemp('etcd')}", f"--initial-cluster=default={peer}"]
    words += [f"--listen-client-urls=http://127.0.0.1:{port}", f"--advertise-client-urls=http://127.0.0.1:{port}"]
    words += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", "--log-level=error"]
    process = subprocess.Popen(words)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["ours", "etcd"])
def endpoints(request: pytest.FixtureRequest) -> str:
    """Where nothing new is needed, the recipes work on etcd, too."""
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def hf(endpoints: str) -> AsyncIterator[client.Client]:
    async with client.connect(endpoints, timeout=20) as connected:
        yield connected
