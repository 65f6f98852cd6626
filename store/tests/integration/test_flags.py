"""Feature flags for OpenFeature's stock providers: from members, and from a replica that is cut off and restarted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict
from holdfast import client
from holdfast.proto import flagd_sync_pb2, rpc_pb2
from holdfast_lab.processes import LocalCluster

from ..tools import tool
from . import users
from .replica import Edge, following

NEW_SHOP = {
    "state": "ENABLED",
    "variants": {"on": True, "off": False},
    "defaultVariant": "off",
    "targeting": {"if": [{"$ref": "staff"}, "on", None]},
}
COLOUR = {
    "state": "ENABLED",
    "variants": {"red": "#f00", "blue": "#00f"},
    "defaultVariant": "red",
    "targeting": {"if": [{"in": [{"var": "country"}, ["de", "nl"]]}, "blue", None]},
}
LIMIT = {"state": "ENABLED", "variants": {"low": 10, "high": 100}, "defaultVariant": "low"}
STAFF = {"ends_with": [{"var": "email"}, "@holdfast.example"]}
SOURCE = {
    "state": "ENABLED",
    "variants": {"here": "replica", "there": "member"},
    "defaultVariant": "there",
    "targeting": {"if": [{"==": [{"var": "holdfast_source"}, "replica"]}, "here", None]},
}
FLAGS = {"source": SOURCE, "new-shop": NEW_SHOP, "colour": COLOUR, "limit": LIMIT, "$evaluators/staff": STAFF}

# [type, flag, context] and [value, variant, reason].
ANSWERS: list[tuple[list[Any], list[Any]]] = [
    (["boolean", "new-shop", {"key": "1", "email": "eve@holdfast.example"}], [True, "on", "TARGETING_MATCH"]),
    (["boolean", "new-shop", {"key": "2", "email": "eve@elsewhere.example"}], [False, "off", "DEFAULT"]),
    (["string", "colour", {"key": "3", "country": "de"}], ["#00f", "blue", "TARGETING_MATCH"]),
    (["string", "colour", {"key": "4", "country": "dk"}], ["#f00", "red", "DEFAULT"]),
    (["integer", "limit", {}], [10, "low", "STATIC"]),
    (["integer", "unknown", {}], [-1, None, "FLAG_NOT_FOUND"]),
]


# Python's provider adds the sync context to each evaluation context; Go's does not, as of 0.3.1.
OF_CONTEXT = (["string", "source", {}], ["replica", "here", "TARGETING_MATCH"])


class App:
    """An application process with a stock provider, fed by lines."""

    def __init__(self, words: list[str], *more: tuple[list[Any], list[Any]]) -> None:
        """`more`: what only this provider answers."""
        self._words = words
        self._more = more
        self.events: asyncio.Queue[str] = asyncio.Queue()
        self._answers: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> App:
        self._process = await asyncio.create_subprocess_exec(
            *self._words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._reading = asyncio.ensure_future(self._read())
        assert await asyncio.wait_for(self._answers.get(), 60) == "ready"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode().strip()
            if text.startswith("event "):
                self.events.put_nowait(text.removeprefix("event ").strip())
            else:
                self._answers.put_nowait(text)
        self._answers.put_nowait("the application has ended")

    async def ask(self, question: list[Any]) -> list[Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        found: list[Any] = json.loads(await asyncio.wait_for(self._answers.get(), 30))
        return found

    async def answers_rightly(self) -> None:
        for question, answer in (*ANSWERS, *self._more):
            assert await self.ask(question) == answer, question

    async def hears(self, event: str) -> None:
        async with asyncio.timeout(30):
            while await self.events.get() != event:
                pass


def python_app(port: int, selector: str = "") -> App:
    return App([sys.executable, str(Path(__file__).parent / "flag_app.py"), str(port), selector], OF_CONTEXT)


def go_app(port: int, selector: str = "") -> App:
    return App([tool("go-flags"), str(port), selector])


APPS = {"python": python_app, "go": go_app}


async def put(hf: client.Client, prefix: str, flags: dict[str, Any]) -> int:
    revision = 0
    for name, value in flags.items():
        data = value if isinstance(value, str) else json.dumps(value)
        revision = (await hf.put(prefix + name, data)).revision
    return revision


@pytest.fixture
async def edge(cluster: LocalCluster, tmp_path: Path) -> AsyncIterator[Edge]:
    async with following(cluster, tmp_path, ("/flags/",)) as found:
        yield found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("language", APPS)
async def test_an_application_reads_its_flags_from_a_replica_that_is_cut_off(
    cluster: LocalCluster, edge: Edge, language: str
) -> None:
    """Cluster up; a change arrives; the cluster stops; the application, the replica and the application again are
    restarted without it."""
    app = APPS[language]
    async with (
        client.connect(cluster.endpoints, timeout=60) as hf,
        client.connect(edge.endpoint, timeout=60) as at_edge,
    ):
        await edge.reaches(at_edge, await put(hf, "/flags/", FLAGS))
        async with app(edge.port) as first:
            await first.answers_rightly()
            changed = {**LIMIT, "defaultVariant": "high"}
            await put(hf, "/flags/", {"limit": changed})
            await first.hears("PROVIDER_CONFIGURATION_CHANGED limit")
            assert await first.ask(["integer", "limit", {}]) == [100, "high", "STATIC"]
            # A definition that is none is left out, and all others go on.
            wrong = hf.op.put("/flags/limit", "{not JSON")
            await hf.txn().then(wrong, hf.op.put("/flags/new", json.dumps(NEW_SHOP))).commit()
            await first.hears("PROVIDER_CONFIGURATION_CHANGED limit,new")
            assert (await first.ask(["integer", "limit", {}]))[2] == "FLAG_NOT_FOUND"
            await edge.reaches(at_edge, await put(hf, "/flags/", {"limit": LIMIT}))
            await first.hears("PROVIDER_CONFIGURATION_CHANGED limit")
            cluster.kill()
            edge.relay.cut()
            await edge.is_cut(at_edge)
            await first.answers_rightly()
        async with app(edge.port) as second:
            await second.answers_rightly()
            assert edge.process is not None
            edge.process.kill()
            await second.answers_rightly()
            edge.process.start()
            await edge.is_cut(at_edge)  # it has started: Go's provider does not wait for a server
            async with app(edge.port) as third:
                await third.answers_rightly()
            cluster.start()
            edge.relay.heal()
            await put(hf, "/flags/", {"limit": changed})
            await second.hears("PROVIDER_CONFIGURATION_CHANGED limit")
            assert await second.ask(["integer", "limit", {}]) == [100, "high", "STATIC"]


# ---- the protocol --------------------------------------------------------------------------------------------------


class Sync:
    """The calls of flagd.sync.v1 to one server."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint, options=[("grpc.use_local_subchannel_pool", 1)])

    async def __aenter__(self) -> Sync:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    def sync(
        self, selector: str = "", metadata: tuple[tuple[str, str], ...] = (), *, wait_for_ready: bool = False
    ) -> Any:
        call = self._channel.unary_stream(
            "/flagd.sync.v1.FlagSyncService/SyncFlags",
            request_serializer=flagd_sync_pb2.SyncFlagsRequest.SerializeToString,
            response_deserializer=flagd_sync_pb2.SyncFlagsResponse.FromString,
        )
        request = flagd_sync_pb2.SyncFlagsRequest(selector=selector)
        return call(request, metadata=metadata, timeout=60, wait_for_ready=wait_for_ready)

    async def fetch(self, selector: str = "", metadata: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
        call = self._channel.unary_unary(
            "/flagd.sync.v1.FlagSyncService/FetchAllFlags",
            request_serializer=flagd_sync_pb2.FetchAllFlagsRequest.SerializeToString,
            response_deserializer=flagd_sync_pb2.FetchAllFlagsResponse.FromString,
        )
        request = flagd_sync_pb2.FetchAllFlagsRequest(selector=selector)
        found: dict[str, Any] = json.loads((await call(request, metadata=metadata, timeout=30)).flag_configuration)
        return found

    async def metadata(self) -> dict[str, Any]:
        call = self._channel.unary_unary(
            "/flagd.sync.v1.FlagSyncService/GetMetadata",
            request_serializer=flagd_sync_pb2.GetMetadataRequest.SerializeToString,
            response_deserializer=flagd_sync_pb2.GetMetadataResponse.FromString,
        )
        found: dict[str, Any] = MessageToDict((await call(flagd_sync_pb2.GetMetadataRequest(), timeout=30)).metadata)
        return found


def read(response: flagd_sync_pb2.SyncFlagsResponse) -> tuple[dict[str, Any], dict[str, Any]]:
    """(flags, sync context)."""
    return json.loads(response.flag_configuration)["flags"], MessageToDict(response.sync_context)


async def until(stream: Any, flags: dict[str, Any]) -> dict[str, Any]:
    """Read until these are the flags; returns the context."""
    while True:
        found, context = read(await stream.read())
        if found == flags:
            return context


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    local = LocalCluster(tmp_path, 1, ["--flags-prefix=/app/flags/"])
    local.start()
    try:
        await local.wait_ready(60)
        yield local
    finally:
        local.kill()
        print(local.logs())


async def test_selectors_and_documents_of_a_member(alone: LocalCluster) -> None:
    async with client.connect(alone.endpoints, timeout=60) as hf, Sync(alone.endpoints[0]) as flags:
        await put(hf, "/app/flags/", {"limit": LIMIT, "wrong": "[]"})
        revision = await put(hf, "/other/", {"flags.json": {"flags": {"colour": COLOUR}}, "x": LIMIT})
        default, whole, prefix = flags.sync(), flags.sync("/other/flags.json"), flags.sync("/other/")
        found, context = read(await default.read())
        assert found == {"limit": LIMIT}
        assert context == {"holdfast_source": "member", "holdfast_revision": revision, "holdfast_left_out": 1}
        assert read(await whole.read())[0] == {"colour": COLOUR}
        assert read(await prefix.read())[0] == {"x": LIMIT}
        by_header = flags.sync(metadata=(("flagd-selector", "/other/"),))
        assert read(await by_header.read())[0] == {"x": LIMIT}
        assert await flags.fetch() == {"flags": {"limit": LIMIT}}
        assert await flags.metadata() == {"holdfast_source": "member", "holdfast_revision": revision}
        # A burst of changes is sent as few documents, the last of which has all of it.
        names = [f"n{n}" for n in range(200)]
        last = await put(hf, "/other/", dict.fromkeys(names, LIMIT))
        sent = 0
        while True:
            found, context = read(await prefix.read())
            sent += 1
            if len(found) == 201:
                break
        assert sent < 150, "each change was sent by itself"
        assert context["holdfast_revision"] == last
        # What no document is ends the streams with the reason; other streams go on.
        await put(hf, "/other/", {"flags.json": '{"flags": []}'})
        with pytest.raises(grpc.aio.AioRpcError, match="no flagd document") as ended:
            await whole.read()
        assert ended.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        await hf.delete("/app/flags/limit")
        assert (await until(default, {}))["holdfast_left_out"] == 1
        assert "left out wrong: it is not a JSON object" in alone.logs()


async def test_what_is_too_large_is_refused(alone: LocalCluster) -> None:
    async with client.connect(alone.endpoints, timeout=60) as hf, Sync(alone.endpoints[0]) as flags:
        for n in range(6):
            await hf.put(f"/large/{n}", b"x" * 1_000_000)
        with pytest.raises(grpc.aio.AioRpcError, match="narrower") as refused:
            await flags.fetch("/large/")
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # So is what grows too large while it is served.
        stream = flags.sync("/grows/")
        assert read(await stream.read())[0] == {}
        big = {**LIMIT, "metadata": {"x": "y" * 100_000}}
        await put(hf, "/grows/", dict.fromkeys((f"f{n}" for n in range(50)), big))
        with pytest.raises(grpc.aio.AioRpcError, match="narrower"):
            await until(stream, {"never": LIMIT})
        # A large document reaches many streams, and nothing else waits for that.
        await put(hf, "/many/", dict.fromkeys((f"f{n}" for n in range(20)), big))
        streams = [flags.sync("/many/") for _ in range(20)]
        for found in await asyncio.gather(*(stream.read() for stream in streams)):
            assert len(read(found)[0]) == 20
        with pytest.raises(grpc.aio.AioRpcError, match="at most") as long:
            await flags.fetch("x" * 5000)
        assert long.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_flags_need_the_right_to_read_them_and_end_with_it(alone: LocalCluster) -> None:
    await users.set_up(alone)
    connect = users.connector(alone)
    async with client.connect(alone.endpoints, timeout=60) as hf, Sync(alone.endpoints[0]) as flags:
        await put(hf, "/eve/", {"limit": LIMIT})
        everyone = flags.sync("/eve/")
        assert read(await everyone.read())[0] == {"limit": LIMIT}
        await users.enable(hf)
        for answer in (everyone.read(), flags.fetch("/eve/"), flags.metadata()):
            with pytest.raises(grpc.aio.AioRpcError, match="user name is empty"):
                await answer
        asked = rpc_pb2.AuthenticateRequest(name="eve", password=users.PASSWORDS["eve"])
        answer = await hf.connection.call(
            "/etcdserverpb.Auth/Authenticate", asked, rpc_pb2.AuthenticateResponse, idempotent=True
        )
        token = (("token", answer.token),)
        stream = flags.sync("/eve/", token)
        assert read(await stream.read())[0] == {"limit": LIMIT}
        assert await flags.fetch("/eve/", token) == {"flags": {"limit": LIMIT}}
        for selector in ("/eve", "/", "/other/", "/other/flags.json"):
            with pytest.raises(grpc.aio.AioRpcError, match="permission denied"):
                await flags.fetch(selector, token)
            with pytest.raises(grpc.aio.AioRpcError, match="permission denied"):
                await flags.sync(selector, token).read()
        async with connect("root") as root:
            await users.revoke_role(root, "eve", "r")
        with pytest.raises(grpc.aio.AioRpcError, match="permission denied"):
            await stream.read()


@pytest.mark.timeout(120)
async def test_a_replica_says_how_old_its_flags_are(cluster: LocalCluster, edge: Edge) -> None:
    async with (
        client.connect(cluster.endpoints, timeout=60) as hf,
        client.connect(edge.endpoint, timeout=60) as at_edge,
        Sync(edge.endpoint) as flags,
    ):
        revision = await put(hf, "/flags/", {"limit": LIMIT})
        await edge.reaches(at_edge, revision)
        for selector in ("/other/", "/flags", "/"):
            with pytest.raises(grpc.aio.AioRpcError, match="outside this replica's prefixes") as outside:
                await flags.fetch(selector)
            assert outside.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            with pytest.raises(grpc.aio.AioRpcError, match="outside this replica's prefixes"):
                await flags.sync(selector).read()
        stream = flags.sync()
        found, context = read(await stream.read())
        assert (found, context["holdfast_source"]) == ({"limit": LIMIT}, "replica")
        assert context["holdfast_revision"] >= revision
        async with asyncio.timeout(30):
            while (await flags.metadata()).get("holdfast_staleness_seconds", 60.0) > 5:
                await asyncio.sleep(0.05)
        edge.relay.cut()
        await edge.is_cut(at_edge)
        bound = (await flags.metadata())["holdfast_staleness_seconds"]
        late = read(await flags.sync().read())[1]
        assert late["holdfast_staleness_seconds"] >= bound
        assert edge.process is not None
        edge.process.kill()
        edge.process.start()
        # A call that waits for the connection: the replica has just been started.
        restarted = read(await flags.sync(wait_for_ready=True).read())
        assert restarted[0] == {"limit": LIMIT}
        assert "holdfast_staleness_seconds" not in restarted[1], "after a restart nobody knows how old it is"


@pytest.mark.timeout(120)
async def test_a_snapshot_brings_the_flags_up_to_date(cluster: LocalCluster, edge: Edge) -> None:
    """A replica that was cut off for longer than history is kept follows by a snapshot; open streams go on."""
    async with (
        client.connect(cluster.endpoints, timeout=60) as hf,
        client.connect(edge.endpoint, timeout=60) as at_edge,
        Sync(edge.endpoint) as flags,
    ):
        await edge.reaches(at_edge, await put(hf, "/flags/", {"limit": LIMIT, "gone": LIMIT}))
        stream = flags.sync()
        assert read(await stream.read())[0] == {"gone": LIMIT, "limit": LIMIT}
        edge.relay.cut()
        await edge.is_cut(at_edge)
        await hf.delete("/flags/gone")
        revision = await put(hf, "/flags/", {"colour": COLOUR})
        await hf.compact(revision)
        edge.relay.heal()
        context = await until(stream, {"colour": COLOUR, "limit": LIMIT})
        assert context["holdfast_revision"] >= revision


async def test_the_example(alone: LocalCluster) -> None:
    """What people copy works as it says."""
    flag = {
        **NEW_SHOP,
        "targeting": {"if": [{"==": [{"var": "plan"}, "pro"]}, "on", None]},
    }
    async with client.connect(alone.endpoints, timeout=60) as hf:
        await put(hf, "/flags/", {"new-shop": flag})
        example = Path(__file__).parents[2] / "examples" / "flags.py"
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(example), alone.endpoints[0], stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None

        async def prints(*lines: str) -> None:
            assert process.stdout is not None
            for line in lines:
                assert (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip() == line

        try:
            await prints("free: False", "pro: True")
            await put(hf, "/flags/", {"new-shop": {**flag, "defaultVariant": "on"}})
            await prints("free: True", "pro: True")
        finally:
            process.kill()
            await process.wait()
