"""Members are replaced with our own command line, and what is refused is one line."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from holdfast import client
from holdfast_lab.processes import LocalCluster

from .users import PASSWORDS, enable, set_up


def holdfast(*words: str, password: str = "") -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *words],
        env={"HOLDFAST_PASSWORD": password},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(180)
async def test_a_lost_member_is_replaced_at_the_command_line(cluster: LocalCluster) -> None:
    await cluster.wait_ready()
    lost = cluster.voters["m3"]
    async with client.connect(cluster.endpoints, timeout=20) as hf:
        await hf.put("/k", "x")
        id = next(m.ID for m in await hf.members() if m.name == "m3")
    lost.kill()
    shutil.rmtree(cluster.directory / "m3")
    others = "--endpoints=" + ",".join(p.endpoint for p in cluster.voters.values() if p is not lost)
    assert holdfast("member", "remove", "m3", others)[0] == 2  # a name is no id
    assert holdfast("member", "remove", f"{id:x}", others) == (0, f"member {id:x} removed\n")
    status, said = holdfast("member", "add", cluster.peer_url("m3"), others)
    assert status == 0, said
    new = said.split()[1]
    assert "not found" in holdfast("member", "promote", f"{id:x}", others)[1]
    lost.arguments.append("--initial-cluster-state=existing")
    lost.start()
    async with asyncio.timeout(60):
        while (await asyncio.to_thread(holdfast, "member", "promote", new, others))[0] != 0:
            await asyncio.sleep(0.1)
    await cluster.wait_ready()
    status, said = holdfast("member", "list", others)
    assert said.count("voter") == 3


async def test_a_snapshot_that_is_refused_is_one_line_and_leaves_no_file(cluster: LocalCluster, tmp_path: Path) -> None:
    await set_up(cluster)
    async with client.connect(cluster.endpoints, timeout=20) as hf:
        await enable(hf)
    file = tmp_path / "saved"
    words = ("snapshot", "save", str(file), "--user=eve", "--endpoints=" + ",".join(cluster.endpoints))
    assert holdfast(*words, password=PASSWORDS["eve"]) == (1, "error: permission denied\n")
    assert not [name for name in os.listdir(tmp_path) if name.startswith("saved")]


async def test_the_tree_of_replicas_is_shown_to_users_only(cluster: LocalCluster) -> None:
    await set_up(cluster)
    async with client.connect(cluster.endpoints, timeout=20) as hf:
        await enable(hf)
    words = ("edge", "status", "--endpoints=" + cluster.endpoints[0])
    status, said = holdfast(*words)
    assert status == 1, said
    assert said.splitlines()[-1].startswith("error: ")
    assert "m2" not in said
    status, said = holdfast(*words, "--user=eve", password=PASSWORDS["eve"])
    assert status == 0, said
    assert [name for name in ("m1", "m2", "m3") if f" {name} " in said] == ["m1", "m2", "m3"]
