"""etcdctl 3.6 against a cluster of three: the usual commands work."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from holdfast import client
from holdfast_lab.processes import LocalCluster


class Ctl:
    def __init__(self, program: str, endpoints: list[str]) -> None:
        self.program = program
        self.endpoints = endpoints

    def __call__(self, *words: str, stdin: str = "", at: str = "", fails: bool = False) -> str:
        done = subprocess.run(
            [self.program, "--endpoints", at or ",".join(self.endpoints), *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if fails else "")


async def test_what_etcdctl_does(cluster: LocalCluster, etcdctl: str, tmp_path: Path) -> None:
    await cluster.wait_ready()
    ctl = Ctl(etcdctl, cluster.endpoints)
    assert ctl("put", "a/1", "x") == "OK\n"
    assert ctl("put", "a/2", "y") == "OK\n"
    assert ctl("put", "a/2", "z", "--prev-kv") == "OK\na/2\ny\n"
    assert ctl("get", "a/", "--prefix") == "a/1\nx\na/2\nz\n"
    assert ctl("get", "a/2", "--rev=3") == "a/2\ny\n"
    assert ctl("get", "a/", "--prefix", "--order=DESCEND", "--keys-only", "--limit=1") == "a/2\n\n"
    counted = ctl("get", "a/", "--prefix", "--count-only", "-w", "fields")
    assert '"Count" : 2' in counted
    assert '"Revision" : 4' in counted
    script = 'value("a/1") = "x"\n\nput a/3 ok\nget a/1\n\nput a/3 no\n\n'
    assert ctl("txn", stdin=script).split() == ["SUCCESS", "OK", "a/1", "x"]
    assert ctl("txn", stdin=script.replace('"x"', '"q"')).split() == ["FAILURE", "OK"]
    assert ctl("del", "a/1", "--prev-kv") == "1\na/1\nx\n"
    assert ctl("get", "a/2", "--rev=99", fails=True).strip().endswith("required revision is a future revision")

    watching = subprocess.Popen(
        [etcdctl, "--endpoints", cluster.endpoints[1], "watch", "a/", "--prefix", "--rev=2"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    lines = [watching.stdout.readline().strip() for _ in range(18)]
    watching.kill()
    watching.wait()
    watching.stdout.close()
    assert lines[:9] == ["PUT", "a/1", "x", "PUT", "a/2", "y", "PUT", "a/2", "z"]
    assert lines[9:] == ["PUT", "a/3", "ok", "PUT", "a/3", "no", "DELETE", "a/1", ""]

    lease = ctl("lease", "grant", "30").split()[1]
    assert ctl("put", "l/1", "x", f"--lease={lease}") == "OK\n"
    assert "keepalived with TTL(30)" in ctl("lease", "keep-alive", "--once", lease)
    assert "attached keys([l/1])" in ctl("lease", "timetolive", lease, "--keys")
    assert lease in ctl("lease", "list")
    assert "revoked" in ctl("lease", "revoke", lease)
    assert ctl("get", "l/1") == ""

    members = json.loads(ctl("member", "list", "-w", "json"))["members"]
    assert sorted(m["name"] for m in members) == ["m1", "m2", "m3"]
    statuses = json.loads(ctl("endpoint", "status", "-w", "json"))
    leaders = {s["Status"]["leader"] for s in statuses}
    assert len(leaders) == 1
    assert ctl("endpoint", "health").count("is healthy") == 3
    assert len({line.split(", ")[1] for line in ctl("endpoint", "hashkv").splitlines()}) == 1

    saved = tmp_path / "snapshot.db"
    ctl("snapshot", "save", str(saved), at=cluster.endpoints[0])
    assert saved.stat().st_size % 512 == 32

    assert "compacted revision 5" in ctl("compaction", "5", "--physical")
    assert "has been compacted" in ctl("get", "a/2", "--rev=3", fails=True)
    assert ctl("get", "a/2", "--rev=5") == "a/2\nz\n"
    assert ctl("defrag").count("Finished defragmenting") == 3

    (old,) = leaders
    target = next(m["ID"] for m in members if m["ID"] != old)
    assert "Leadership transferred" in ctl("move-leader", f"{target:x}")
    assert {s["Status"]["leader"] for s in json.loads(ctl("endpoint", "status", "-w", "json"))} == {target}


async def test_a_lease_that_is_not_kept_alive_takes_its_keys_along(cluster: LocalCluster, etcdctl: str) -> None:
    await cluster.wait_ready()
    ctl = Ctl(etcdctl, cluster.endpoints)
    lease = ctl("lease", "grant", "2").split()[1]
    ctl("put", "mine", "x", f"--lease={lease}")
    async with client.connect(cluster.endpoints) as hf:
        created = await hf.get("mine")
        assert created is not None
        async for event in hf.watch("mine", start_revision=created.mod_revision + 1):
            assert event.type == "delete"
            break
    assert "already expired" in ctl("lease", "timetolive", lease)


@pytest.mark.timeout(180)
async def test_members_come_and_go(cluster: LocalCluster, etcdctl: str, tmp_path: Path) -> None:
    """member add, a fourth process that takes the place, promote, remove."""
    await cluster.wait_ready()
    ctl = Ctl(etcdctl, cluster.endpoints)
    ctl("put", "k", "v")
    fourth = cluster.add_voter("m4", state="existing")
    url = cluster.peer_url("m4")
    added = json.loads(ctl("member", "add", "m4", f"--peer-urls={url}", "--learner", "-w", "json"))["member"]["ID"]
    fourth.start()
    async with client.connect(fourth.endpoint, timeout=30) as hf:
        found = await hf.range("k", serializable=True)
        assert found.kvs[0].value == b"v"
    for _ in range(100):
        done = subprocess.run(
            [etcdctl, "--endpoints", ",".join(cluster.endpoints[:3]), "member", "promote", f"{added:x}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            break
        assert "in sync with leader" in done.stderr, done.stderr
    assert done.returncode == 0
    await cluster.wait_ready()
    assert len(json.loads(ctl("member", "list", "-w", "json"))["members"]) == 4
    # A second volume cannot take the place of the first.
    ctl("member", "remove", f"{added:x}", at=cluster.endpoints[0])
    assert fourth.running is not None
    assert fourth.running.wait(20) == 1
    fourth.running = None
    assert "was removed from this cluster" in fourth.tail()
    assert ctl("get", "k", at=",".join(cluster.endpoints[:3])) == "k\nv\n"
