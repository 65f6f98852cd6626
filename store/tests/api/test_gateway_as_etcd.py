"""The gateway's answers to bodies of every shape are those of etcd's own, call by call."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from holdfast_lab.processes import LocalCluster, free_ports

from ..tools import tool
from .test_gateway import Http

pytestmark = pytest.mark.integration

RANGES = [
    *("[]", "null", '"abc"', "5", "true", "{}", "", " ", "\ufeff{}", "{'key':1}", '{"key":"YQ==",}', "{", "/**/{}"),
    *('{"key":"YQ=="}', '{"key":"YQ"}', '{"key":"YR=="}', '{"key":"-_8"}', '{"key":"+/8"}', '{"key":"-_8="}'),
    *('{"key":"user:42x"}', '{"key":"pass word"}', '{"key":"a.b.c"}', '{"key":"YQ="}', '{"key":"YQ==="}'),
    *('{"key":"="}', '{"key":"===="}', '{"key":"YQ=a"}', '{"key":"Y"}', '{"key":"Y==="}', '{"key":"+_8"}'),
    *('{"key":"é"}', '{"key":5}', '{"key":["YQ=="]}', '{"key":null}', '{"key":""}', '{"key":"\\ud800"}'),
    *('{"key":"YQ\\u003d="}', '{"\\u006bey":"YQ=="}', '{"key":"YQ==\\r\\n\\r\\n"}', '{"key":"YQ\\r\\n=="}'),
    *('{"key":"YQ==","key":"YQ=="}', '{"key":"YQ==","x":1,"x":2}', '{"key":"YQ==","x":NaN}', '{"key":"YQ==","x":01}'),
    *('{"key":"YQ==","x":"a\tb"}', '{"key":"YQ==","x":[' + "[" * 200 + "]" * 201 + "}"),
    *('{"key":"YQ==","rangeEnd":"Yg=="}', '{"key":"YQ==","rangeEnd":"","range_end":""}', '{"key":"YQ==","Limit":"x"}'),
    *(
        f'{{"key":"YQ==","limit":{number}}}'
        for number in (
            *(
                '"1"',
                "1.0",
                '"1.0"',
                "1e2",
                "1.5",
                '"+1"',
                '"1_0"',
                '" 1"',
                '"0x1"',
                '"01"',
                "01",
                '""',
                "true",
                "null",
            ),
            *("[]", "{}", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1e400", "NaN", "-0"),
            *("1e99999999999", "0e99999999999", '"-1"', "100e-2", "1e-2", '"\\u0661"', "1" * 5000, "0.01e2", "1.10e1"),
        )
    ),
    *(
        f'{{"key":"YQ==","sort_order":{order}}}'
        for order in ('"ASCEND"', '"ascend"', '"NOTHING"', "1", '"1"', "77", "1.0", "true", "99999999999", "null")
    ),
    *(f'{{"key":"YQ==","serializable":{flag}}}' for flag in ('"true"', "1", "null", "true", "[]")),
]
TXNS = [
    *('{"compare":[[]]}', '{"compare":{}}', '{"compare":null}', '{"compare":[null]}', '{"compare":[{}]}'),
    *(f'{{"success":[{{"request_put":{put}}}]}}' for put in ("[]", "null", '"x"', "{}")),
    '{"success":[{}]}',
    '{"success":[{"request_put":{"key":"YQ=="},"request_range":{"key":"YQ=="}}]}',
    '{"success":[{"request_put":{"key":"YQ=="},"request_put":{"key":"YQ=="}}]}',
    '{"success":[{"requestPut":{"key":"YQ=="}}]}',
    '{"compare":[{"key":"YQ==","target":"VERSION","version":"1","create_revision":"1"}]}',
    '{"compare":[{"key":"YQ==","target":"NOT","version":"1"}]}',
    '{"success":[{"request_put":{"key":"YQ=="}},{"request_put":{"key":"YQ=="}}]}',
]
ROLES = [
    '{"name":"\\ud800"}',
    '{"name":"\\ud83d\\ude00"}',
    '{"name":5}',
    '{"name":null}',
    '{"name":[]}',
    '{"name":"r"}',
]
CALLS = (
    [("/v3/kv/range", b) for b in RANGES]
    + [("/v3/kv/txn", b) for b in TXNS]
    + [("/v3/auth/role/add", b) for b in ROLES]
)
PATHS = [
    *(("POST", "//v3/kv/put"), ("POST", "/v3//kv/../kv/put"), ("POST", "//health"), ("POST", "//v3/watch?a=b")),
    *(("HEAD", "/metrics"), ("GET", "/version"), ("POST", "/version"), ("GET", "/none"), ("GET", "http://h/version")),
    *(("OPTIONS", "/v3/kv/put"), ("GET", "//[")),
]


@pytest_asyncio.fixture
async def ports(tmp_path: Path) -> AsyncIterator[tuple[int, int]]:
    """(ours, etcd's)"""
    local = LocalCluster(tmp_path / "holdfast", voters=1)
    port, peer = free_ports(2)
    url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    arguments = [f"--data-dir={tmp_path / 'etcd'}", f"--listen-client-urls={url}", f"--advertise-client-urls={url}"]
    arguments += [f"--listen-peer-urls={peer_url}", f"--initial-advertise-peer-urls={peer_url}"]
    with (tmp_path / "etcd.log").open("wb") as log:
        etcd = subprocess.Popen([tool("etcd"), *arguments, f"--initial-cluster=default={peer_url}"], stderr=log)
    local.start()
    try:
        await local.wait_ready()
        async with asyncio.timeout(20):
            while not await _ready(port):
                await asyncio.sleep(0.05)
        (process,) = local.voters.values()
        yield process.port, port
    finally:
        etcd.kill()
        etcd.wait()
        local.kill()


async def _ready(port: int) -> bool:
    try:
        http = await Http.open(port)
    except OSError:
        return False
    try:
        return (await http.ask("GET", "/readyz"))[0] == 200
    finally:
        http.close()


async def test_the_same_bodies_are_taken_and_refused(ports: tuple[int, int]) -> None:
    ours, theirs = [await Http.open(port) for port in ports]
    for path, body in CALLS:
        got, wanted = [await http.ask("POST", path, body.encode("utf-8", "surrogatepass")) for http in (ours, theirs)]
        assert got[0] == wanted[0], (body[:200], got, wanted)
        if got[0] != 200:
            ours_says, etcd_says = json.loads(got[1]), json.loads(wanted[1])
            assert ours_says["code"] == etcd_says["code"], body[:200]
            if etcd_says["message"].startswith("etcdserver: "):
                assert ours_says["message"] == etcd_says["message"], body[:200]
    ours.close()
    theirs.close()


async def test_what_follows_the_object_is_refused_here_and_dropped_by_etcd(ports: tuple[int, int]) -> None:
    for body in (b'{"key":"YQ=="} garbage', b'{"key":"YQ=="}{"key":"YQ=="}'):
        statuses = []
        for port in ports:
            http = await Http.open(port)
            statuses.append((await http.ask("POST", "/v3/kv/range", body))[0])
            http.close()
        assert statuses == [400, 200]


async def test_the_same_paths(ports: tuple[int, int]) -> None:
    for method, path in PATHS:
        found = []
        for port in ports:
            http = await Http.open(port)
            http.send(method, path)
            found.append((await http.status(), http.headers.get("location")))
            http.close()
        assert found[0] == found[1], (method, path)
