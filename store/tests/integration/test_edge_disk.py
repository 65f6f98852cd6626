"""A replica whose disk takes nothing: it goes on serving what it has, and goes on following once it can."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from holdfast import client
from holdfast.edge.history import History
from holdfast.edge.server import EdgeConfig, EdgeServer
from holdfast.storage.state import RocksStore
from holdfast_lab.processes import LocalCluster, free_ports

from ..small_disk import fill, small_disk
from ..stalls import stall, unstall
from .replica import Edge

VALUE = 100_000


async def test_a_stalled_store_is_waited_for(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RocksDB stalls writes, and the snapshot of a replica, its changes and the removal of its history wait for it. The
    process ended."""
    (port,) = free_ports(1)
    config = EdgeConfig(
        "berlin", tmp_path / "berlin", ("/a/",), tuple(cluster.endpoints), (f"http://127.0.0.1:{port}",)
    )
    await cluster.wait_ready(60)
    async with client.connect(cluster.endpoints) as hf, client.connect(f"127.0.0.1:{port}") as at_edge:
        await hf.put("/a/1", "x")
        server, stop = EdgeServer(config), asyncio.Event()
        renew = server.generations.renew

        async def stalled() -> RocksStore:
            store = await renew()
            stall(store)
            return store

        monkeypatch.setattr(server.generations, "renew", stalled)
        running = asyncio.ensure_future(server.run(stop))
        try:
            await _until(lambda: server.core.stalled or running.done())
            assert not running.done(), running.exception()
            assert not server.core.complete, "the snapshot is not on the disk"
            put = await hf.put("/a/2", "y")
            building = server.generations.building
            assert building is not None
            unstall(building)
            await _until(lambda: server.core.position.watermark >= put.revision or running.done())
            assert not server.core.stalled
            for n in range(20):
                put = await hf.put("/a/2", f"{n}")
            await _until(lambda: server.core.position.watermark >= put.revision)
            server.core.here._history = History(1000, put.revision - 1, most=500)  # as after 64 MiB of changes
            server.core.here._history.add(put.revision, 100)
            server.core.forget_history()
            assert server.core.position.floor == put.revision - 1
            stall(server._store)
            await asyncio.sleep(1.5)  # a second is the time after which it looks for history to remove
            assert not running.done(), running.exception()
            unstall(server._store)
            await _until(lambda: server.served.pruned)
            found = await at_edge.range("/a/", prefix=True, serializable=True)
            assert [(kv.key, kv.value) for kv in found.kvs] == [(b"/a/1", b"x"), (b"/a/2", b"19")]
        finally:
            stop.set()
            await running


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 48) as place:
        yield place


@pytest.mark.timeout(120)
async def test_a_full_disk_stops_changes_and_nothing_else(cluster: LocalCluster, tmp_path: Path, disk: Path) -> None:
    """The process ended, and could not start again before there was room."""
    await cluster.wait_ready(60)
    edge = Edge(tmp_path, cluster.endpoints, ("/a/",), disk / "data")
    await edge.start()
    assert edge.process is not None
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
        try:
            await edge.reaches(at_edge, (await hf.put("/a/first", "in the snapshot")).revision)
            first = await hf.put("/a/first", "1")
            await edge.reaches(at_edge, first.revision)
            async with asyncio.timeout(30):
                while not (await at_edge.describe()).HasField("staleness_ms"):
                    await asyncio.sleep(0.05)
            seen: list[int] = []

            async def watch() -> None:
                async for event in at_edge.watch("/a/", prefix=True, start_revision=first.revision):
                    seen.append(event.kv.mod_revision)
                    if event.kv.key == b"/a/last":
                        return

            watching = asyncio.ensure_future(watch())
            written = [first.revision]
            fill(disk / "ballast")
            async with asyncio.timeout(60):
                while not any("the disk takes no writes" in e for e in (await at_edge.status()).errors):
                    written.append((await hf.put(f"/a/{len(written) % 7}", os.urandom(VALUE))).revision)
            written += [(await hf.put(f"/a/{n}", os.urandom(VALUE))).revision for n in range(7)]
            before = await at_edge.describe()
            async with asyncio.timeout(30):
                while (now := await at_edge.describe()).staleness_ms < before.staleness_ms + 1500:
                    await asyncio.sleep(0.05)
            assert now.revision == before.revision < written[-1], "it took changes that it cannot keep"
            read = await at_edge.range("/a/first", serializable=True)
            assert read.kvs[0].value == b"1"
            assert read.revision == before.revision
            (disk / "ballast").unlink()
            written.append((await hf.put("/a/last", "1")).revision)
            await edge.reaches(at_edge, written[-1])
            async with asyncio.timeout(30):
                await watching
            assert seen == written, "a change was missed or repeated"
            edge.process.kill()
            edge.relay.cut()
            edge.process.start()
            async with asyncio.timeout(30):
                while (await at_edge.describe()).revision < written[-1]:
                    await asyncio.sleep(0.05)
            here = await at_edge.range("/a/", prefix=True, serializable=True)
            there = await hf.range("/a/", prefix=True)
            assert here.kvs == there.kvs
        finally:
            edge.process.kill()
            await edge.relay.close()
            with contextlib.suppress(FileNotFoundError):
                (disk / "ballast").unlink()
            print(edge.process.tail(40))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["full", "read-only"])
async def test_a_replica_starts_on_a_disk_that_takes_nothing(
    cluster: LocalCluster, tmp_path: Path, disk: Path, how: str
) -> None:
    """Also without a network: it serves what is there, and goes on once the disk takes writes."""
    await cluster.wait_ready(60)
    edge = Edge(tmp_path, cluster.endpoints, ("/a/",), disk / "data")
    await edge.start()
    assert edge.process is not None
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint, timeout=20) as at_edge:
        try:
            for n in range(20):
                put = await hf.put(f"/a/{n}", os.urandom(VALUE // 10))
            await edge.reaches(at_edge, put.revision)
            written = await at_edge.range("/a/", prefix=True, serializable=True)
            edge.process.kill()
            edge.relay.cut()
            if how == "full":
                fill(disk / "ballast")
            else:
                _mount("remount,ro", disk)
            edge.process.start()
            found = await at_edge.range("/a/", prefix=True, serializable=True)
            assert found.kvs == written.kvs
            edge.relay.heal()
            later = await hf.put("/a/later", "x")
            async with asyncio.timeout(30):
                while not any("the disk takes no writes" in e for e in (await at_edge.status()).errors):
                    await asyncio.sleep(0.05)
            if how == "full":
                (disk / "ballast").unlink()
            else:
                _mount("remount,rw", disk)
            async with asyncio.timeout(30):
                while (await at_edge.status()).errors:
                    await asyncio.sleep(0.05)
            await edge.reaches(at_edge, later.revision)
            edge.process.stop()
            edge.relay.cut()
            edge.process.start()
            assert (await at_edge.get("/a/later", serializable=True)) is not None
        finally:
            edge.process.kill()
            await edge.relay.close()
            print(edge.process.tail(40))


def _mount(options: str, place: Path) -> None:
    subprocess.run(["mount", "-o", options, str(place)], check=True)
