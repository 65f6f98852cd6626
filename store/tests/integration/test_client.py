"""The client as applications use it, and the command line as people do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from holdfast import client
from holdfast_lab.processes import LocalCluster


async def test_keys_made_in_sequence_sort_as_they_were_made(cluster: LocalCluster) -> None:
    async with client.connect(cluster.endpoints, timeout=20) as hf, await hf.lease(30) as lease:
        first = await hf.put_sequential("/queue/", "0", lease=lease)
        made = await asyncio.gather(*(hf.put_sequential("/queue/", str(n)) for n in range(1, 30)))
        assert len({one.key for one in made}) == 29
        found = (await hf.range("/queue/", prefix=True)).kvs
        assert [kv.mod_revision for kv in found] == sorted([first.revision, *(one.revision for one in made)])
        assert [kv.key for kv in found] == [b"/queue/%020d" % kv.mod_revision for kv in found]
        await lease.revoke()
        assert await hf.get(first.key) is None
        with pytest.raises(client.Refused, match="key is not provided"):
            await hf.put_sequential("", "x")
        with pytest.raises(client.Refused, match="lease not found"):
            await hf.put_sequential("/queue/", "x", lease=12345)


async def test_transactions_leases_and_ranges(cluster: LocalCluster) -> None:
    async with client.connect(cluster.endpoints, timeout=20) as hf:
        first = await hf.put("/k/1", "one")
        assert (await hf.put("/k/1", "uno", previous=True)).previous == await hf.get("/k/1", revision=first.revision)
        taken = await hf.txn().if_(hf.key("/lock").version == 0).then(hf.op.put("/lock", "me")).commit()
        assert taken.succeeded
        refused = (
            await hf.txn()
            .if_(hf.key("/lock").version == 0, hf.key("/k/1").value == "uno")
            .then(hf.op.put("/lock", "you"))
            .else_(hf.op.get("/lock"), hf.op.delete("/k/1"))
            .commit()
        )
        assert not refused.succeeded
        (held, deleted) = refused.responses
        assert isinstance(held, list)
        assert held[0].value == b"me"
        assert deleted == 1
        for n in range(25):
            await hf.put(f"/many/{n:02d}", "x")
        page = await hf.range("/many/", prefix=True, limit=10)
        assert (len(page.kvs), page.count, page.more) == (10, 25, True)
        gone = await hf.delete("/many/", prefix=True, previous=True)
        assert gone.deleted == len(gone.previous) == 25

        lease = await hf.lease(2)
        await hf.put("/alive", "yes", lease=lease)
        await asyncio.sleep(3)  # longer than it lives by itself
        assert lease.alive
        assert await hf.get("/alive") is not None
        await lease.revoke()
        assert await hf.get("/alive") is None

        await hf.compact(first.revision + 1)
        with pytest.raises(client.Compacted):
            await hf.get("/k/1", revision=first.revision)
        async with client.connect(cluster.endpoints[1], timeout=20) as one:
            await one.get("/k/1")  # linearizable: this member has applied the compaction
            with pytest.raises(client.Compacted):
                await anext(one.watch("/k/1", start_revision=first.revision))
        with pytest.raises(client.Refused, match="key is not provided"):
            await hf.put("", "x")
        with pytest.raises(client.Refused, match="too large"):
            await hf.put("/big", b"x" * 1_600_000)


async def test_the_blocking_client_has_what_is_for_sites_and_operators(server: LocalCluster) -> None:
    def use() -> None:
        with client.connect_blocking(server.endpoints) as hf:
            first = hf.put("/stores/name", "of all").revision
            site = hf.site("berlin")
            with pytest.raises(client.Refused, match="is no replica of the site berlin"):
                site.get("/stores/name")
            with pytest.raises(ValueError, match="no name of a site"):
                hf.site("a/b")
            assert hf.describe().revision >= first
            batches = hf.watch_batches("/stores/name", start_revision=first)
            assert [event.kv.value for event in next(batches)] == [b"of all"]
            batches.close()
            assert sum(len(piece) for piece in hf.snapshot()) > 1000
            assert hf.allow_caching("/cached/")
            assert b"/cached/" in hf.cachable()
            assert hf.numbered
            assert hf.session_open

    await asyncio.to_thread(use)


async def test_the_blocking_facade(cluster: LocalCluster) -> None:
    await cluster.wait_ready()

    def use() -> list[bytes]:
        with client.connect_blocking(cluster.endpoints) as hf:
            put = hf.put("/b/1", "1")
            assert (
                hf.txn()
                .if_(hf.key("/b/1").mod_revision == put.revision)
                .then(hf.op.put("/b/1", "2"))
                .commit()
                .succeeded
            )
            lease = hf.lease(10)
            hf.put("/b/2", "3", lease=lease)
            hf.revoke(lease)
            seen = []
            for event in hf.watch("/b/", prefix=True, start_revision=put.revision):
                seen.append(event.type.encode() + event.kv.value)
                if event.type == "delete":
                    break
            assert len(hf.members()) == 3
            assert hf.range("/b/", prefix=True).count == 1
            return seen

    assert await asyncio.to_thread(use) == [b"put1", b"put2", b"put3", b"delete"]


class Cli:
    def __init__(self, endpoints: list[str]) -> None:
        self.endpoints = ",".join(endpoints)

    def __call__(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", *words, "--endpoints", self.endpoints],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == status, f"{words}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def json(self, *words: str) -> object:
        return json.loads(self(*words, "-o", "json"))


async def test_the_command_line(cluster: LocalCluster, tmp_path: Path) -> None:
    await cluster.wait_ready()
    cli = Cli(cluster.endpoints)
    assert cli("put", "/a/1", "x") == "OK at revision 2\n"
    assert cli.json("put", "/a/2", "y") == {"revision": 3}
    shown = cli("get", "/a/", "--prefix").splitlines()
    assert shown[0].split() == ["KEY", "REVISION", "VERSION", "VALUE"]
    assert shown[1].split() == ["/a/1", "2", "1", "x"]
    cli("put", "/long", "v" * 500)
    assert "v" * 500 in cli("get", "/long").splitlines()[1], "nothing is cut where the output is no terminal"
    assert cli("del", "/long") == "1 deleted, at revision 5\n"
    assert cli("get", "/a/", "--prefix", "-o", "simple") == "/a/1\nx\n/a/2\ny\n"
    found = cli.json("get", "/a/1")
    assert isinstance(found, dict)
    assert (found["kvs"][0]["key"], found["kvs"][0]["value"]) == ("L2EvMQ==", "eA==")  # base64, as from etcdctl
    assert "is not there" in cli("get", "/no", status=1)
    txn = ["txn", "--if", "version(/a/1) = 1", "--then", "put /a/1 z", "--else", "get /a/1"]
    assert cli(*txn) == "SUCCESS\n"
    assert cli(*txn) == "FAILURE\n/a/1\nz\n"
    assert cli("del", "/a/", "--prefix") == "2 deleted, at revision 7\n"
    lease = cli("lease", "grant", "30").split()[1]
    cli("put", "/l", "x", "--lease", lease)
    assert "; /l" in cli("lease", "ttl", lease)
    assert "revoked" in cli("lease", "revoke", lease)
    assert "is not there" in cli("lease", "ttl", lease, status=1)
    assert [line.split()[1] for line in cli("member", "list").splitlines()[1:]].count("m1") == 1
    states = cli.json("status")
    assert isinstance(states, list)
    assert [s["state"] for s in states] == ["MEMBER"] * 3
    assert [s["leader"] for s in states].count("yes") == 1
    saved = tmp_path / "snapshot"
    assert f"bytes saved to {saved}" in cli("snapshot", "save", str(saved))
    data = saved.read_bytes()
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    cluster.voters["m1"].kill()
    assert "no answer from" in cli("status", status=1)

    watching = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "watch", "/a/", "--prefix", "--rev", "2", "--endpoints", cli.endpoints],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    told = [watching.stdout.readline().split() for _ in range(5)]
    watching.kill()
    watching.wait()
    watching.stdout.close()
    assert [line[1] for line in told] == ["put", "put", "put", "delete", "delete"]


async def test_the_command_line_keeps_bytes_as_they_are(cluster: LocalCluster) -> None:
    await cluster.wait_ready()

    def run(*words: bytes | str, given: bytes = b"", status: int = 0) -> bytes:
        command = [sys.executable, "-m", "holdfast", *words, "--endpoints", ",".join(cluster.endpoints)]
        done = subprocess.run(command, input=given, capture_output=True, timeout=30, check=False)
        assert done.returncode == status, done.stderr
        assert b"Traceback" not in done.stderr
        return done.stdout + done.stderr

    odd = b"\xff\x01\xfe\n"
    run("put", b"k\xff", "-", given=odd)
    assert run("get", b"k\xff", "-o", "simple") == b"k\xff\n" + odd + b"\n"
    (kv,) = json.loads(run("get", b"k\xff", "-o", "json"))["kvs"]
    assert (base64.b64decode(kv["key"]), base64.b64decode(kv["value"])) == (b"k\xff", odd)
    run("put", "v", b"\xc3\x28")
    assert run("get", "v", "-o", "simple") == b"v\n\xc3\x28\n"
    assert b"k\\xff" in run("get", b"k\xff")
    assert b"is not there" in run("get", b"none\xff", status=1)
    for words in (["del", ""], ["get", ""], ["put", "", "x"]):
        assert b"key is not provided" in run(*words, status=1)
    condition = """value("a b") = 'c "d")'"""
    run("put", "a b", 'c "d")')
    assert run("txn", "--if", condition, "--then", """put "x (y" "1 2" """, "--else", "del v") == b"SUCCESS\n"
    assert run("get", "x (y", "-o", "simple") == b"x (y\n1 2\n"
    assert run("txn", "--if", "version('a b') > 7", "--else", b"get k\xff").startswith(b"FAILURE\nk\xff\n")
    for wrong in ('put "a', "put a b c", "put a", "get", "", "put 'a b'"):
        run("txn", "--then", wrong, status=2)
    assert run("del", b"k\xff").startswith(b"1 deleted")
    assert run("del", "", "--prefix").startswith(b"3 deleted")


@pytest.mark.timeout(180)
async def test_a_frozen_member_is_left_by_watches_and_by_later_calls(cluster: LocalCluster) -> None:
    """Its connection stays open and nothing comes from it: an unanswered ping has to end it, not a minute's wait."""
    await cluster.wait_ready()
    frozen = await cluster.leader()
    others = [endpoint for endpoint in cluster.endpoints if endpoint != frozen.endpoint]
    async with (
        client.connect([frozen.endpoint, *others], timeout=5.0, session_ttl=0) as hf,
        client.connect(others, timeout=20.0) as writer,
    ):
        await hf.put("k", "before")
        seen = hf.watch("k", start_revision=1)
        assert (await anext(seen)).kv.value == b"before"
        frozen.send_signal(signal.SIGSTOP)
        try:
            await writer.put("k", "while frozen")
            async with asyncio.timeout(30):
                assert (await anext(seen)).kv.value == b"while frozen"
            failed = 0
            for n in range(6):
                try:
                    await hf.put("other", f"{n}")
                except (client.OutcomeUnknown, client.Unavailable):
                    failed += 1
            assert failed <= 1, "the frozen member was asked again"
        finally:
            frozen.send_signal(signal.SIGCONT)
