"""Browsers: what --cors and --host-whitelist let through, and that etcd's answers are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from holdfast_lab.processes import LocalCluster

from .test_gateway import Http, b64

pytestmark = pytest.mark.integration

ORIGIN = "access-control-allow-origin"


async def test_only_listed_origins_and_hosts(tmp_path: Path) -> None:
    local = LocalCluster(
        tmp_path, voters=1, extra=["--cors=https://ui.example,https://b.example", "--host-whitelist=h,127.0.0.1"]
    )
    local.start()
    try:
        await local.wait_ready()
        (server,) = local.voters.values()
        http = await Http.open(server.port)
        put = b'{"key": "%s", "value": "MQ=="}' % b64("a").encode()

        async def ask(method: str, path: str, body: bytes = b"", **headers: str) -> int:
            status, answer = await http.ask(method, path, body, **headers)
            assert status == 200 or answer
            return status

        plain = {"content-type": "text/plain"}
        assert await ask("POST", "/v3/kv/put", put) == 200
        assert ORIGIN not in http.headers
        assert await ask("POST", "/v3/kv/put", put, **plain) == 200  # not from a browser: as etcd
        for origin in ("https://evil.example", "null", "http://ui.example", "https://ui.example:8443", ""):
            assert await ask("POST", "/v3/kv/put", put, **plain, origin=origin) == 403
            assert await ask("GET", "/version", origin=origin) == 403
            assert ORIGIN not in http.headers
            assert await ask("OPTIONS", "/v3/kv/put", origin=origin) == 200
            assert ORIGIN not in http.headers
        assert (await http.post("/v3/kv/range", key=b64("a")))["kvs"][0]["version"] == "2"  # no more were done
        for method, path in (("POST", "/v3/kv/put"), ("GET", "/version"), ("OPTIONS", "/v3/kv/put")):
            assert await ask(method, path, put, origin="https://ui.example") == 200
            assert http.headers[ORIGIN] == "https://ui.example"
            assert http.headers["vary"] == "origin"
        http.send("GET", "/version", host="rebound.example")  # two hosts in one head
        assert await http.status() == 400
        http.close()
        for host, status in (("rebound.example", 421), ("rebound.example:2379", 421), ("h:2379", 200), ("h", 200)):
            http = await Http.open(server.port)
            http._writer.write(f"GET /version HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
            assert await http.status() == status
            assert (b"CVE-2018-5702" in await http.body()) == (status == 421)
            http.close()
    finally:
        local.kill()


async def test_any_origin_by_default(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path, voters=1)
    local.start()
    try:
        await local.wait_ready()
        (server,) = local.voters.values()
        http = await Http.open(server.port)
        with_and_without: list[dict[str, Any]] = [{}, {"origin": "https://any.example"}]
        for headers in with_and_without:
            for method, path in (("GET", "/version"), ("OPTIONS", "/v3/kv/put"), ("GET", "/none"), ("POST", "/v3/x")):
                await http.ask(method, path, **headers)
                assert http.headers[ORIGIN] == "*"
        http.close()
    finally:
        local.kill()
