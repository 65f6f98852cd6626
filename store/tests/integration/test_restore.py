"""A cluster saved, lost, and made again from the file; clients that remember the old one are not misled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from holdfast import client
from holdfast_lab.processes import LocalCluster


def holdfast(*words: str, fails: bool = False) -> str:
    done = subprocess.run([sys.executable, "-m", "holdfast", *words], capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.timeout(180)
async def test_saved_and_restored(cluster: LocalCluster, etcdctl: str, tmp_path: Path) -> None:
    await cluster.wait_ready()
    async with client.connect(cluster.endpoints) as hf:
        for n in range(100):
            await hf.put(f"/k/{n:03d}", str(n))
        lease = await hf.lease(300)
        await hf.put("/leased", "x", lease=lease.id)
        await lease.release()
        last = (await hf.delete("/k/000")).revision
    saved = tmp_path / "saved.db"
    words = [etcdctl, "--endpoints", cluster.endpoints[0], "snapshot", "save", str(saved)]
    subprocess.run(words, check=True, capture_output=True)
    async with client.connect(cluster.endpoints) as hf:
        await hf.put("/after", "is lost")
    assert str(last) in holdfast("snapshot", "status", str(saved))
    cluster.kill()

    again = LocalCluster(tmp_path / "again", voters=1)
    (process,) = again.voters.values()
    place, url = str(again.directory / "m1"), again.peer_url("m1")
    words = [
        "snapshot",
        "restore",
        str(saved),
        f"--data-dir={place}",
        "--name=m1",
        f"--initial-advertise-peer-urls={url}",
    ]
    assert f"revision {last}" in holdfast(*words)
    assert "holds a member already" in holdfast(*words, fails=True)
    again.start()
    try:
        await again.wait_ready()
        async with client.connect(again.endpoints, timeout=20) as hf:
            found = await hf.range("/k/", prefix=True)
            assert [kv.value for kv in found.kvs] == [str(n).encode() for n in range(1, 100)]
            assert found.revision >= last + 1_000_000_000
            assert await hf.get("/after") is None
            assert (await hf.get("/leased")) is not None
            # A watch that resumes from a revision which only the old cluster had gets the error to start again.
            with pytest.raises(client.Compacted):
                async for _ in hf.watch("/k/", prefix=True, start_revision=last + 2):
                    pass
            await hf.put("/k/new", "goes on")
        # Others join it as they join any cluster.
        joined = again.add_voter("m2")
        words = [etcdctl, "--endpoints", process.endpoint, "member", "add", "m2", "--learner"]
        words.append(f"--peer-urls={again.peer_url('m2')}")
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        joined.start()
        async with client.connect(joined.endpoint, timeout=30) as hf:
            assert (await hf.range("/k/", prefix=True, serializable=True)).count == 100
    finally:
        again.kill()


def test_what_is_no_snapshot_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"x" * 5000)
    place = tmp_path / "place"
    for words in (["status", str(damaged)], ["restore", str(damaged), f"--data-dir={place}"]):
        assert "its sum is wrong" in holdfast("snapshot", *words, fails=True)
    assert "cannot be read" in holdfast("snapshot", "status", str(tmp_path / "none"), fails=True)
    assert not place.exists()
