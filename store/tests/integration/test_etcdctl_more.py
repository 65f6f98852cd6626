"""The rest of etcdctl: users, locks, elections, mirrors, alarms, downgrades; and that the docs' table is complete."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import pytest
from holdfast import client
from holdfast_lab.processes import LocalCluster, free_ports

from .test_etcdctl import Ctl

TABLE = Path(__file__).resolve().parents[3] / "docs" / "etcdctl.md"
LOCAL = {"completion", "help", "version"}  # subcommands that talk to no server


async def test_users_and_roles(cluster: LocalCluster, etcdctl: str) -> None:
    await cluster.wait_ready()
    ctl = Ctl(etcdctl, cluster.endpoints)
    assert "Authentication Status: false" in ctl("auth", "status")
    assert "User root created" in ctl("user", "add", "root:secret")
    assert "User ann created" in ctl("user", "add", "ann:first")
    assert "User bob created" in ctl("user", "add", "bob", "--no-password")
    assert "Role reader created" in ctl("role", "add", "reader")
    assert "Role reader updated" in ctl("role", "grant-permission", "reader", "read", "/a/", "--prefix")
    ctl("role", "grant-permission", "reader", "readwrite", "/mine")
    assert "Role reader is granted to user ann" in ctl("user", "grant-role", "ann", "reader")
    assert ctl("role", "list").split() == ["reader"]
    assert ctl("user", "list").split() == ["ann", "bob", "root"]
    shown = ctl("role", "get", "reader")
    assert "/a/" in shown
    assert "/mine" in shown
    assert "Roles: reader" in ctl("user", "get", "ann")
    ctl("put", "/a/1", "x")
    ctl("put", "/b/1", "y")
    assert "Authentication Enabled" in ctl("auth", "enable")  # makes the role root, too

    root, ann = ("--user", "root:secret"), ("--user", "ann:first")
    assert "permission denied" in ctl("get", "/b/1", *ann, fails=True)
    assert "user name is empty" in ctl("get", "/a/1", fails=True)
    assert "invalid user ID or password" in ctl("get", "/a/1", "--user", "ann:wrong", fails=True)
    assert ctl("get", "/a/", "--prefix", *ann) == "/a/1\nx\n"
    assert "permission denied" in ctl("put", "/a/1", "z", *ann, fails=True)
    assert ctl("put", "/mine", "z", *ann) == "OK\n"
    assert "permission denied" in ctl("watch", "/b/", "--prefix", *ann, fails=True)
    assert "permission denied" in ctl("snapshot", "save", "/dev/null", *ann, at=cluster.endpoints[0], fails=True)
    assert "Authentication Status: true" in ctl("auth", "status", *root)
    # Every member knows a token that one of them gave out.
    for endpoint in cluster.endpoints:
        assert ctl("get", "/a/1", *ann, at=endpoint) == "/a/1\nx\n"

    assert "Password updated" in ctl("user", "passwd", "ann", "--interactive=false", *root, stdin="second\n")
    assert "invalid user ID or password" in ctl("get", "/a/1", *ann, fails=True)
    assert ctl("get", "/a/1", "--user", "ann:second") == "/a/1\nx\n"
    assert "Role reader is revoked" in ctl("user", "revoke-role", "ann", "reader", *root)
    assert "permission denied" in ctl("get", "/a/1", "--user", "ann:second", fails=True)
    assert "is revoked from role" in ctl("role", "revoke-permission", "reader", "/mine", *root)
    assert "Role reader deleted" in ctl("role", "delete", "reader", *root)
    assert "User bob deleted" in ctl("user", "delete", "bob", *root)
    assert "Authentication Disabled" in ctl("auth", "disable", *root)
    assert ctl("get", "/b/1") == "/b/1\ny\n"


async def test_a_watch_ends_when_its_right_is_taken_away(cluster: LocalCluster, etcdctl: str) -> None:
    """Or it would go on showing what its user may not see any more."""
    await cluster.wait_ready()
    ctl = Ctl(etcdctl, cluster.endpoints)
    for words in (
        "user add root:s",
        "user add ann:s",
        "role add r",
        "user grant-role ann r",
        "user grant-role root root",
    ):
        ctl(*words.split())
    ctl("role", "grant-permission", "r", "read", "k")
    ctl("auth", "enable")
    watching = subprocess.Popen(
        [etcdctl, "--endpoints", cluster.endpoints[0], "--user", "ann:s", "watch", "k"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert watching.stdout is not None
        reading = asyncio.get_running_loop().run_in_executor(None, watching.stdout.readline)
        while not reading.done():
            ctl("put", "k", "seen", "--user", "root:s")
            await asyncio.wait([reading], timeout=0.2)
        ctl("role", "revoke-permission", "r", "k", "--user", "root:s")
        ctl("put", "k", "secret", "--user", "root:s")
        rest = await asyncio.get_running_loop().run_in_executor(None, watching.stdout.read)
    finally:
        watching.kill()
        watching.wait()
    assert "canceled by the server" in rest
    assert "secret" not in rest


async def test_locks_and_elections(cluster: LocalCluster, etcdctl: str) -> None:
    await cluster.wait_ready()
    ctl = Ctl(etcdctl, cluster.endpoints)
    assert ctl("lock", "l", "echo", "held") == "held\n"
    holding = subprocess.Popen(
        [etcdctl, "--endpoints", cluster.endpoints[0], "lock", "l"], stdout=subprocess.PIPE, text=True
    )
    waiting: subprocess.Popen[str] | None = None
    try:
        assert holding.stdout is not None
        first = holding.stdout.readline().strip()
        assert first.startswith("l/")
        waiting = subprocess.Popen(
            [etcdctl, "--endpoints", cluster.endpoints[1], "lock", "l"], stdout=subprocess.PIPE, text=True
        )
        assert waiting.stdout is not None
        loop = asyncio.get_running_loop()
        second = loop.run_in_executor(None, waiting.stdout.readline)
        async with client.connect(cluster.endpoints) as hf:
            while len((await hf.range("l/", prefix=True)).kvs) < 2:
                await asyncio.sleep(0.05)
        assert not second.done()
        holding.terminate()
        assert (await second).strip().startswith("l/")
    finally:
        for process in (holding, waiting):
            if process is not None:
                process.kill()
                process.wait()

    campaigning = subprocess.Popen(
        [etcdctl, "--endpoints", cluster.endpoints[2], "elect", "e", "me"], stdout=subprocess.PIPE, text=True
    )
    listening = subprocess.Popen(
        [etcdctl, "--endpoints", cluster.endpoints[1], "elect", "--listen", "e"], stdout=subprocess.PIPE, text=True
    )
    try:
        for process in (campaigning, listening):
            assert process.stdout is not None
            assert process.stdout.readline().startswith("e/")
            assert process.stdout.readline() == "me\n"
    finally:
        for process in (campaigning, listening):
            process.kill()
            process.wait()


async def test_a_mirror(cluster: LocalCluster, etcdctl: str, tmp_path: Path) -> None:
    await cluster.wait_ready()
    other = LocalCluster(tmp_path / "other", voters=1)
    other.start()
    await other.wait_ready()
    ctl, there = Ctl(etcdctl, cluster.endpoints), Ctl(etcdctl, other.endpoints)
    ctl("put", "m/1", "before")
    words = [etcdctl, "--endpoints", cluster.endpoints[0], "make-mirror", "--prefix", "m/", other.endpoints[0]]
    mirroring = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        async with client.connect(other.endpoints) as hf:
            while (await hf.range("m/", prefix=True)).count < 1:
                await asyncio.sleep(0.05)
            ctl("put", "m/2", "after")
            ctl("del", "m/1")
            while [kv.key for kv in (await hf.range("m/", prefix=True)).kvs] != [b"m/2"]:
                await asyncio.sleep(0.05)
        assert there("get", "m/", "--prefix") == "m/2\nafter\n"
    finally:
        mirroring.kill()
        mirroring.wait()
        other.kill()


async def test_alarms_quotas_and_downgrades(etcdctl: str, tmp_path: Path) -> None:
    small = LocalCluster(tmp_path, voters=1, extra=["--quota-backend-bytes=2000000"])
    small.start()
    try:
        await small.wait_ready()
        ctl = Ctl(etcdctl, small.endpoints)
        assert ctl("alarm", "list") == ""
        value = "x" * 100_000
        for number in range(30):
            if subprocess.run(
                [etcdctl, "--endpoints", small.endpoints[0], "put", f"k{number}", value],
                capture_output=True,
                check=False,
            ).returncode:
                break
        assert number < 25
        assert "database space exceeded" in ctl("put", "k", value, fails=True)
        assert "alarm:NOSPACE" in ctl("alarm", "list")
        assert "alarm:NOSPACE" in ctl("endpoint", "status", "-w", "json") or "NOSPACE" in ctl("endpoint", "status")
        assert ctl("get", "k0", "--keys-only").strip() == "k0"  # reading goes on
        ctl("del", "k", "--prefix")
        revision = re.search(r'"Revision" : (\d+)', ctl("get", "k", "-w", "fields"))
        assert revision is not None
        ctl("compaction", "--physical", revision[1])
        ctl("defrag")
        assert "alarm:NOSPACE" in ctl("alarm", "disarm")
        assert ctl("put", "k", "fits") == "OK\n"

        assert "Downgrade validate success" in ctl("downgrade", "validate", "3.5.0")
        assert "invalid downgrade target version" in ctl("downgrade", "validate", "3.4.0", fails=True)
        assert "no older version" in ctl("downgrade", "enable", "3.5.0", fails=True)
        assert "no inflight downgrade job" in ctl("downgrade", "cancel", fails=True)
    finally:
        small.kill()


async def test_history_is_compacted_by_itself(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path, voters=1, extra=["--auto-compaction-retention=1s"])
    local.start()
    try:
        await local.wait_ready()
        async with client.connect(local.endpoints) as hf:
            for n in range(20):
                await hf.put("k", str(n))

            async def compacted() -> bool:
                try:
                    await hf.range("k", revision=2)
                except client.Compacted:
                    return True
                return False

            while not await compacted():
                await asyncio.sleep(0.1)
            found = await hf.get("k")
            assert found is not None
            assert found.value == b"19"
    finally:
        local.kill()


async def test_members_are_updated(cluster: LocalCluster, etcdctl: str) -> None:
    await cluster.wait_ready()
    ctl = Ctl(etcdctl, cluster.endpoints)
    id, _, _, old, *_ = ctl("member", "list").splitlines()[0].split(", ")
    more = f"http://127.0.0.1:{free_ports(1)[0]}"  # one more address: without the old one nobody would reach it
    assert "updated in cluster" in ctl("member", "update", id, f"--peer-urls={old},{more}")
    assert more in ctl("member", "list")


@pytest.mark.timeout(180)
async def test_data_at_scale(cluster: LocalCluster, etcdctl: str) -> None:
    await cluster.wait_ready()
    ctl = Ctl(etcdctl, cluster.endpoints)
    done = subprocess.run(
        [etcdctl, "--endpoints", cluster.endpoints[0], "check", "datascale", "--load=s"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert "PASS: Approximate system memory used" in done.stdout, done.stdout + done.stderr
    assert ctl("get", "/etcdctl-check-datascale/", "--prefix", "--count-only", "-w", "fields").find('"Count" : 0') > 0


def test_the_docs_name_every_subcommand(etcdctl: str) -> None:
    shown = subprocess.run([etcdctl, "--help"], capture_output=True, text=True, check=True).stdout
    listed = shown.split("COMMANDS:")[1].split("OPTIONS:")[0]
    there = {line.split("\t")[0].strip() for line in listed.splitlines() if line.strip()}
    documented = set(re.findall(r"^\| `([a-z -]+)` \|", TABLE.read_text(), re.MULTILINE))
    assert documented == there - LOCAL
