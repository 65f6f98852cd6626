"""Real processes on loopback. Whatever happens, none of them outlives its test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from holdfast_lab.processes import LocalCluster

from ..tools import tool
from .replica import Edge, following


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integration" in Path(str(item.fspath)).parts:
            item.add_marker(pytest.mark.integration)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three voters, started."""
    local = LocalCluster(tmp_path)
    local.start()
    try:
        yield local
    except BaseException:
        print(local.logs())
        raise
    finally:
        local.kill()
        print(local.logs())  # pytest shows it if the test failed


@pytest.fixture
async def edge(cluster: LocalCluster, tmp_path: Path) -> AsyncIterator[Edge]:
    async with following(cluster, tmp_path, ("/a/", "/b/")) as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One voter for all tests of a module, ready."""
    local = LocalCluster(tmp_path_factory.mktemp("server"), voters=1)
    local.start()
    try:
        asyncio.run(local.wait_ready(100))
        yield local
    finally:
        local.kill()


@pytest.fixture
def etcdctl() -> str:
    """etcdctl 3.6, as `make tools` builds it from Go modules."""
    return tool("etcdctl")
