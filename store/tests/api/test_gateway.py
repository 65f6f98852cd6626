"""JSON over HTTP against a real server of one member: paths, encodings, streams, errors, probes, metrics, logs."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from holdfast_lab.processes import LocalCluster, Process

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Process]:
    local = LocalCluster(tmp_path, voters=1, extra=["--log-format=json", "--warning-unary-request-duration=1ms"])
    local.start()
    try:
        await local.wait_ready()
        (process,) = local.voters.values()
        yield process
    finally:
        local.kill()


class Http:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.headers: dict[str, str] = {}

    @classmethod
    async def open(cls, port: int) -> Http:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {len(body)}\r\n{more}\r\n"
        self._writer.write(head.encode("latin-1") + body)

    async def status(self) -> int:
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 20)).decode()
        first, *rest = head.strip().split("\r\n")
        self.headers = dict(line.lower().split(": ", 1) for line in rest)
        return int(first.split()[1])

    async def body(self) -> bytes:
        if "content-length" not in self.headers:
            whole = b""
            while size := int(await self._reader.readline(), 16):
                whole += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readline()
            return whole
        return await self._reader.readexactly(int(self.headers["content-length"]))

    async def chunk(self) -> Any:
        """The next object of a stream."""
        size = int(await asyncio.wait_for(self._reader.readline(), 20), 16)
        data = await self._reader.readexactly(size + 2)
        return json.loads(data) if size else None

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        self.send(method, path, body, **headers)
        return await self.status(), await self.body()

    async def post(self, path: str, **fields: Any) -> Any:
        status, body = await self.ask("POST", path, json.dumps(fields).encode())
        assert status == 200, body
        return json.loads(body)

    def close(self) -> None:
        self._writer.close()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_what_the_gateway_does(server: Process) -> None:
    http = await Http.open(server.port)
    put = await http.post("/v3/kv/put", key=b64("a"), value=b64("x"), unknown_field=1)
    assert put["header"]["revision"] == "2"  # 64-bit numbers are strings
    got = await http.post("/v3/kv/range", key=b64("a"))
    assert got["kvs"] == [
        {"key": b64("a"), "create_revision": "2", "mod_revision": "2", "version": "1", "value": b64("x")}
    ]
    assert (await http.post("/v3beta/kv/range", key=b64("a")))["count"] == "1"
    txn = await http.post(
        "/v3/kv/txn",
        compare=[{"key": b64("a"), "target": "VERSION", "version": "1"}],
        success=[{"request_put": {"key": b64("a"), "value": b64("y")}}],
    )
    assert txn["succeeded"] is True
    lease = await http.post("/v3/lease/grant", TTL=60, ID="0")
    assert lease["TTL"] == "60"
    assert (await http.post("/v3/lease/timetolive", ID=lease["ID"]))["grantedTTL"] == "60"
    assert (await http.post("/v3/cluster/member/list"))["members"][0]["name"] == "m1"
    assert (await http.post("/v3/maintenance/status"))["version"].startswith("3.6.")
    await http.post("/v3/kv/deleterange", key=b64("a"))
    assert (await http.post("/v3/lock/lock", name=b64("l"), lease=lease["ID"]))["key"].startswith(b64("l/")[:2])
    await http.post("/v3/auth/role/add", name="r")
    assert (await http.post("/v3/auth/role/list"))["roles"] == ["r"]
    http.close()


async def test_streams(server: Process) -> None:
    http, watching = await Http.open(server.port), await Http.open(server.port)
    create = {"create_request": {"key": b64("w"), "progress_notify": True}}
    watching.send("POST", "/v3/watch", json.dumps(create).encode())
    assert await watching.status() == 200
    assert (await watching.chunk())["result"]["created"] is True
    for value in ("1", "2"):
        await http.post("/v3/kv/put", key=b64("w"), value=b64(value))
        event = (await watching.chunk())["result"]["events"][0]
        assert event["kv"]["value"] == b64(value)
    watching.close()
    lease = (await http.post("/v3/lease/grant", TTL=60))["ID"]
    http.send("POST", "/v3/lease/keepalive", json.dumps({"ID": lease}).encode())
    assert await http.status() == 200
    assert (await http.chunk())["result"]["TTL"] == "60"
    assert await http.chunk() is None  # the request's end ends it
    http.close()


async def test_errors(server: Process) -> None:
    http = await Http.open(server.port)
    for method, path, body, status, code, text in [
        ("POST", "/v3/kv/put", b"{}", 400, 3, "etcdserver: key is not provided"),
        ("POST", "/v3/lease/revoke", b'{"ID": 5}', 404, 5, "etcdserver: requested lease not found"),
        ("POST", "/v3/kv/range", b"{", 400, 3, "json: "),
        ("POST", "/v3/kv/range", b'{"key": 5}', 400, 3, "json: "),
        ("POST", "/v3/nothing", b"{}", 404, 5, "Not Found"),
        ("GET", "/v3/kv/range", b"", 405, 12, "Method Not Allowed"),
        ("POST", "/v3/watch", b"", 400, 3, "the body holds no request"),
        ("POST", "/v3/watch", b"[1]", 400, 3, "the body is not a sequence of JSON objects"),
    ]:
        got, answer = await http.ask(method, path, body)
        error = json.loads(answer)
        assert (got, error["code"]) == (status, code), answer
        assert error["message"].startswith(text)
    http.close()
    http = await Http.open(server.port)
    for timeout in ("2", "xS", "\xb2S", "9" * 9 + "S", "9" * 5000 + "S"):
        got, answer = await http.ask("POST", "/v3/kv/range", b'{"key": "YQ=="}', **{"grpc-timeout": timeout})
        assert (got, json.loads(answer)["code"]) == (400, 3)
        assert json.loads(answer)["message"].startswith("invalid grpc-timeout: ")
    got, answer = await http.ask("POST", "/v3/kv/range", b'{"key": "YQ=="}', **{"grpc-timeout": "5S"})
    assert got == 200, answer
    http.close()
    http = await Http.open(server.port)  # what is refused before its end is the last on its connection
    status, answer = await http.ask("OPTIONS", "/v3/kv/range")
    assert (status, answer) == (200, b"")
    assert http.headers["access-control-allow-origin"] == "*"
    http.close()


async def test_a_deadline_ends_a_stream(server: Process) -> None:
    http = await Http.open(server.port)
    create = {"create_request": {"key": b64("w")}}
    http.send("POST", "/v3/watch", json.dumps(create).encode(), **{"grpc-timeout": "200m"})
    assert await http.status() == 200
    assert (await http.chunk())["result"]["created"] is True
    assert (await http.chunk())["error"]["code"] == 4
    assert await http.chunk() is None
    assert "etcd_debugging_mvcc_watcher_total 0.0" in (await http.ask("GET", "/metrics"))[1].decode()
    http.close()


async def test_a_stream_that_sends_something_wrong_is_ended(server: Process) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    create = json.dumps({"create_request": {"key": b64("w")}}).encode()
    writer.write(b"POST /v3/watch HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
    writer.write(b"%x\r\n%s\r\n" % (len(create), create))
    async with asyncio.timeout(20):
        await reader.readuntil(b"created")
        writer.write(b"14\r\n" + b'{"create_request":5}' + b"\r\n")
        assert b'{"error":{"code": 3,' in await reader.read()
    writer.close()
    http = await Http.open(server.port)
    assert "etcd_debugging_mvcc_watcher_total 0.0" in (await http.ask("GET", "/metrics"))[1].decode()
    http.close()


async def test_a_stream_of_small_pieces_is_read_once(server: Process) -> None:
    """Each byte of a body is looked at once, however it is cut: 400 kB and then one byte at a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    begin = b'{"create_request":{"key":"dw=="},"x":[' + b"1," * 20_000
    writer.write(b"POST /v3/watch HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
    writer.write(b"%x\r\n%s\r\n" % (len(begin), begin) + b"1\r\n1\r\n1\r\n,\r\n" * 4000 + b"3\r\n1]}\r\n")
    assert b"created" in await asyncio.wait_for(reader.readuntil(b"created"), 20)
    writer.close()


async def test_heads_and_paths_that_are_odd(server: Process) -> None:
    http = await Http.open(server.port)
    for path in ("/metrics", "/version", "/livez", "/none", "/v3/kv/range"):
        http.send("HEAD", path)
        status = await http.status()
        assert status == {"/none": 404, "/v3/kv/range": 405}.get(path, 200)
        assert int(http.headers["content-length"]) > 0  # and no body, or the next answer would not be understood
    for path, location in (
        ("//v3/kv/put", "/v3/kv/put"),
        ("/v3//watch?a=b", "/v3/watch?a=b"),
        ("/v3/../v3/kv/./put", "/v3/kv/put"),
        ("//[", "/%5B"),
        ("//\\example.com/", "/%5Cexample.com/"),
    ):
        assert await http.ask("POST", path) == (307, b"")
        assert http.headers["location"] == location.lower()  # as all headers are here
    for path in ("[", "http://[", "/[", "http://["):
        assert (await http.ask("GET", path))[0] == 404
    assert (await http.ask("GET", "http://h/version"))[0] == 200
    http.close()


@pytest_asyncio.fixture
async def roomy(tmp_path: Path) -> AsyncIterator[Process]:
    local = LocalCluster(tmp_path, voters=1, extra=["--max-request-bytes=10485760"])
    local.start()
    try:
        await local.wait_ready()
        (process,) = local.voters.values()
        yield process
    finally:
        local.kill()


async def test_bodies_are_bounded_by_the_largest_request_and_refused_readably(roomy: Process) -> None:
    def put(size: int) -> bytes:
        value = base64.b64encode(bytes(size)).decode()
        return json.dumps({"key": b64("a"), "value": value}).encode()

    for size, status, code in ((4 << 20, 200, 0), (10_485_000, 200, 0), (10_485_760, 400, 3), (12 << 20, 429, 8)):
        http = await Http.open(roomy.port)
        got, answer = await http.ask("POST", "/v3/kv/put", put(size))
        assert (got, json.loads(answer).get("code", 0)) == (status, code), answer
        http.close()
    for expect in ({}, {"expect": "100-continue"}):
        http = await Http.open(roomy.port)
        http.send("POST", "/v3/kv/put", put(30 << 20), **expect)  # more than is taken: all is sent, then it is read
        got = await http.status()
        while got == 100:
            got = await http.status()
        assert (got, json.loads(await http.body())["code"]) == (429, 8)
        assert http.headers["connection"] == "close"
        http.close()


async def test_pages(server: Process) -> None:
    http = await Http.open(server.port)
    assert json.loads((await http.ask("GET", "/health"))[1]) == {"health": "true", "reason": ""}
    version = json.loads((await http.ask("GET", "/version"))[1])
    assert all(part.isdigit() for name in ("etcdserver", "etcdcluster", "storage") for part in version[name].split("."))
    for path in ("/livez", "/readyz", "/readyz/linearizable_read", "/readyz/data_corruption", "/livez/loop"):
        assert await http.ask("GET", path) == (200, b"ok\n"), path
    status, body = await http.ask("GET", "/readyz?verbose&exclude=caught_up")
    assert b"[+]data_corruption ok" in body
    assert b"caught_up" not in body
    await http.post("/v3/maintenance/alarm", action="ACTIVATE", memberID=7, alarm="NOSPACE")
    status, body = await http.ask("GET", "/health")
    assert (status, json.loads(body)["reason"]) == (503, "ALARM NOSPACE")
    assert (await http.ask("GET", "/health?exclude=NOSPACE"))[0] == 200
    await http.post("/v3/maintenance/alarm", action="ACTIVATE", memberID=7, alarm="CORRUPT")
    status, body = await http.ask("GET", "/readyz")
    assert status == 503
    assert b"[-]data_corruption failed: alarm activated: CORRUPT" in body
    assert (await http.ask("GET", "/none"))[0] == 404
    assert (await http.ask("GET", "/debug/vars"))[0] == 404
    http.close()


async def test_metrics_have_etcds_names(server: Process) -> None:
    http = await Http.open(server.port)
    await http.post("/v3/kv/put", key=b64("a"), value=b64("x"))
    text = (await http.ask("GET", "/metrics"))[1].decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for name in (
        "etcd_server_has_leader",
        "etcd_server_is_leader",
        "etcd_server_leader_changes_seen_total",
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_server_proposals_pending",
        "etcd_server_quota_backend_bytes",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_server_slow_read_indexes_total",
        "etcd_server_range_duration_seconds_count",
        "etcd_mvcc_hash_duration_seconds_count",
        'holdfast_memory_bytes{part="log"}',
        'holdfast_memory_bytes{part="allocated"}',
        "etcd_mvcc_put_total",
        "etcd_debugging_mvcc_keys_total",
        "etcd_debugging_mvcc_watcher_total",
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_backend_commit_duration_seconds_sum",
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"}',
        "process_resident_memory_bytes",
        "process_open_fds",
        "os_fd_limit",
        'etcd_server_version{server_version="3.6.16"}',
        'grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}',
    ):
        assert name in values, name
    assert values["etcd_server_has_leader"] == "1.0"
    assert values["etcd_mvcc_put_total"] == "1.0"
    assert "grpc_server_handling_seconds" not in text
    http.close()


async def test_what_is_told_only_if_it_was_asked_for(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path, voters=1, extra=["--metrics=extensive", "--enable-pprof"])
    local.start()
    try:
        await local.wait_ready()
        (process,) = local.voters.values()
        http = await Http.open(process.port)
        await http.post("/v3/kv/put", key=b64("a"), value=b64("x"))
        _, metrics = await http.ask("GET", "/metrics")
        put = b'grpc_server_handling_seconds_bucket{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary",'
        assert put + b'le="+Inf"} 1.0' in metrics
        status, body = await http.ask("GET", "/debug/pprof/")
        assert (status, b"/debug/pprof/profile" in body) == (200, True)
        status, body = await http.ask("GET", "/debug/vars")
        assert json.loads(body)["raft.status"]["term"] >= 1
        status, body = await http.ask("GET", "/debug/pprof/goroutine")
        assert b"thread MainThread:" in body
        assert b"task " in body
        status, body = await http.ask("GET", "/debug/pprof/heap")
        assert b"holdfast.raft.log.Entry" in body or b"builtins.dict" in body
        status, body = await http.ask("GET", "/debug/pprof/profile?seconds=0.3")
        assert status == 200
        stack, count = body.decode().splitlines()[0].rsplit(" ", 1)
        assert "holdfast.process.run_until_signal" in stack
        assert int(count) > 0
        for seconds in ("x", "0", "-1", "nan", "1e9"):
            assert (await http.ask("GET", f"/debug/pprof/profile?seconds={seconds}"))[0] == 400
        http.close()
    finally:
        local.kill()


async def test_metrics_of_the_way_to_other_members(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path)
    local.start()
    try:
        await local.wait_ready()
        (process, *_) = local.voters.values()
        http = await Http.open(process.port)

        async def read() -> list[tuple[str, str, str]]:
            text = (await http.ask("GET", "/metrics"))[1].decode()
            name = "etcd_network_peer_round_trip_time_seconds"
            return re.findall(rf'^{name}_(count|sum){{To="(\w+)"}} (\S+)$', text, re.MULTILINE)

        async with asyncio.timeout(20):
            while len(before := await read()) < 4:  # until it is connected to both
                pass
        after = await read()
        for (kind, peer, value), (_, _, then) in zip(before, after, strict=True):
            if kind == "count":
                assert float(then) == float(value) + 1, peer
            else:
                assert 0 < float(value) < float(then) < 10, peer
        http.close()
    finally:
        local.kill()


async def test_a_slow_request_is_one_line_of_json(server: Process) -> None:
    http = await Http.open(server.port)
    for _ in range(20):
        await http.post("/v3/kv/put", key=b64("a"), value=b64("x" * 100_000))
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    slow = [line for line in lines if line["msg"].startswith("slow request: /etcdserverpb.KV/Put took")]
    assert slow
    assert slow[0]["level"] == "warning"
    assert slow[0]["member"] == "m1"
    assert "ms until applied here" in slow[0]["msg"]
    assert re.search(r", request [0-9a-f]+\.\d+\.\d+$", slow[0]["msg"])  # its name in the logs of all members
    http.close()
