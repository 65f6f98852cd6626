"""Keys of a site: written at one replica of it, also while the site is cut off; copied to the others, reported to the
cluster, and never taken for keys of the cluster."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import grpc
import pytest
from holdfast import client
from holdfast.client.errors import ClientError, Unavailable
from holdfast.proto import rpc_pb2
from holdfast.status import NOT_OF_SITE
from holdfast_lab.processes import LocalCluster, free_ports

from .replica import Edge

pytestmark = pytest.mark.timeout(120)


def options(writer: Edge) -> list[str]:
    return ["--site=berlin", f"--site-writer={writer.name}={writer.endpoint}"]


@asynccontextmanager
async def site(cluster: LocalCluster, directory: Path) -> AsyncIterator[tuple[Edge, Edge]]:
    """The replica that writes, and another one."""
    await cluster.wait_ready(60)
    edges = [Edge(directory, cluster.endpoints, ("/a/",), name=name) for name in ("berlin-0", "berlin-1")]
    writer, other = edges
    try:
        for edge in edges:
            await edge.start(options(writer))
        yield writer, other
    finally:
        for edge in edges:
            if edge.process is not None:
                edge.process.kill()
                print(edge.process.tail(40))
            await edge.relay.close()


async def has(hf: client.Client, key: str, value: bytes | None, *, serializable: bool = False) -> None:
    """Wait until the key has this value."""
    async with asyncio.timeout(40):
        while True:
            try:
                found = await hf.get(key, serializable=serializable)
            except Unavailable:
                found = None
            if (None if found is None else found.value) == value:
                return
            await asyncio.sleep(0.05)


async def told(edge: Edge) -> dict[str, float]:
    """What /metrics says of the site's keys and of reports, but how old the copy is."""
    with await asyncio.to_thread(urllib.request.urlopen, f"http://{edge.endpoint}/metrics", timeout=10) as page:
        lines = [line for line in page.read().decode().splitlines() if not line.startswith("#")]
    wanted = ("holdfast_site_", "holdfast_replica_reports_waiting")
    found = dict(line.rsplit(" ", 1) for line in lines if line.startswith(wanted))
    assert float(found.pop("holdfast_site_staleness_seconds")) < 60
    return {name: float(value) for name, value in found.items()}


def use_blocking(endpoint: str) -> None:
    """The same calls without `await`."""
    with client.connect_blocking(endpoint, timeout=10) as hf:
        view = hf.site("berlin")
        view.put("/a/size", "small")
        assert [(v.key, v.value) for v in view.range("/a/size")] == [(b"/a/size", b"small")]
        value = view.get("/a/greeting")
        assert value is not None
        assert (value.value, value.local) == (b"moin", True)
        assert view.delete("/a/size")


async def test_keys_of_a_site_are_written_while_it_is_cut_off(cluster: LocalCluster, tmp_path: Path) -> None:
    async with (
        client.connect(cluster.endpoints, timeout=20) as hf,
        site(cluster, tmp_path) as (writer, other),
        client.connect(writer.endpoint, timeout=10, session_ttl=0) as at_writer,
        client.connect(other.endpoint, timeout=10) as at_other,
    ):
        await hf.put("/a/greeting", "hello")
        await at_writer.put("/local/berlin/a/greeting", "hallo")
        await has(at_other, "/local/berlin/a/greeting", b"hallo", serializable=True)
        await has(hf, "/reported/berlin-0/local/berlin/a/greeting", b"hallo")
        assert await hf.get("/local/berlin/a/greeting") is None, "it is no key of the cluster"
        await has(at_other, "/a/greeting", b"hello", serializable=True)

        assert await told(other) == {
            'holdfast_site_info{site="berlin",writer="berlin-0"}': 1,
            "holdfast_site_writes": 0,
            "holdfast_site_connected": 1,
            "holdfast_site_epoch": 1,
            "holdfast_site_revision": 2,
            "holdfast_replica_reports_waiting": 0,
        }
        for edge in (writer, other):
            edge.relay.cut()
        async with (
            client.connect(writer.endpoint, timeout=10, session_ttl=0) as cut_off,
            client.connect(other.endpoint, timeout=10, session_ttl=0) as cut_off_too,
        ):
            await writer.is_cut(cut_off)
            await other.is_cut(cut_off_too)
            written = await cut_off_too.put("/local/berlin/a/greeting", "moin")  # forwarded within the site
            found = await cut_off_too.get("/local/berlin/a/greeting", serializable=True)
            assert found is not None
            assert (found.value, found.mod_revision) == (b"moin", written.revision), "who wrote it can read it there"
            await cut_off.put("/local/berlin/b", "1")
            await cut_off.delete("/local/berlin/b")

            seen = client.connect(other.endpoint, timeout=10)
            async with seen:
                view = seen.site("berlin")
                await view.put("/a/color", "red")
                assert [(v.key, v.value, v.local) for v in await view.range("/a/")] == [
                    (b"/a/color", b"red", True),
                    (b"/a/greeting", b"moin", True),
                ]
                assert await view.delete("/a/greeting")
                value = await view.get("/a/greeting")
                assert value is not None
                assert (value.value, value.local) == (b"hello", False)
                await view.put("/a/greeting", "moin")
            await asyncio.to_thread(use_blocking, other.endpoint)

            waiting = await told(writer)
            assert (waiting["holdfast_site_writes"], waiting["holdfast_replica_reports_waiting"]) == (1, 4)
            assert writer.process is not None
            writer.process.kill()
            async with asyncio.timeout(20):
                while (await told(other))["holdfast_site_connected"]:
                    await asyncio.sleep(0.05)
            state = (await cut_off_too.describe()).site
            assert (state.site, state.writer, state.follows) == ("berlin", "berlin-0", False)
            await has(cut_off_too, "/local/berlin/a/greeting", b"moin", serializable=True)
            with pytest.raises(ClientError, match="which writes the keys of the site berlin"):
                await cut_off_too.put("/local/berlin/a/greeting", "?")
            writer.process.start()
        for edge in (writer, other):
            edge.relay.heal()
        await has(hf, "/reported/berlin-0/local/berlin/a/greeting", b"moin")
        await has(hf, "/reported/berlin-0/local/berlin/b", None)


async def test_below_a_replica_of_a_site_keys_are_those_of_the_cluster(cluster: LocalCluster, tmp_path: Path) -> None:
    """What a replica without a site forwards means the same whatever it follows."""
    async with site(cluster, tmp_path) as (writer, other), client.connect(cluster.endpoints, timeout=20) as hf:
        for above in (writer, other):
            leaf = Edge(tmp_path, [above.endpoint], ("/a/",), name=f"below-{above.name}")
            await leaf.start()
            try:
                async with (
                    client.connect(leaf.endpoint, timeout=20) as at_leaf,
                    client.connect(above.endpoint, timeout=10, session_ttl=0) as at_site,
                ):
                    await at_site.put("/local/berlin/x", "of the site")
                    await leaf.reaches(at_leaf, (await hf.put("/a/x", "1")).revision)
                    for key in ("/local/berlin/x", "/local/hamburg/x"):
                        await at_leaf.put(key, "of the cluster")
                        for server in (hf, at_leaf):
                            found = await server.get(key)
                            assert found is not None
                            assert found.value == b"of the cluster"
                    result = await at_leaf.txn().then(hf.op.delete("/local/berlin/x")).commit()
                    assert result.succeeded
                    assert await hf.get("/local/berlin/x") is None
                    await has(at_site, "/local/berlin/x", b"of the site")
            finally:
                if leaf.process is not None:
                    leaf.process.kill()
                await leaf.relay.close()


async def test_only_replicas_of_the_site_have_its_keys(
    cluster: LocalCluster, edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member and other replicas refuse, and write nothing. etcd does not know the question: its answer is noticed."""
    async with (
        site(cluster, tmp_path) as (writer, _),
        client.connect(cluster.endpoints, timeout=20) as hf,
        client.connect(edge.endpoint, timeout=20) as elsewhere,
        client.connect(writer.endpoint, timeout=20) as of_another_site,
    ):
        put = await hf.put("/a/x", "of the cluster")
        await edge.reaches(elsewhere, put.revision)
        views = [hf.site("berlin"), elsewhere.site("berlin"), of_another_site.site("hamburg")]
        for view in views:
            for call in (view.get("/a/x"), view.range("/a/"), view.put("/a/x", "?"), view.delete("/a/x")):
                with pytest.raises(client.Refused, match="is no replica of the site") as refused:
                    await call
                assert refused.value.known == NOT_OF_SITE
        assert (await hf.range("/local/", prefix=True)).kvs == []
        view = hf.site("berlin")
        monkeypatch.setattr(view, "_about", ())  # as if the server did not know what it means
        with pytest.raises(client.Refused, match="is no replica of the site berlin"):
            await view.get("/a/x")


async def test_watches_of_the_site_need_no_data_of_the_cluster(tmp_path: Path) -> None:
    """A new site that has not reached the cluster yet."""
    (port,) = free_ports(1)
    edge = Edge(tmp_path, [f"127.0.0.1:{port}"], ("/a/",), name="berlin-0")
    try:
        await edge.start(options(edge))
        async with client.connect(edge.endpoint, timeout=10, session_ttl=0) as hf, asyncio.timeout(30):
            put = await hf.put("/local/berlin/x", "1")
            async for event in hf.watch("/local/berlin/", prefix=True, start_revision=put.revision):
                assert (event.kv.key, event.kv.value) == (b"/local/berlin/x", b"1")
                break
            async with grpc.aio.insecure_channel(edge.endpoint) as channel:
                watch = channel.stream_stream(
                    "/etcdserverpb.Watch/Watch",
                    request_serializer=rpc_pb2.WatchRequest.SerializeToString,
                    response_deserializer=rpc_pb2.WatchResponse.FromString,
                )()
                request = rpc_pb2.WatchRequest()
                request.create_request.key = b"/a/x"
                await watch.write(request)
                with pytest.raises(grpc.aio.AioRpcError, match="must reach the cluster once"):
                    await watch.read()
    finally:
        if edge.process is not None:
            edge.process.kill()
        await edge.relay.close()


async def test_what_was_answered_is_there_after_a_kill(cluster: LocalCluster, tmp_path: Path) -> None:
    async with site(cluster, tmp_path) as (writer, _), client.connect(writer.endpoint, timeout=10, session_ttl=0) as hf:
        revisions = [(await hf.put(f"/local/berlin/{n % 7}", str(n))).revision for n in range(50)]
        assert revisions == list(range(2, 52)), "the site's keys have revisions of their own"
        process = writer.process
        assert process is not None
        process.kill()
        process.start()
        async with asyncio.timeout(20):
            while True:
                try:
                    result = await hf.range("/local/berlin/", prefix=True)
                    break
                except ClientError:
                    await asyncio.sleep(0.1)
        assert {kv.key: kv.value for kv in result.kvs} == {
            b"/local/berlin/%d" % (n % 7): b"%d" % n for n in range(43, 50)
        }


async def test_kills_lose_no_write_and_the_copy_stays_the_same(cluster: LocalCluster, tmp_path: Path) -> None:
    """Clients write through both replicas, which are killed again and again. Each answered write is there, no revision
    is given twice, and copy and reports become what the writer has."""
    answered: dict[bytes, tuple[str, int]] = {}
    unknown: dict[bytes, set[str]] = {}
    revisions: list[int] = []
    over = False

    async def write(number: int, endpoints: list[str]) -> None:
        async with client.connect(endpoints, timeout=5, session_ttl=0) as hf:
            for n in count():
                if over:
                    return
                key, value = b"/local/berlin/%d-%d" % (number, n % 10), f"{number}.{n}"
                try:
                    put = await hf.put(key, value)
                    answered[key] = value, put.revision
                    revisions.append(put.revision)
                except ClientError:
                    unknown.setdefault(key, set()).add(value)

    async with (
        site(cluster, tmp_path) as (writer, other),
        client.connect(writer.endpoint, timeout=10, session_ttl=0) as at_writer,
        client.connect(other.endpoint, timeout=10, session_ttl=0) as at_other,
        client.connect(cluster.endpoints, timeout=20) as hf,
    ):
        work = [asyncio.ensure_future(write(n, [writer.endpoint, other.endpoint])) for n in range(4)]
        for edge in (writer, other, writer, writer):
            seen = len(revisions)
            async with asyncio.timeout(30):
                while len(revisions) < seen + 200:
                    await asyncio.sleep(0.02)
            assert edge.process is not None
            edge.process.kill()
            edge.process.start()
        await has(at_writer, "/local/berlin/none", None)
        over = True
        await asyncio.gather(*work)

        now = {kv.key: kv for kv in (await at_writer.range("/local/berlin/", prefix=True)).kvs}
        for key, (value, revision) in answered.items():
            kept = now[key]
            newer = kept.mod_revision > revision and kept.value.decode() in unknown.get(key, set())
            assert newer or (kept.value.decode(), kept.mod_revision) == (value, revision)
        assert len(set(revisions)) == len(revisions)
        for key, kv in now.items():
            await has(at_other, key.decode(), kv.value, serializable=True)
            await has(hf, f"/reported/berlin-0{key.decode()}", kv.value)


async def test_transactions_and_watches_are_of_one_key_space(cluster: LocalCluster, tmp_path: Path) -> None:
    async with (
        site(cluster, tmp_path) as (writer, _),
        client.connect(cluster.endpoints, timeout=20) as hf,
        grpc.aio.insecure_channel(writer.endpoint) as channel,
        client.connect(writer.endpoint, timeout=10, session_ttl=0) as at_writer,
    ):
        put = await hf.put("/a/x", "1")
        await writer.reaches(at_writer, put.revision)
        call = channel.unary_unary(
            "/etcdserverpb.KV/Txn",
            request_serializer=rpc_pb2.TxnRequest.SerializeToString,
            response_deserializer=rpc_pb2.TxnResponse.FromString,
        )
        mine = rpc_pb2.TxnRequest()
        mine.compare.add(key=b"/local/berlin/x", target=rpc_pb2.Compare.VERSION, version=0)
        mine.success.add().request_put.key = b"/local/berlin/x"
        assert (await call(mine)).succeeded
        assert not (await call(mine)).succeeded
        read = rpc_pb2.TxnRequest()
        for _ in range(2):
            read.success.add().request_range.key = b"/local/berlin/x"
        answer = await call(read)
        assert [op.response_range.count for op in answer.responses] == [1, 1]
        assert answer.header.revision == 2, "a transaction that only reads takes no revision"
        mine.success.add().request_put.key = b"/a/x"
        with pytest.raises(grpc.aio.AioRpcError, match="not about both"):
            await call(mine)
        for key, why in (("/local/hamburg/x", "of the site berlin"), ("/local/berlin/white space", "reported")):
            with pytest.raises(ClientError, match=why):
                await at_writer.put(key, "1")

        watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=rpc_pb2.WatchRequest.SerializeToString,
            response_deserializer=rpc_pb2.WatchResponse.FromString,
        )()

        async def create(key: bytes, start: int) -> rpc_pb2.WatchResponse:
            request = rpc_pb2.WatchRequest()
            request.create_request.key, request.create_request.start_revision = key, start
            await watch.write(request)
            response = await watch.read()
            assert isinstance(response, rpc_pb2.WatchResponse)
            return response

        created = await create(b"/local/berlin/x", 1)
        assert created.created
        assert not created.canceled
        events = await watch.read()
        assert [event.kv.key for event in events.events] == [b"/local/berlin/x"]
        refused = await create(b"/a/x", 1)
        assert refused.canceled
        assert "streams of their own" in refused.cancel_reason
        await at_writer.put("/local/berlin/x", "2")
        assert [event.kv.value for event in (await watch.read()).events] == [b"2"]
        watch.cancel()


async def test_another_replica_takes_over_the_writing(cluster: LocalCluster, tmp_path: Path) -> None:
    """The one that wrote has failed for good; what the other one has of the keys goes on, with a new history."""
    async with (
        site(cluster, tmp_path) as (writer, other),
        client.connect(other.endpoint, timeout=10, session_ttl=0) as hf,
    ):
        await hf.put("/local/berlin/x", "1")
        await hf.put("/local/berlin/y", "1")
        await has(hf, "/local/berlin/y", b"1", serializable=True)
        assert writer.process is not None
        assert other.process is not None
        other.process.kill()
        async with client.connect(writer.endpoint, timeout=10, session_ttl=0) as at_writer:
            await at_writer.put("/local/berlin/y", "copied by nobody")
        writer.process.kill()
        await other.start(options(other))
        await has(hf, "/local/berlin/x", b"1")
        await hf.put("/local/berlin/x", "2")
        writer.process.kill()
        await writer.start(options(other))
        async with client.connect(writer.endpoint, timeout=10) as at_first:
            await has(at_first, "/local/berlin/x", b"2", serializable=True)
            await has(at_first, "/local/berlin/y", b"1", serializable=True)
            said = writer.process.tail(100)
            assert "berlin-1 writes the keys of the site berlin in epoch 2: serving what epoch 1 had" in said
            assert "restored" not in said, "the cluster was not"
        (kept,) = (writer.data / "lost").iterdir()
        values = [json.loads(line).get("value") for line in kept.read_text().splitlines()[1:]]
        assert [base64.b64decode(value) for value in values] == [b"copied by nobody"]


def lost(edge: Edge) -> list[tuple[int, bytes]]:
    """The changes in all files of lost/: revision and value."""
    lines = [line for file in sorted((edge.data / "lost").iterdir()) for line in file.read_text().splitlines()[1:]]
    return sorted((change["revision"], base64.b64decode(change["value"])) for change in map(json.loads, lines))


async def test_a_copy_follows_the_writer_that_is_named_whatever_its_epoch(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """The writing goes to the other replica and back, by mistake, while the other one goes on."""
    async with (
        site(cluster, tmp_path) as (first, second),
        client.connect(first.endpoint, timeout=10, session_ttl=0) as at_first,
        client.connect(second.endpoint, timeout=10, session_ttl=0) as at_second,
    ):
        await at_first.put("/local/berlin/x", "1")
        await has(at_second, "/local/berlin/x", b"1", serializable=True)
        for edge in (first, second):
            assert edge.process is not None
            edge.process.kill()
            await edge.start(options(second))
        await has(at_second, "/local/berlin/x", b"1")
        await at_second.put("/local/berlin/x", "2")
        await has(at_first, "/local/berlin/x", b"2", serializable=True)

        for wrong in ("3", "4"):  # twice: its writing begins a later epoch each time
            assert first.process is not None
            first.process.kill()
            await first.start(options(first))
            await has(at_first, "/local/berlin/x", b"2" if wrong == "3" else b"5")
            await at_first.put("/local/berlin/x", wrong)
            await at_second.put("/local/berlin/y", wrong)
            first.process.kill()
            await first.start(options(second))
            await has(at_first, "/local/berlin/y", wrong.encode(), serializable=True)
            await has(at_first, "/local/berlin/x", b"2" if wrong == "3" else b"5", serializable=True)
            await at_second.put("/local/berlin/x", "5")
            await has(at_first, "/local/berlin/x", b"5", serializable=True)
        assert [value for _, value in lost(first)] == [b"3", b"4"]
        assert not (second.data / "lost").exists()


async def test_a_writer_that_begins_anew_does_not_replace_what_the_copies_have(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """Its disk was replaced: the copies are all there is."""
    async with (
        site(cluster, tmp_path) as (writer, other),
        client.connect(writer.endpoint, timeout=10, session_ttl=0) as at_writer,
        client.connect(other.endpoint, timeout=10, session_ttl=0) as at_other,
    ):
        await at_writer.put("/local/berlin/x", "1")
        await has(at_other, "/local/berlin/x", b"1", serializable=True)
        assert writer.process is not None
        assert other.process is not None
        writer.process.kill()
        shutil.rmtree(writer.data / "local")
        writer.process.start()
        async with asyncio.timeout(40):
            while "that this writer never had" not in other.process.tail(100):
                await asyncio.sleep(0.05)
            words = ("-m", "holdfast", "edge", "status", "--endpoints", cluster.endpoints[0])
            while True:
                shown = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
                out, _ = await shown.communicate()
                if "berlin: not following berlin-0" in out.decode():
                    break
            (line,) = [line for line in out.decode().splitlines() if "not following" in line]
            assert "berlin-1" in line
        await has(at_other, "/local/berlin/x", b"1", serializable=True)


async def test_a_writer_whose_directory_is_an_older_copy_goes_on_as_a_later_epoch(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """Its revisions are given a second time. A copy of the first ones must not take them for what it has."""
    async with (
        site(cluster, tmp_path) as (writer, other),
        client.connect(writer.endpoint, timeout=10, session_ttl=0) as hf,
        client.connect(other.endpoint, timeout=10) as at_other,
    ):
        await hf.put("/local/berlin/kept", "1")
        assert writer.process is not None
        assert writer.process.stop() == 0
        shutil.copytree(writer.data / "local", tmp_path / "older")
        writer.process.start()
        await has(hf, "/local/berlin/kept", b"1")
        for n in range(5):
            await hf.put(f"/local/berlin/lost/{n}", "1")
        await has(at_other, "/local/berlin/lost/4", b"1", serializable=True)
        writer.process.kill()
        shutil.rmtree(writer.data / "local")
        shutil.copytree(tmp_path / "older", writer.data / "local")
        writer.process.start()
        await has(at_other, "/local/berlin/lost/4", None, serializable=True)
        await hf.put("/local/berlin/new", "2")
        await has(at_other, "/local/berlin/new", b"2", serializable=True)
        await has(at_other, "/local/berlin/kept", b"1", serializable=True)
        assert "are an older copy: this has revision 2" in writer.process.tail(100)
        (kept,) = (other.data / "lost").iterdir()
        assert len(kept.read_text().splitlines()) == 1 + 5
