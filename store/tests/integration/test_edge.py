"""An edge replica as a process: cut off, restarted without a network, healed."""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.message import Message
from holdfast import client
from holdfast.kv.rows import pack_current, unpack_current
from holdfast.kv.store import Family
from holdfast.proto import election_pb2, holdfast_pb2, lock_pb2, rpc_pb2
from holdfast.storage.state import RocksStore, StateDirectory
from holdfast_lab.processes import LocalCluster, free_ports

from .replica import Edge


async def test_an_edge_serves_its_prefixes(cluster: LocalCluster, edge: Edge) -> None:
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
        await hf.put("/a/1", "x")
        await hf.put("/c/1", "not here")
        put = await hf.put("/b/1", "y")
        await edge.reaches(at_edge, put.revision)
        found = await at_edge.range("/a/", prefix=True, serializable=True)
        assert [(kv.key, kv.value) for kv in found.kvs] == [(b"/a/1", b"x")]
        assert found.revision >= put.revision
        with pytest.raises(client.OutOfScope, match=r"/c/1 is outside this replica's prefixes \(/a/, /b/\)"):
            await at_edge.get("/c/1", serializable=True)
        with pytest.raises(client.Refused, match="outside"):
            await anext(at_edge.watch("/c/1"))
        # Whatever the key: what is said of it is short, and what else came in the same turn is answered.
        long = at_edge.get(b"\xff" * 1_500_000, serializable=True)
        with pytest.raises(client.OutOfScope, match=r"\.\.\. is outside"):
            await asyncio.wait_for(long, 10)
        # Writes and linearizable reads go through it, and what was written can be read here at once.
        through = await at_edge.put("/a/2", "z")
        here = await at_edge.get("/a/2", serializable=True)
        assert here is not None
        assert here.mod_revision == through.revision
        made = await at_edge.put_sequential("/a/queue/", "first")
        assert made.key == b"/a/queue/%020d" % made.revision
        assert await at_edge.get(made.key, serializable=True) is not None
        linearizable = await at_edge.get("/c/1")
        assert linearizable is not None
        assert linearizable.value == b"not here"
        result = await at_edge.txn().if_(at_edge.key("/a/2").version == 1).then(at_edge.op.delete("/a/2")).commit()
        assert result.succeeded
        assert await at_edge.get("/a/2", serializable=True) is None
        async with await at_edge.lease(10) as lease:
            assert lease.alive


@pytest.mark.timeout(120)
async def test_cut_off_restarted_healed(cluster: LocalCluster, edge: Edge) -> None:
    """It goes on serving, says how old it is, survives kill -9 without a network, and misses or repeats nothing."""
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
        await edge.reaches(at_edge, (await hf.put("/a/n", "in the snapshot")).revision)
        first = await hf.put("/a/n", "0")
        await edge.reaches(at_edge, first.revision)
        seen: list[tuple[int, bytes]] = []

        async def watch() -> None:
            async for event in at_edge.watch("/a/", prefix=True, start_revision=first.revision):
                seen.append((event.kv.mod_revision, event.kv.value))
                if event.kv.value == b"last":
                    return

        watching = asyncio.ensure_future(watch())
        written = [(first.revision, b"0")]
        for round_ in range(3):
            for n in range(5):
                value = f"{round_}/{n}".encode()
                written.append(((await hf.put("/a/n", value)).revision, value))
            await edge.reaches(at_edge, written[-1][0])
            edge.relay.cut()
            await edge.is_cut(at_edge)
            known = written[-1]
            for n in range(5):
                value = f"cut {round_}/{n}".encode()
                written.append(((await hf.put("/a/n", value)).revision, value))
            with pytest.raises(client.Unavailable, match="disconnected"):
                async with client.connect(edge.endpoint, timeout=0.5) as impatient:
                    await impatient.get("/a/n")
            with pytest.raises(client.Unavailable, match="disconnected"):
                await at_edge.put("/a/n", "no")
            assert edge.process is not None
            edge.process.kill()
            edge.process.start()
            old = await at_edge.range("/a/n", serializable=True)
            assert (old.kvs[0].mod_revision, old.kvs[0].value) == known, "it went back behind what it had served"
            node = await at_edge.describe()
            assert not node.connected
            assert not node.HasField("staleness_ms"), "after a restart nobody knows how old it is"
            edge.relay.heal()
            await edge.reaches(at_edge, written[-1][0])
        written.append(((await hf.put("/a/n", "last")).revision, b"last"))
        async with asyncio.timeout(30):
            await watching
        assert seen == written, "an event was missed or repeated"
        node = await at_edge.describe()
        assert node.connected


async def test_another_cluster_is_refused(cluster: LocalCluster, edge: Edge, tmp_path: Path) -> None:
    """A replica pointed at another cluster says so, keeps what it has, and does not mix."""
    other = LocalCluster(tmp_path / "other", voters=1)
    other.start()
    try:
        await other.wait_ready()
        async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
            put = await hf.put("/a/1", "mine")
            await edge.reaches(at_edge, put.revision)
            assert edge.process is not None
            edge.process.stop()
            async with client.connect(other.endpoints) as elsewhere:
                for n in range(20):
                    await elsewhere.put("/a/1", f"theirs {n}")
            edge.process.arguments = [
                f"--endpoints={other.endpoints[0]}" if a.startswith("--endpoints") else a
                for a in edge.process.arguments
            ]
            edge.process.start()
            found = await at_edge.range("/a/1", serializable=True)
            async with asyncio.timeout(20):
                while "holds data of cluster" not in edge.process.tail():
                    await asyncio.sleep(0.05)
            found = await at_edge.range("/a/1", serializable=True)
            assert found.kvs[0].value == b"mine"
    finally:
        other.kill()


async def test_an_answer_that_is_held_back_waits_for_no_interval(cluster: LocalCluster, edge: Edge) -> None:
    """Of a write outside the prefixes nothing comes by itself, but the next progress, which is sent every 200 ms."""
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
        await edge.reaches(at_edge, (await hf.put("/a/1", "x")).revision)
        took = []
        for n in range(20):
            began = time.monotonic()
            put = await at_edge.put("/elsewhere", str(n))
            took.append(time.monotonic() - began)
            here = await at_edge.range("/a/1", serializable=True)
            assert here.revision >= put.revision
        assert statistics.median(took) < 0.08, took


async def test_members_list_their_replicas(cluster: LocalCluster, edge: Edge) -> None:
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
        put = await hf.put("/a/1", "x")
        await edge.reaches(at_edge, put.revision)
        async with asyncio.timeout(20):
            while True:
                nodes = [await hf.describe(endpoint) for endpoint in cluster.endpoints]
                reports = {r.replica: r for node in nodes for r in node.replicas}
                if "berlin" in reports and reports["berlin"].watermark >= put.revision:
                    break
                await asyncio.sleep(0.05)
        assert reports["berlin"].pool == "shops"


async def test_monotonic_reads_wait_for_a_replica_that_is_behind(cluster: LocalCluster, edge: Edge) -> None:
    """A client that has seen a revision gets no older state from any server, in its own reads and in those of a client
    that is given its position."""
    both = [cluster.endpoints[0], edge.endpoint]
    async with (
        client.connect(both, monotonic=True) as hf,
        client.connect(both) as careless,
        client.connect(edge.endpoint) as at_edge,
    ):
        first = await hf.put("/a/1", "old")
        await edge.reaches(at_edge, first.revision)
        edge.relay.cut()
        await edge.is_cut(at_edge)
        async with client.connect(cluster.endpoints) as other:
            written = await other.put("/a/1", "new")
        seen = await hf.range("/a/1")
        assert seen.revision >= written.revision, "linearizable"
        for _ in range(40):
            assert (await hf.range("/a/1", serializable=True)).kvs[0].value == b"new"
        old = [await careless.range("/a/1", serializable=True) for _ in range(40)]
        assert {found.kvs[0].value for found in old} == {b"old", b"new"}, "so there was something to be careful about"
        assert hf.position.revision >= written.revision

        async with client.connect(edge.endpoint, timeout=1.0) as impatient:
            assert (await impatient.get("/a/1", serializable=True)) is not None
            impatient.require(client.Position.parse(str(hf.position)))
            with pytest.raises(client.Unavailable, match=f"is at revision {first.revision}, and .* was seen"):
                await impatient.get("/a/1", serializable=True)
        async with client.connect(edge.endpoint, timeout=30.0) as patient:
            patient.require(hf.position)
            reading = asyncio.ensure_future(patient.get("/a/1", serializable=True))
            edge.relay.heal()
            found = await reading
            assert found is not None
            assert found.value == b"new"


async def test_other_prefixes(cluster: LocalCluster, edge: Edge) -> None:
    """What it has stays, also without a network; only what is new is received."""
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
        for prefix in ("/a/", "/b/", "/c/"):
            for n in range(5):
                put = await hf.put(f"{prefix}{n}", "x")
        await edge.reaches(at_edge, put.revision)

        async def has(*prefixes: str) -> list[bool]:
            found = []
            for prefix in prefixes:
                try:
                    found.append(len((await at_edge.range(prefix, prefix=True, serializable=True)).kvs) == 5)
                except (client.OutOfScope, client.Unavailable):
                    found.append(False)
            return found

        assert await has("/a/", "/b/", "/c/") == [True, True, False]
        edge.relay.cut()
        restart_with(edge, "/a/", "/c/")
        async with client.connect(edge.endpoint, timeout=30) as starting:
            await starting.describe()
        async with client.connect(edge.endpoint, timeout=2) as at_edge:
            assert await has("/a/", "/b/", "/c/") == [True, False, False]
            with pytest.raises(client.Unavailable, match="no data of these prefixes yet"):
                await at_edge.get("/c/1", serializable=True)
            with pytest.raises(client.OutOfScope):
                await at_edge.get("/b/1", serializable=True)
            with pytest.raises(urllib.error.HTTPError) as unready:
                await asyncio.to_thread(urllib.request.urlopen, f"http://{edge.endpoint}/readyz/prefixes", timeout=10)
            said = unready.value.read().decode()
            assert said == "[-]prefixes failed: no data yet of keys from /c/\nreadyz check failed\n"
            assert await page(edge, "/readyz") == "ok\n", "it serves what it has"
        last = await hf.put("/a/1", "while it was cut off")
        edge.relay.heal()
        async with client.connect(edge.endpoint) as at_edge:
            watching = at_edge.watch("/a/", prefix=True, start_revision=put.revision + 1)
            assert (await anext(watching)).kv.mod_revision == last.revision, "it went on where it was"
            async with asyncio.timeout(30):
                while await has("/a/", "/b/", "/c/") != [True, False, True]:
                    await asyncio.sleep(0.05)
            now = await hf.put("/c/1", "later")
            await edge.reaches(at_edge, now.revision)
            found = await at_edge.get("/c/1", serializable=True)
            assert found is not None
            assert found.value == b"later"


def restart_with(edge: Edge, *prefixes: str) -> None:
    assert edge.process is not None
    edge.process.kill()
    kept = [argument for argument in edge.process.arguments if not argument.startswith("--prefix=")]
    edge.process.arguments = [*kept, *(f"--prefix={prefix}" for prefix in prefixes)]
    edge.process.start()


async def test_the_whole_api_is_there(cluster: LocalCluster, edge: Edge) -> None:
    """What a replica does not serve itself, it forwards: locks, elections, users, streams of answers; JSON, too."""
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
        await edge.reaches(at_edge, (await hf.put("/a/1", "x")).revision)
        async with grpc.aio.insecure_channel(edge.endpoint) as channel, asyncio.timeout(30):

            def unary(path: str, request: Message, response: type[Message], **how: Any) -> Any:
                return channel.unary_unary(
                    path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
                )(request, **how)

            lease = (await at_edge.lease(30)).id
            locking = lock_pb2.LockRequest(name=b"l", lease=lease)
            locked = await unary("/v3lockpb.Lock/Lock", locking, lock_pb2.LockResponse)
            other = lock_pb2.LockRequest(name=b"l", lease=(await at_edge.lease(30)).id)
            waiting = unary("/v3lockpb.Lock/Lock", other, lock_pb2.LockResponse)
            while len((await hf.range("l/", prefix=True)).kvs) < 2:
                await asyncio.sleep(0.01)
            waiting.cancel()
            while len((await hf.range("l/", prefix=True)).kvs) > 1:
                await asyncio.sleep(0.01)  # who does not wait any more is given no lock
            await unary("/v3lockpb.Lock/Unlock", lock_pb2.UnlockRequest(key=locked.key), lock_pb2.UnlockResponse)
            campaign = election_pb2.CampaignRequest(name=b"e", lease=lease, value=b"me")
            await unary("/v3electionpb.Election/Campaign", campaign, election_pb2.CampaignResponse)
            observing = channel.unary_stream(
                "/v3electionpb.Election/Observe",
                request_serializer=election_pb2.LeaderRequest.SerializeToString,
                response_deserializer=election_pb2.LeaderResponse.FromString,
            )(election_pb2.LeaderRequest(name=b"e"))
            assert (await observing.read()).kv.value == b"me"
            observing.cancel()
            members = await unary(
                "/etcdserverpb.Cluster/MemberList", rpc_pb2.MemberListRequest(), rpc_pb2.MemberListResponse
            )
            assert len(members.members) == 3
            status = await unary(
                "/etcdserverpb.Auth/AuthStatus", rpc_pb2.AuthStatusRequest(), rpc_pb2.AuthStatusResponse
            )
            assert not status.enabled
        assert json.loads(await page(edge, "/health"))["health"] == "true"
        assert json.loads(await page(edge, "/version"))["etcdserver"]
        read = {"key": base64.b64encode(b"/a/1").decode(), "serializable": True}
        found = json.loads(await page(edge, "/v3/kv/range", json.dumps(read)))
        assert base64.b64decode(found["kvs"][0]["value"]) == b"x"
        saved = [len(part) async for part in at_edge.snapshot()]
        assert sum(saved) > 1000, "of the whole cluster"


async def page(edge: Edge, path: str, body: str = "") -> str:
    request = urllib.request.Request(f"http://{edge.endpoint}{path}", body.encode() or None)
    with await asyncio.to_thread(urllib.request.urlopen, request, timeout=10) as answer:
        found: bytes = answer.read()
    return found.decode()


async def exported(endpoint: str) -> list[dict[str, Any]]:
    """What `holdfast edge export` prints."""
    words = ("-m", "holdfast", "edge", "export", "--endpoints", endpoint)
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


async def test_an_export_without_data_prints_nothing(tmp_path: Path) -> None:
    edge = Edge(tmp_path, [f"127.0.0.1:{free_ports(1)[0]}"], ("/a/",))
    await edge.start()
    try:
        async with client.connect(edge.endpoint, timeout=20) as hf:
            await hf.describe()  # it has started
        words = ("-m", "holdfast", "edge", "export", "--endpoints", edge.endpoint)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=pipe, stderr=pipe)
        out, said = await process.communicate()
        assert (out, process.returncode) == (b"", 3)
        assert b"has no data yet" in said
    finally:
        assert edge.process is not None
        edge.process.kill()
        await edge.relay.close()


async def test_offline_policies(cluster: LocalCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What may not be served while the replica is cut off is refused, its watches end, and it is back afterwards."""
    edge = Edge(tmp_path, cluster.endpoints, ("/a/",))
    options = ["--offline=/a/online/=require-online", "--offline=/a/while/=serve-until=3s"]
    await cluster.wait_ready(60)
    await edge.start(options)
    assert edge.process is not None
    keys = ("/a/always/1", "/a/online/1", "/a/while/1")
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint, timeout=2) as at_edge:

        async def served() -> list[bool]:
            found = []
            for key in keys:
                try:
                    found.append((await at_edge.get(key, serializable=True)) is not None)
                except client.Unavailable:
                    found.append(False)
            return found

        async def until(wanted: list[bool]) -> None:
            async with asyncio.timeout(30):
                while await served() != wanted:
                    await asyncio.sleep(0.05)

        try:
            for key in keys:
                put = await hf.put(key, "x")
            async with client.connect(edge.endpoint, timeout=30) as starting:
                await edge.reaches(starting, put.revision)
            await until([True, True, True])
            watched = at_edge.watch("/a/online/", prefix=True, start_revision=put.revision + 1)
            watching = asyncio.ensure_future(anext(watched))
            edge.relay.cut()
            await until([True, False, True])
            await until([True, False, False])
            with pytest.raises(client.Unavailable, match="/a/online/ is not served then"):
                await at_edge.range("/a/", prefix=True, serializable=True)
            reason = "the watch of /a/online/ waits: replica berlin does not reach the cluster, and"
            assert caplog.text.count(reason) == 1, "it is said once"
            command = [
                sys.executable,
                "-m",
                "holdfast",
                "watch",
                "/a/online/",
                "--prefix",
                f"--endpoints={edge.endpoint}",
            ]
            shown = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
            try:
                assert shown.stderr is not None
                assert (await shown.stderr.readline()).decode().startswith(reason)
            finally:
                shown.kill()
                await shown.wait()
            edge.process.kill()
            edge.process.start()
            await until([True, False, False])
            head, *lines = await exported(edge.endpoint)
            assert head["replica"] == "berlin"
            assert [(n["type"], base64.b64decode(n["key"]).decode()) for n in lines] == [("put", key) for key in keys]
            edge.relay.heal()
            await until([True, True, True])
            await at_edge.range("/a/", prefix=True, serializable=True)
            later = await hf.put("/a/online/1", "y")
            async with asyncio.timeout(30):
                assert (await watching).kv.mod_revision == later.revision, "the watch was tried again"
        finally:
            edge.process.kill()
            await edge.relay.close()
            print(edge.process.tail(40))


async def test_what_a_bad_disk_made_of_the_data_is_fetched_anew(cluster: LocalCluster, tmp_path: Path) -> None:
    """At a relay; those below it get the right data, too."""
    await cluster.wait_ready(60)
    relay = Edge(tmp_path, cluster.endpoints, ("/a/",))
    await relay.start(["--verify-every=500ms"])
    leaf = Edge(tmp_path, [relay.endpoint], ("/a/",), name="leaf")
    await leaf.start(["--verify-every=500ms"])
    assert relay.process is not None
    assert leaf.process is not None
    try:
        async with (
            client.connect(cluster.endpoints) as hf,
            client.connect(relay.endpoint, timeout=30) as at_relay,
            client.connect(leaf.endpoint, timeout=30) as at_leaf,
        ):
            for n in range(5):
                put = await hf.put(f"/a/{n}", "right")
            await leaf.reaches(at_leaf, put.revision)
            relay.process.kill()
            store = RocksStore(StateDirectory(relay.data / "state").current(), wal=True)
            row = unpack_current(store.get(Family.CUR, b"/a/3") or b"")
            wrong = row._replace(kv=row.kv.replace(b"right", b"wrong"))
            store.apply([(Family.CUR, b"/a/3", pack_current(wrong))])
            store.sync()
            store.close()
            relay.process.start()

            async def value(at: client.Client) -> bytes | None:
                try:
                    found = await at.get("/a/3", serializable=True)
                except client.Unavailable:
                    return None  # it is being fetched
                return None if found is None else found.value

            async with asyncio.timeout(40):
                while "it is fetched anew" not in relay.process.tail(100):
                    await asyncio.sleep(0.05)
                while [await value(at_relay), await value(at_leaf)] != [b"right"] * 2:
                    await asyncio.sleep(0.05)
            last = await hf.put("/a/last", "x")
            await leaf.reaches(at_leaf, last.revision)
            assert "it is fetched anew" not in leaf.process.tail(100)
    finally:
        for edge in (leaf, relay):
            assert edge.process is not None
            edge.process.kill()
            await edge.relay.close()
            print(edge.process.tail(40))


@pytest.mark.parametrize("revision", [-1, (1 << 63) - 1])
async def test_a_revision_that_there_is_not_is_not_compared(cluster: LocalCluster, revision: int) -> None:
    await cluster.wait_ready(60)
    async with grpc.aio.insecure_channel(cluster.endpoints[0]) as channel:
        verify = channel.unary_unary(
            "/holdfast.v1.Edge/Verify",
            request_serializer=holdfast_pb2.VerifyRequest.SerializeToString,
            response_deserializer=holdfast_pb2.VerifyResponse.FromString,
        )
        request = holdfast_pb2.VerifyRequest(revision=revision)
        request.ranges.add(key=b"/a/", range_end=b"/a0")
        with pytest.raises(grpc.aio.AioRpcError, match="a revision that there is not"):
            await verify(request)


async def test_a_replica_that_is_cut_off_says_each_reason_once(tmp_path: Path) -> None:
    """It tries its endpoints in turn, and has a report to deliver."""
    tried = [0, 0, 0]
    often = asyncio.Event()

    def server(number: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()
            tried[number] += 1
            if min(tried) >= 6:
                often.set()

        return connected

    servers = [await asyncio.start_server(server(n), "127.0.0.1", 0) for n in range(3)]
    addresses = [f"127.0.0.1:{each.sockets[0].getsockname()[1]}" for each in servers]
    edge = Edge(tmp_path, addresses, ("/a/",))
    try:
        await edge.start([f"--endpoints={','.join(addresses)}"])
        assert edge.process is not None
        async with client.connect(edge.endpoint, timeout=20) as hf, asyncio.timeout(60):
            await hf.report("unit/web", "running")
            await often.wait()
        lines = edge.process.tail(1000).splitlines()
        for address in addresses:
            about = [line for line in lines if f"not following: {address}" in line]
            assert 1 <= len(about) == len({line.partition("not following")[2] for line in about})
        assert sum("reports are not delivered yet" in line for line in lines) == 1
    finally:
        if edge.process is not None:
            edge.process.kill()
        await edge.relay.close()
        for each in servers:
            each.close()
