"""Replicas that follow replicas: what comes through is whole, old answers are known as old, and no loop forms."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from holdfast import client
from holdfast_lab.processes import LocalCluster, Process

from .replica import Edge

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def replica(
    directory: Path, name: str, endpoints: list[str], prefixes: tuple[str, ...] = ("/a/",)
) -> AsyncIterator[Edge]:
    place = directory / name
    place.mkdir(exist_ok=True)
    edge = Edge(place, endpoints, prefixes, name=name)
    await edge.start()
    try:
        yield edge
    finally:
        assert edge.process is not None
        edge.process.kill()
        await edge.relay.close()
        print(edge.process.tail(40))


def process(edge: Edge) -> Process:
    assert edge.process is not None
    return edge.process


async def test_a_replica_below_a_replica_misses_nothing(cluster: LocalCluster, edge: Edge, tmp_path: Path) -> None:
    """The one above is restarted, killed and cut off meanwhile; the one below gets every event once."""
    async with (
        client.connect(cluster.endpoints, timeout=20) as hf,
        replica(tmp_path, "leaf", [edge.endpoint]) as leaf,
        client.connect(leaf.endpoint, timeout=20) as at_leaf,
        client.connect(edge.endpoint, timeout=20) as at_edge,
    ):
        await leaf.reaches(at_leaf, (await hf.put("/a/n", "in the snapshot")).revision)
        node = await at_leaf.describe()
        assert node.connected
        first = await hf.put("/a/n", "0")
        seen: list[tuple[int, bytes]] = []

        async def watch() -> None:
            async for event in at_leaf.watch("/a/", prefix=True, start_revision=first.revision):
                seen.append((event.kv.mod_revision, event.kv.value))
                if event.kv.value == b"last":
                    return

        watching = asyncio.ensure_future(watch())
        written = [(first.revision, b"0")]

        async def put(value: str) -> None:
            written.append(((await hf.put("/a/n", value)).revision, value.encode()))

        for round_ in range(3):
            await put(f"{round_} before")
            process(edge).kill()
            await put(f"{round_} while it is gone")
            process(edge).start()
            await put(f"{round_} while it comes back")
            edge.relay.cut()
            await edge.is_cut(at_edge)
            await put(f"{round_} while it is cut off")
            edge.relay.heal()
            await leaf.reaches(at_leaf, written[-1][0])
        await put("last")
        async with asyncio.timeout(30):
            await watching
        assert seen == written
        through = await at_leaf.put("/a/n", "from below")
        here = await at_leaf.get("/a/n", serializable=True)
        assert here is not None
        assert here.mod_revision == through.revision
        async with asyncio.timeout(30):  # a report comes after the stream is open
            while [r.replica for r in (await at_edge.describe()).replicas] != ["leaf"]:
                await asyncio.sleep(0.02)
        async with asyncio.timeout(20):
            while {r.replica for e in cluster.endpoints for r in (await hf.describe(e)).replicas} != {"berlin", "leaf"}:
                await asyncio.sleep(0.05)


async def test_the_bound_adds_up_through_replicas(cluster: LocalCluster, edge: Edge, tmp_path: Path) -> None:
    """Below a replica that is cut off nothing is younger than what that one has."""
    async with (
        client.connect(cluster.endpoints, timeout=20) as hf,
        replica(tmp_path, "leaf", [edge.endpoint]) as leaf,
        client.connect(leaf.endpoint) as at_leaf,
    ):
        await leaf.reaches(at_leaf, (await hf.put("/a/1", "x")).revision)
        async with asyncio.timeout(20):
            while not (node := await at_leaf.describe()).HasField("staleness_ms") or node.staleness_ms > 1500:
                await asyncio.sleep(0.05)
        edge.relay.cut()
        await hf.put("/a/1", "not seen below")
        async with asyncio.timeout(30):
            while (node := await at_leaf.describe()).staleness_ms < 3000:
                await asyncio.sleep(0.05)
        assert node.connected, "to a replica that is cut off"
        edge.relay.heal()
        async with asyncio.timeout(30):
            while (await at_leaf.describe()).staleness_ms > 1500:
                await asyncio.sleep(0.05)


async def test_what_a_replica_lacks_cannot_be_followed_there(cluster: LocalCluster, edge: Edge, tmp_path: Path) -> None:
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
        await edge.reaches(at_edge, (await hf.put("/a/1", "x")).revision)
        async with replica(tmp_path, "leaf", [edge.endpoint], ("/a/", "/other/")) as leaf, asyncio.timeout(20):
            while "/other/ is outside this replica's prefixes (/a/, /b/)" not in process(leaf).tail():
                await asyncio.sleep(0.05)


async def test_replicas_that_are_told_to_follow_each_other_do_not(
    cluster: LocalCluster, edge: Edge, tmp_path: Path
) -> None:
    """Each may follow the cluster or the other; when the cluster is out of reach, neither follows itself."""
    async with (
        client.connect(cluster.endpoints) as hf,
        replica(tmp_path, "one", [edge.endpoint], ("/a/", "/b/")) as one,
        client.connect(one.endpoint) as at_one,
    ):
        await one.reaches(at_one, (await hf.put("/a/1", "x")).revision)
        process(edge).kill()
        process(edge).arguments = [
            f"--endpoints=127.0.0.1:{one.port}" if a.startswith("--endpoints") else a for a in process(edge).arguments
        ]
        process(edge).start()
        async with asyncio.timeout(30):
            while not any("it follows this replica itself" in process(e).tail(100) for e in (edge, one)):
                await asyncio.sleep(0.05)
        for endpoint in (edge.endpoint, one.endpoint):
            async with client.connect(endpoint) as at:
                found = await at.get("/a/1", serializable=True)
                assert found is not None
                assert found.value == b"x"


async def test_who_is_below_a_replica_that_is_cut_off_goes_to_the_cluster_and_comes_back(
    cluster: LocalCluster, edge: Edge, tmp_path: Path
) -> None:
    async with (
        client.connect(cluster.endpoints, timeout=20) as hf,
        client.connect(edge.endpoint) as at_edge,
        replica(tmp_path, "leaf", cluster.endpoints) as leaf,
        client.connect(leaf.endpoint) as at_leaf,
    ):
        await edge.reaches(at_edge, (await hf.put("/a/1", "x")).revision)
        process(leaf).kill()
        process(leaf).arguments.append(f"--parents={edge.endpoint}")
        process(leaf).start()
        await leaf.reaches(at_leaf, (await hf.put("/a/1", "y")).revision)
        assert {r.replica for r in (await at_edge.describe()).replicas} <= {"leaf"}
        assert f"following {edge.endpoint}" in process(leaf).tail(5)
        edge.relay.cut()
        await edge.is_cut(at_edge)
        await leaf.reaches(at_leaf, (await hf.put("/a/1", "z")).revision)
        assert f"following {edge.endpoint}" not in process(leaf).tail(1)
        edge.relay.heal()
        async with asyncio.timeout(110):
            while f"following {edge.endpoint}" not in process(leaf).tail(1):
                await asyncio.sleep(0.2)


Entries = dict[str, dict[str, Any]]


async def status(*endpoints: str) -> tuple[int, Entries, str]:
    """(exit code, the entries by name, the errors) of `holdfast edge status`."""
    words = [sys.executable, "-m", "holdfast", "edge", "status", "-o", "json", "--endpoints", ",".join(endpoints)]
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=60, check=False)
    entries = json.loads(done.stdout) if done.stdout else []
    return done.returncode, {entry["name"]: entry for entry in entries}, done.stderr


async def shown(endpoint: str, holds: Callable[[Entries], bool]) -> Entries:
    async with asyncio.timeout(60):
        while True:
            code, entries, errors = await status(endpoint)
            assert (code, errors) == (0, "")
            if holds(entries):
                return entries


def states(entries: Entries) -> dict[str, str]:
    return {name: entry["state"] for name, entry in entries.items() if entry["kind"] == "replica"}


async def test_the_status_shows_who_follows_whom_and_who_is_offline(
    cluster: LocalCluster, edge: Edge, tmp_path: Path
) -> None:
    async with (
        client.connect(cluster.endpoints, timeout=20) as hf,
        replica(tmp_path, "leaf", [edge.endpoint]) as leaf,
        client.connect(leaf.endpoint, timeout=20) as at_leaf,
    ):
        await leaf.reaches(at_leaf, (await hf.put("/a/1", "x")).revision)
        one = cluster.endpoints[0]

        def settled(entries: Entries) -> bool:
            known = [entries.get(name, {}) for name in ("berlin", "leaf")]
            return all(entry.get("lag") == 0 and entry["bound_seconds"] for entry in known)

        entries = await shown(one, settled)
        assert states(entries) == {"berlin": "online", "leaf": "online"}
        assert {name for name, entry in entries.items() if entry["kind"] == "member"} == {"m1", "m2", "m3"}
        above = [entry["id"] for entry in entries.values() if entry["kind"] == "member"]
        assert entries["berlin"]["upstream"] in above
        assert entries["leaf"]["upstream"] == entries["berlin"]["id"]
        assert entries["leaf"]["pool"] == "shops"

        process(leaf).kill()
        entries = await shown(one, lambda e: states(e) == {"berlin": "online", "leaf": "offline"})
        assert entries["leaf"]["upstream"] == entries["berlin"]["id"]
        since = entries["leaf"]["offline_since_ms"]
        assert abs(time.time() - since / 1000) < 60
        process(edge).kill()
        entries = await shown(one, lambda e: states(e) == {"berlin": "offline", "leaf": "offline"})
        assert entries["leaf"]["offline_since_ms"] == since, "not since its relay is gone"
        assert entries["berlin"]["offline_since_ms"] >= since
        assert (await hf.describe(one)).ready

        process(edge).start()
        process(leaf).start()
        await shown(one, lambda e: states(e) == {"berlin": "online", "leaf": "online"})
        process(edge).kill()  # nothing is known of the leaf, which runs
        entries = await shown(one, lambda e: states(e) == {"berlin": "offline", "leaf": "offline"})
        assert entries["leaf"]["offline_since_ms"] == entries["berlin"]["offline_since_ms"]
        code, entries, _ = await status(one, leaf.endpoint)
        assert (code, states(entries)) == (0, {"berlin": "offline", "leaf": "disconnected"})
        code, entries, _ = await status(leaf.endpoint)
        assert (code, states(entries)) == (0, {"leaf": "disconnected"})

        gone = next(iter(cluster.voters.values()))
        gone.kill()
        code, entries, errors = await status(*cluster.endpoints[1:])
        assert (code, errors.count("warning: ")) == (0, 1)
        assert errors.startswith("warning: no answer from m1: ")
        assert set(entries) >= {"m2", "m3"}
        code, entries, errors = await status(one)
        assert (code, entries) == (3, {})
        assert "no server answered" in errors
