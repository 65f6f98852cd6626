"""Reads say how fresh they have to be, and answers how fresh they are."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from typing import Any

import grpc
import grpc.aio
import pytest
from holdfast import client
from holdfast.proto import rpc_pb2
from holdfast.status import REPLICA_DISCONNECTED, REPLICA_TOO_OLD
from holdfast_lab.processes import LocalCluster

from .replica import Edge

MALFORMED = ("fresh", "bounded", "bounded=2", "bounded=-1s", "at-least=5", "at-least=x:5", "local=1", "=" * 999)


async def read(endpoint: str, mode: str, key: bytes = b"/a/1", **how: Any) -> tuple[bytes | None, dict[str, Any]]:
    """The value, and the headers of the answer."""
    request = rpc_pb2.RangeRequest(key=key, **how)
    async with grpc.aio.insecure_channel(endpoint) as channel:
        call = channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=rpc_pb2.RangeRequest.SerializeToString,
            response_deserializer=rpc_pb2.RangeResponse.FromString,
        )(request, metadata=(("holdfast-read", mode),) if mode else (), timeout=15)
        answer = await call
        headers = {name: value for name, value in await call.initial_metadata() if name.startswith("holdfast-")}
    return (answer.kvs[0].value if answer.kvs else None), headers


async def refused(endpoint: str, mode: str, key: bytes = b"/a/1") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await read(endpoint, mode, key)
    return error.value.code(), error.value.details() or ""


async def test_a_replica_serves_what_is_fresh_enough(cluster: LocalCluster, edge: Edge) -> None:
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
        put = await hf.put("/a/1", "x")
        cluster_id = (await hf.describe()).cluster_id
        await edge.reaches(at_edge, put.revision)
        value, told = await read(edge.endpoint, "bounded=500ms")
        assert value == b"x"
        assert told["holdfast-read"] == "bounded"
        assert told["holdfast-position"] == f"{cluster_id:x}:{(await at_edge.describe()).revision}"
        assert float(told["holdfast-bound"].removesuffix("s")) <= 0.5
        for n in range(20):
            put = await hf.put("/a/1", f"bounded {n}")
            value, _ = await read(edge.endpoint, "bounded=0s")
            assert value == f"bounded {n}".encode(), "it was acknowledged before, so it has to be there"
            put = await hf.put("/a/1", f"at least {n}")
            at_least, _ = await read(edge.endpoint, f"at-least={cluster_id:x}:{put.revision}")
            assert at_least == f"at least {n}".encode()
        value, told = await read(edge.endpoint, "local")
        assert told["holdfast-read"] == "local"
        value, told = await read(edge.endpoint, "linearizable", serializable=True)
        assert told["holdfast-read"] == "linearizable", "as the member says it"
        _, told = await read(edge.endpoint, "", serializable=True)
        assert told["holdfast-read"] == "local"

        edge.relay.cut()
        await edge.is_cut(at_edge)
        await hf.put("/a/1", "not here")
        assert (await read(edge.endpoint, "bounded=10m"))[0] == at_least
        assert (await read(edge.endpoint, f"at-least={cluster_id:x}:{put.revision}"))[0] == at_least
        async with asyncio.timeout(20):
            while (await at_edge.describe()).staleness_ms < 1500:
                await asyncio.sleep(0.05)
        code, why = await refused(edge.endpoint, "bounded=1s")
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "behind, and at most 1s was asked for" in why
        code, why = await refused(edge.endpoint, f"at-least={cluster_id:x}:{put.revision + 100}")
        assert code is grpc.StatusCode.UNAVAILABLE
        assert f"and {put.revision + 100} was asked for" in why
        assert await page(edge, "/readyz") == (200, "ok\n")
        assert await page(edge, "/livez?verbose") == (200, "[+]loop ok\nok\n")
        all_is_well = "[+]data ok\nok\n"
        assert await page(edge, "/readyz?verbose") == (200, all_is_well)
        assert await page(edge, "/readyz/prefixes?verbose") == (200, "[+]prefixes ok\nok\n")
        assert (await page(edge, "/readyz?max-staleness=10m"))[0] == 200
        status, said = await page(edge, "/readyz?max-staleness=1s")
        assert status == 503
        assert "[-]staleness failed: the data may be older than 1s: " in said
        assert await page(edge, "/readyz?max-staleness=1s&exclude=staleness&verbose") == (200, all_is_well)
        assert (await page(edge, "/readyz?max-staleness=soon"))[0] == 400
        for wrong in ("/readyz?maxstaleness=5s", "/livez?max-staleness=5s"):
            status, said = await page(edge, wrong)
            assert status == 400
            assert "there is no parameter" in said
            assert ("write verbose, exclude, max-staleness" in said) == wrong.startswith("/readyz")


async def test_the_client_says_how_old_an_answer_may_be(cluster: LocalCluster, edge: Edge) -> None:
    """A replica that is cut off answers what is fresh enough, and nothing else; members, and etcd, answer all of it."""
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint, timeout=3) as at_edge:
        put = await hf.put("/a/1", "x")
        await edge.reaches(at_edge, put.revision)
        for at in (hf, at_edge):
            found = await at.get("/a/1", max_staleness=0.0)
            assert found is not None
            assert found.value == b"x"
        edge.relay.cut()
        await edge.is_cut(at_edge)
        assert (await at_edge.range("/a/", prefix=True, max_staleness=600.0)).count == 1
        with pytest.raises(client.Unavailable, match="was asked for"):
            await at_edge.get("/a/1", max_staleness=0.0)
        with pytest.raises(client.Unavailable):
            await at_edge.get("/a/1")
        with pytest.raises(ValueError, match="max_staleness"):
            await at_edge.get("/a/1", max_staleness=-1.0)
        with pytest.raises(ValueError, match="max_staleness"):
            await at_edge.get("/a/1", max_staleness=1.0, serializable=True)


async def test_a_member_is_at_least_as_fresh(cluster: LocalCluster) -> None:
    async with client.connect(cluster.endpoints) as hf:
        await cluster.wait_ready(60)
        put = await hf.put("/a/1", "x")
        cluster_id = (await hf.describe()).cluster_id
        for endpoint in cluster.endpoints:
            for mode, said in (
                ("linearizable", "linearizable"),
                ("bounded=1ms", "linearizable"),
                (f"at-least={cluster_id:x}:{put.revision}", "at-least"),
            ):
                value, told = await read(endpoint, mode, serializable=True)
                assert (value, told["holdfast-read"]) == (b"x", said)
                assert told["holdfast-position"] == f"{cluster_id:x}:{put.revision}"
            assert (await read(endpoint, "local"))[1]["holdfast-bound"] == "unknown"
            assert (await read(endpoint, ""))[1] == {}, "who does not ask gets etcd's answer"


async def test_what_is_malformed_or_of_elsewhere_is_refused(cluster: LocalCluster, edge: Edge) -> None:
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
        put = await hf.put("/a/1", "x")
        cluster_id = (await hf.describe()).cluster_id
        await edge.reaches(at_edge, put.revision)
        for endpoint in (cluster.endpoints[0], edge.endpoint):
            for mode in MALFORMED:
                code, why = await refused(endpoint, mode)
                assert code is grpc.StatusCode.INVALID_ARGUMENT, mode
                assert "is none of linearizable, local, held, bounded=DURATION" in why
                assert len(why) < 300
            code, why = await refused(endpoint, "at-least=1:5")
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert "the position is of cluster 1" in why
        code, _ = await refused(cluster.endpoints[0], f"at-least={cluster_id:x}:{put.revision + 1000}")
        assert code is grpc.StatusCode.OUT_OF_RANGE
        code, why = await refused(edge.endpoint, "bounded=5s", b"/elsewhere")
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "outside this replica's prefixes" in why


async def page(edge: Edge, path: str) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{edge.endpoint}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def test_a_replica_that_is_cut_off_is_given_up_early(cluster: LocalCluster, edge: Edge) -> None:
    """Long before the timeout, with the replica's own words; and not while it only changes over to another upstream."""
    async with client.connect(edge.endpoint, timeout=600) as at_edge:
        put = await at_edge.put("/a/1", "x")
        await edge.reaches(at_edge, put.revision)
        edge.relay.cut()
        await edge.is_cut(at_edge)
        for work in (
            at_edge.put("/a/1", "y"),
            at_edge.get("/a/1"),
            at_edge.get("/a/1", max_staleness=0.0),
            at_edge.delete("/a/1"),
            at_edge.lease(60),
            at_edge.members(),
        ):
            async with asyncio.timeout(60):
                with pytest.raises(client.Unavailable) as error:
                    await work
            assert str(error.value).startswith("replica berlin "), "the server's words, without gRPC's"
            assert error.value.known in (REPLICA_DISCONNECTED, REPLICA_TOO_OLD)
        writing = asyncio.ensure_future(at_edge.put("/a/1", "after the cut"))
        edge.relay.heal()
        await writing


async def command(*words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "holdfast", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), said.decode()


async def test_the_command_says_why_a_replica_that_is_cut_off_does_not_do_it(edge: Edge) -> None:
    async with client.connect(edge.endpoint) as at_edge:
        put = await at_edge.put("/a/1", "x")
        await edge.reaches(at_edge, put.revision)
        edge.relay.cut()
        await edge.is_cut(at_edge)
        where = f"--endpoints={edge.endpoint}"
        told = (
            "error: replica berlin is disconnected from its cluster: only serializable reads and watches of "
            "/a/, /b/ are answered here"
        )
        assert await command("put", "/a/1", "z", where, "--timeout=600") == (3, "", f"{told}\n")
        advice = "; --serializable reads what it has"
        assert await command("get", "/a/1", where, "--timeout=600") == (3, "", f"{told}{advice}\n")
        assert (await command("get", "/a/1", where, "--serializable"))[0] == 0
        outside = "is outside this replica's prefixes"
        for words in (("get", "/c", "--serializable"), ("watch", "/c")):
            code, _, said = await command(*words, where)
            assert code == 1
            assert said.startswith(f"error: /c {outside}"), "without gRPC's words, and Go's"


async def test_the_client_is_told_how_old_an_answer_can_be(cluster: LocalCluster, edge: Edge) -> None:
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as at_edge:
        put = await hf.put("/a/1", "x")
        await edge.reaches(at_edge, put.revision)
        here = client.Position((await hf.describe()).cluster_id, put.revision)
        for _ in range(2):  # over a new connection, and over one that is there
            told = (await at_edge.range("/a/1", max_staleness=0.5)).freshness
            assert told is not None
            assert (told.read, told.position) == ("bounded", here)
            assert told.bound is not None
            assert told.bound <= 0.5
            told = (await hf.range("/a/1", max_staleness=0.5)).freshness
            assert told == client.Freshness("linearizable", here, 0.0)
        told = (await at_edge.range("/a/1", serializable=True)).freshness
        assert told is not None
        assert told.read == "local"
        assert (await hf.range("/a/1", serializable=True)).freshness is None, "members say it if they are asked"
        assert (await hf.range("/a/1")).freshness is None
        edge.relay.cut()
        await edge.is_cut(at_edge)
        with pytest.raises(client.Unavailable, match=r"at most 0.0001s was asked for"):
            await at_edge.get("/a/1", max_staleness=0.0001)
    code, out, _ = await command("get", "/a/1", f"--endpoints={edge.endpoint}", "--max-staleness=10m", "--output=json")
    assert code == 0
    found = json.loads(out)
    assert (found["read"], found["position"]) == ("bounded", str(here))
    assert 0 < found["bound_seconds"] < 600
    for wrong in ("soon", "-1", "2 s", "nan"):
        assert (await command("get", "/a/1", f"--max-staleness={wrong}"))[0] == 2
    assert (await command("get", "/a/1", "--max-staleness=2", "--serializable"))[0] == 2


async def test_json_says_how_fresh_it_has_to_be_and_is(edge: Edge) -> None:
    async with client.connect(edge.endpoint) as at_edge:
        put = await at_edge.put("/a/1", "x")
        await edge.reaches(at_edge, put.revision)

    def ask(header: str, mode: str) -> tuple[int, Any, str]:
        request = urllib.request.Request(
            f"http://{edge.endpoint}/v3/kv/range", b'{"key": "L2EvMQ=="}', {header: mode}, method="POST"
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    for header in ("Grpc-Metadata-Holdfast-Read", "Holdfast-Read"):
        status, _, text = await asyncio.to_thread(ask, header, "bounded=abc")
        assert status == 400
        assert "'bounded=abc' is none of" in text
        status, headers, _ = await asyncio.to_thread(ask, header, "bounded=10m")
        assert status == 200
        assert headers["Grpc-Metadata-Holdfast-Read"] == "bounded"
        assert headers["Grpc-Metadata-Holdfast-Position"].endswith(f":{put.revision}")
        assert float(headers["Grpc-Metadata-Holdfast-Bound"].removesuffix("s")) < 600
