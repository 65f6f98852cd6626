"""A replica that takes a large snapshot: what breaks off is continued, also after a restart, and reads never fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from holdfast import client
from holdfast.edge.core import ReplicaCore
from holdfast.edge.data import BrokenUpstream
from holdfast.edge.server import EdgeConfig, EdgeServer
from holdfast.proto import holdfast_pb2
from holdfast_lab.processes import LocalCluster, free_ports

pytestmark = pytest.mark.timeout(120)

KEYS = 2000
VALUE = b"v" * 1000  # some 32 chunks


class Chunks:
    """Counts chunks, and breaks a connection off after `most` of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most: int | None = None
        self.here = 0  # on this connection
        self.all = 0
        take, hello = ReplicaCore.chunk, ReplicaCore.hello

        def chunk(core: ReplicaCore, chunk: holdfast_pb2.FollowChunk) -> None:
            if self.here == self.most:
                raise BrokenUpstream("the connection breaks off")
            take(core, chunk)
            self.here += 1
            self.all += 1

        def greeted(core: ReplicaCore, message: holdfast_pb2.FollowHello) -> None:
            self.here = 0
            hello(core, message)

        monkeypatch.setattr(ReplicaCore, "chunk", chunk)
        monkeypatch.setattr(ReplicaCore, "hello", greeted)


@asynccontextmanager
async def edge(cluster: LocalCluster, data: Path) -> AsyncIterator[tuple[EdgeServer, client.Client]]:
    (port,) = free_ports(1)
    config = EdgeConfig("berlin", data, ("/a/",), tuple(cluster.endpoints), (f"http://127.0.0.1:{port}",))
    server, stop = EdgeServer(config), asyncio.Event()
    running = asyncio.ensure_future(server.run(stop))
    try:
        async with client.connect(f"127.0.0.1:{port}", timeout=20) as at:
            yield server, at
    finally:
        stop.set()
        await running


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


async def fill(hf: client.Client) -> int:
    for first in range(0, KEYS, 100):
        keys = [f"/a/{n:05d}" for n in range(first, first + 100)]
        done = await hf.txn().then(*(hf.op.put(key, VALUE) for key in keys)).commit()
    return done.revision


async def content(hf: client.Client, *, serializable: bool = False) -> list[tuple[bytes, int]]:
    found = await hf.range("/a/", prefix=True, serializable=serializable)
    return [(kv.key, kv.mod_revision) for kv in found.kvs]


async def test_a_snapshot_that_breaks_off_is_continued_after_a_restart(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.wait_ready(60)
    chunks = Chunks(monkeypatch)
    async with client.connect(cluster.endpoints, timeout=20) as hf:
        await fill(hf)
        chunks.most = 10
        async with edge(cluster, tmp_path / "berlin") as (server, at):
            await until(lambda: chunks.all >= 15)  # a second connection goes on
            assert not server.core.complete
            assert not (await at.describe()).ready
        held = server.core.start("", "").held
        assert len(held.ranges) == 1
        await hf.delete("/a/00001")  # held
        last = (await hf.delete("/a/01999")).revision  # not yet
        chunks.most = None
        before = chunks.all
        async with edge(cluster, tmp_path / "berlin") as (server, at):
            assert server.core.start("", "").held == held
            await until(lambda: server.core.position.watermark >= last)
            assert await content(at, serializable=True) == await content(hf)
        assert chunks.all - before < KEYS // 60, "all was sent again"
        assert len([p for p in (tmp_path / "berlin" / "state").iterdir() if p.is_dir()]) <= 2
        async with edge(cluster, tmp_path / "berlin") as (server, at):
            assert server.core.whole
            assert server.generations.building is None
            assert await content(at, serializable=True) == await content(hf)
        assert len([p for p in (tmp_path / "berlin" / "state").iterdir() if p.is_dir()]) == 1


async def test_reads_go_on_while_a_snapshot_replaces_what_is_served(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped, and the history that it needs is compacted."""
    await cluster.wait_ready(60)
    chunks = Chunks(monkeypatch)
    async with client.connect(cluster.endpoints, timeout=20) as hf:
        first = await fill(hf)
        async with edge(cluster, tmp_path / "berlin") as (server, _):
            await until(lambda: server.core.position.watermark >= first)
        old = await content(hf)
        for n in range(0, KEYS, 7):
            last = (await hf.delete(f"/a/{n:05d}")).revision
        await hf.compact(last)
        new = await content(hf)
        chunks.most, chunks.all = 7, 0
        seen: list[list[tuple[bytes, int]]] = []
        async with edge(cluster, tmp_path / "berlin") as (server, at):

            async def read() -> None:
                while True:
                    seen.append(await content(at, serializable=True))

            readers = [asyncio.ensure_future(read()) for _ in range(4)]
            await until(lambda: chunks.all >= 20 or any(r.done() for r in readers))
            assert server.core.building is not None
            assert server.core.position.watermark < last
            before = len(seen)
            await until(lambda: len(seen) > before + 4 or any(r.done() for r in readers))
            chunks.most = None
            await until(lambda: server.core.position.watermark >= last)
            after = len(seen) + 8
            await until(lambda: len(seen) > after or any(r.done() for r in readers))
            assert not any(reader.done() for reader in readers), [r for r in readers if r.done()]
            for reader in readers:
                reader.cancel()
            await until(lambda: not server.generations.retired)
            assert (await hf.put("/a/after", "1")).revision
            put = await hf.put("/a/after", "2")
            await until(lambda: server.core.position.watermark >= put.revision)
        assert old in seen
        assert seen[-1] == new
        assert all(found in (old, new) for found in seen), "neither the old data nor the new"
        kept = [p for p in (tmp_path / "berlin" / "state").iterdir() if p.is_dir()]
        assert len(kept) == 1, "what was served before is removed"
