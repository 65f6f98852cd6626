"""A cluster is restored from a backup: its replicas go over to it by themselves, and keep what it lost."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from pathlib import Path

import pytest
from holdfast import client
from holdfast_lab.processes import LocalCluster

from .replica import Edge
from .test_relays import process, replica
from .test_restore import holdfast

pytestmark = pytest.mark.timeout(180)


async def content(hf: client.Client, *, serializable: bool = False) -> list[tuple[bytes, bytes, int]]:
    found = await hf.range("/a/", prefix=True, serializable=serializable)
    return [(kv.key, kv.value, kv.mod_revision) for kv in found.kvs]


def restored(cluster: LocalCluster, saved: Path, *options: str) -> None:
    """Restore the only member of the cluster into its own directory."""
    (name,) = cluster.voters
    place = cluster.directory / name
    shutil.rmtree(place)
    url = cluster.peer_url(name)
    words = [f"--data-dir={place}", f"--name={name}", f"--initial-advertise-peer-urls={url}", *options]
    holdfast("snapshot", "restore", str(saved), *words)


def lost(edge: Edge) -> list[dict[str, object]]:
    (file,) = (edge.data / "lost").iterdir()
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("options", [(), ("--keep-revisions",)], ids=["ahead", "same-revisions"])
async def test_replicas_go_over_to_the_restored_cluster(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Below a replica, too. With --keep-revisions the same revisions are other changes afterwards."""
    cluster = LocalCluster(tmp_path / "cluster", voters=1)
    (voter,) = cluster.voters.values()
    cluster.start()
    saved = tmp_path / "saved.db"
    try:
        await cluster.wait_ready()
        async with (
            replica(tmp_path, "relay", cluster.endpoints) as relay,
            replica(tmp_path, "leaf", [relay.endpoint]) as leaf,
            client.connect(voter.endpoint, timeout=20) as hf,
            client.connect(leaf.endpoint, timeout=20) as at_leaf,
        ):
            for n in range(20):
                put = await hf.put(f"/a/{n:02d}", "before")
            await leaf.reaches(at_leaf, put.revision)
            holdfast("snapshot", "save", str(saved), "--endpoints", voter.endpoint)
            for n in range(10, 30):
                await hf.put(f"/a/{n:02d}", "is lost")
            await hf.put("/other", "is not of the prefixes")
            before = await hf.delete("/a/00")
            await leaf.reaches(at_leaf, before.revision)
            old = await at_leaf.describe()
            watch = at_leaf.watch("/a/", prefix=True, start_revision=before.revision + 1)
            ended = asyncio.ensure_future(anext(aiter(watch)))

            voter.kill()
            restored(cluster, saved, *options)
            voter.start()
            await cluster.wait_ready()
            async with client.connect(voter.endpoint, timeout=20) as now:
                for n in range(3):
                    await now.put(f"/a/{n:02d}", "after")
                epoch = (await now.describe()).epoch
                async with asyncio.timeout(40):
                    while (await at_leaf.describe()).epoch != epoch:
                        await asyncio.sleep(0.05)
                await leaf.reaches(at_leaf, (await now.put("/a/last", "x")).revision)
                assert await content(at_leaf, serializable=True) == await content(now)
            with pytest.raises(client.Compacted):
                await asyncio.wait_for(ended, 30)
            node = await at_leaf.describe()
            assert node.cluster_id != old.cluster_id
            for edge in (relay, leaf):
                head, *changes = lost(edge)
                assert head["complete"]
                assert head["revision"] == before.revision
                keys = [base64.b64decode(str(change["key"])) for change in changes]
                assert keys == [b"/a/%02d" % n for n in range(10, 30)] + [b"/a/00"]
                assert [change["type"] for change in changes] == ["put"] * 20 + ["delete"]

            head, *lines = (
                json.loads(line) for line in holdfast("edge", "export", "--endpoints", leaf.endpoint).splitlines()
            )
            assert (head["epoch"], head["revision"]) == (epoch, node.revision)
            assert [(base64.b64decode(n["key"]), base64.b64decode(n["value"]), n["revision"]) for n in lines] == (
                await content(at_leaf, serializable=True)
            )
            # A start in between changes nothing: it is the same history.
            process(leaf).kill()
            process(leaf).start()
            async with client.connect(leaf.endpoint, timeout=20) as again:
                assert (await again.describe()).epoch == epoch
                assert len(await content(again, serializable=True)) == 21
    finally:
        cluster.kill()
        print(cluster.logs())


async def test_a_second_restore_from_the_same_backup_is_later(tmp_path: Path) -> None:
    """Else a replica that has seen the first one would refuse the second as a foreign cluster for ever."""
    cluster = LocalCluster(tmp_path / "cluster", voters=1)
    (voter,) = cluster.voters.values()
    cluster.start()
    saved = tmp_path / "saved.db"
    try:
        await cluster.wait_ready()
        async with replica(tmp_path, "edge", cluster.endpoints) as edge, client.connect(edge.endpoint) as near:
            async with client.connect(voter.endpoint, timeout=20) as hf:
                await hf.put("/a/1", "0")
                holdfast("snapshot", "save", str(saved), "--endpoints", voter.endpoint)
            epochs = [(await near.describe()).epoch]
            for round_ in range(1, 3):
                voter.kill()
                restored(cluster, saved)
                voter.start()
                await cluster.wait_ready()
                async with client.connect(voter.endpoint, timeout=20) as hf:
                    await edge.reaches(near, (await hf.put("/a/1", str(round_))).revision)
                    async with asyncio.timeout(30):
                        while (
                            found := await near.get("/a/1", serializable=True)
                        ) is None or found.value != b"%d" % round_:
                            await asyncio.sleep(0.05)
                epochs.append((await near.describe()).epoch)
            assert epochs == sorted(set(epochs))
    finally:
        cluster.kill()
        print(cluster.logs())
