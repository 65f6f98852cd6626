"""OFREP over HTTP against a real server of one member."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from holdfast import client
from holdfast_lab.processes import LocalCluster, Process, free_ports

from ..integration import users
from .test_gateway import Http

pytestmark = pytest.mark.integration

FLAGS = "/ofrep/v1/evaluate/flags"
LIMIT = {"state": "ENABLED", "variants": {"low": 10, "high": 100}, "defaultVariant": "low"}
SHOP = {
    "state": "ENABLED",
    "variants": {"on": True, "off": False},
    "defaultVariant": "off",
    "targeting": {"if": [{"==": [{"var": "plan"}, "pro"]}, "on", None]},
    "metadata": {"team": "shop"},
}


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    local = LocalCluster(tmp_path, voters=1)
    local.start()
    try:
        await local.wait_ready()
        async with client.connect(local.endpoints) as hf:
            for prefix in ("/flags/", "/eve/"):
                await hf.put(prefix + "limit", json.dumps(LIMIT))
                await hf.put(prefix + "shop/new", json.dumps(SHOP))
        yield local
    finally:
        local.kill()
        print(local.logs())


@pytest_asyncio.fixture
async def http(cluster: LocalCluster) -> AsyncIterator[Http]:
    (process,) = cluster.voters.values()
    opened = await Http.open(process.port)
    yield opened
    opened.close()


async def ask(http: Http, path: str, context: Any = None, **headers: str) -> tuple[int, Any]:
    body = json.dumps({"context": context or {}}).encode()
    http.send("POST", path, body, **{name.replace("_", "-"): value for name, value in headers.items()})
    status = await http.status()
    if status == 304:
        return status, None
    return status, json.loads(await http.body())


async def test_one_flag_and_all_flags(cluster: LocalCluster, http: Http) -> None:
    assert await ask(http, f"{FLAGS}/limit") == (
        200,
        {"key": "limit", "value": 10, "variant": "low", "reason": "STATIC"},
    )
    revision = int(http.headers["holdfast-revision"])
    assert revision >= 5
    new = {"key": "shop/new", "value": True, "variant": "on", "reason": "TARGETING_MATCH", "metadata": {"team": "shop"}}
    for path in ("shop%2Fnew", "shop/new"):
        assert await ask(http, f"{FLAGS}/{path}", {"plan": "pro"}) == (200, new)
    status, body = await ask(http, FLAGS, {"plan": "pro"})
    assert (status, [flag["key"] for flag in body["flags"]]) == (200, ["limit", "shop/new"])
    assert body["flags"][1] == new
    # Nothing is sent again that the client has.
    etag = http.headers["etag"]
    assert await ask(http, FLAGS, {"plan": "pro"}, if_none_match=f'"x", {etag}') == (304, None)
    assert http.headers["etag"] == etag
    assert (await ask(http, FLAGS, {"plan": "free"}, if_none_match=etag))[0] == 200
    async with client.connect(cluster.endpoints) as hf:
        await hf.put("/flags/limit", json.dumps({**LIMIT, "defaultVariant": "high"}))
    async with asyncio.timeout(20):
        while (await ask(http, FLAGS, {"plan": "pro"}, if_none_match=etag))[0] == 304:
            pass
    assert (await ask(http, f"{FLAGS}/limit"))[1]["value"] == 100
    assert (await ask(http, f"{FLAGS}/limit", flagd_selector="/eve/"))[1]["value"] == 10


async def test_errors(http: Http) -> None:
    status, body = await ask(http, f"{FLAGS}/none")
    assert (status, body["key"], body["errorCode"]) == (404, "none", "FLAG_NOT_FOUND")
    for sent, code in (
        (b"{", "PARSE_ERROR"),
        (b"[]", "PARSE_ERROR"),
        (b'{"context": {"a": NaN}}', "PARSE_ERROR"),
        (b'{"context": []}', "INVALID_CONTEXT"),
        (b'{"context": "x"}', "INVALID_CONTEXT"),
        (b'{"context": %s}' % (b"[" * 20_000 + b"]" * 20_000), "PARSE_ERROR"),
    ):
        status, answer = await http.ask("POST", f"{FLAGS}/limit", sent)
        assert (status, json.loads(answer)["errorCode"]) == (400, code), sent[:30]
    for empty in (b"", b"{}", b'{"context": null}'):
        assert (await http.ask("POST", f"{FLAGS}/limit", empty))[0] == 200
    assert (await http.ask("GET", FLAGS))[0] == 405
    assert (await http.ask("POST", "/ofrep/v1/configuration"))[0] == 404
    assert (await http.ask("POST", f"{FLAGS}/limit", b"x" * (65 << 10)))[0] == 413


async def test_rights(cluster: LocalCluster) -> None:
    await users.set_up(cluster)
    (process,) = cluster.voters.values()
    http = await Http.open(process.port)
    async with client.connect(cluster.endpoints) as hf:
        await users.enable(hf)
    assert (await ask(http, FLAGS))[0] == 401
    login = await http.post("/v3/auth/authenticate", name="eve", password=users.PASSWORDS["eve"])
    bearer = f"Bearer {login['token']}"
    assert (await ask(http, FLAGS, authorization=bearer))[0] == 403
    assert (await ask(http, FLAGS, authorization=bearer, flagd_selector="/eve/"))[0] == 200
    assert (await ask(http, FLAGS, authorization="Bearer wrong", flagd_selector="/eve/"))[0] == 401
    http.close()


async def test_a_rule_that_never_ends_holds_nobody_up(cluster: LocalCluster, http: Http) -> None:
    numbers = [*range(3000)]
    endless = {"map": [numbers, {"map": [numbers, {"map": [numbers, {"+": [1, 1]}]}]}]}
    async with client.connect(cluster.endpoints) as hf:
        await hf.put("/flags/endless", json.dumps({**LIMIT, "targeting": endless}))
        (process,) = cluster.voters.values()
        connections = [await Http.open(process.port) for _ in range(8)]
        asking = [asyncio.ensure_future(ask(opened, FLAGS)) for opened in connections]
        await hf.put("/x", "served meanwhile")
        for status, body in await asyncio.gather(*asking):
            answers = {flag["key"]: flag for flag in body["flags"]}
            assert status == 200
            assert answers.get("endless", {}).get("errorDetails", "takes too much work").endswith("too much work")
            assert answers["limit"]["value"] == 10
        for opened in connections:
            opened.close()


async def test_a_replica_evaluates_while_it_is_cut_off(cluster: LocalCluster, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    words = ["edge", f"--data-dir={tmp_path / 'edge'}", f"--listen-client-urls=http://127.0.0.1:{port}"]
    words += [f"--endpoints={cluster.endpoints[0]}", "--prefix=/flags/"]
    replica = Process("edge", words, tmp_path / "edge.log", port)
    replica.start()
    try:
        async with client.connect(replica.endpoint, timeout=30) as at_edge, asyncio.timeout(60):
            while not (state := await at_edge.describe()).ready or not state.HasField("staleness_ms"):
                await asyncio.sleep(0.02)
            cluster.kill()
            while (await at_edge.describe()).connected:
                await asyncio.sleep(0.02)
        http = await Http.open(port)
        assert (await ask(http, f"{FLAGS}/limit"))[1]["value"] == 10
        assert float(http.headers["holdfast-staleness-seconds"]) > 0
        status, body = await ask(http, FLAGS, flagd_selector="/eve/")
        assert status == 400
        assert "outside this replica's prefixes" in body["errorDetails"]
        http.close()
    finally:
        replica.kill()
        print(replica.tail(20))


async def test_without_the_extra_the_answer_says_what_to_install(tmp_path: Path) -> None:
    """A server whose Python lacks the library: everything else works."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['json_logic'] = None\n")
    local = LocalCluster(tmp_path / "c", voters=1)
    (process,) = local.voters.values()
    process.environment["PYTHONPATH"] = ":".join([str(tmp_path), *sys.path])
    local.start()
    try:
        await local.wait_ready()
        async with client.connect(local.endpoints) as hf:
            await hf.put("/flags/limit", json.dumps(LIMIT))
        http = await Http.open(process.port)
        status, body = await ask(http, f"{FLAGS}/limit")
        assert status == 501
        assert "pip install 'holdfast[flags]'" in body["errorDetails"]
        http.close()
    finally:
        local.kill()
        print(local.logs())
