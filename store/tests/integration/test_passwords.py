"""Our client and command line while auth is on: they log in, and log in again when their token is void."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from holdfast import client
from holdfast.proto import auth_pb2, rpc_pb2
from holdfast_lab.processes import LocalCluster

AUTH = "/etcdserverpb.Auth/"


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """Three members that know root (secret) and eve (pw), who may read and write /eve/; auth is off."""
    local = LocalCluster(tmp_path, extra=["--bcrypt-cost=4"])
    local.start()
    try:
        await local.wait_ready()
        async with client.connect(local.endpoints, timeout=20) as hf:
            for name, password in (("root", "secret"), ("eve", "pw")):
                user = rpc_pb2.AuthUserAddRequest(name=name, password=password)
                await ask(hf, "UserAdd", user, rpc_pb2.AuthUserAddResponse)
            await grant_role(hf, "root", "root")
            await ask(hf, "RoleAdd", rpc_pb2.AuthRoleAddRequest(name="r"), rpc_pb2.AuthRoleAddResponse)
            mine = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=b"/eve/", range_end=b"/eve0")
            permission = rpc_pb2.AuthRoleGrantPermissionRequest(name="r", perm=mine)
            await ask(hf, "RoleGrantPermission", permission, rpc_pb2.AuthRoleGrantPermissionResponse)
            await grant_role(hf, "eve", "r")
        yield local
    finally:
        local.kill()


async def ask(hf: client.Client, method: str, request: object, response: type) -> None:
    await hf.connection.call(AUTH + method, request, response, idempotent=True)  # type: ignore[arg-type]


async def grant_role(hf: client.Client, user: str, role: str) -> None:
    request = rpc_pb2.AuthUserGrantRoleRequest(user=user, role=role)
    await ask(hf, "UserGrantRole", request, rpc_pb2.AuthUserGrantRoleResponse)


async def enable(hf: client.Client) -> None:
    await ask(hf, "AuthEnable", rpc_pb2.AuthEnableRequest(), rpc_pb2.AuthEnableResponse)


async def test_a_client_with_a_password(cluster: LocalCluster) -> None:
    def connect(user: str, password: str) -> client.Client:
        return client.connect(cluster.endpoints, timeout=20, user=user, password=password)

    async with connect("root", "secret") as root, connect("eve", "pw") as eve:
        await root.put("/before", "1")  # auth is off: no token is sent
        await eve.put("/eve/1", "0")
        watching = eve.watch("/eve/", prefix=True, start_revision=1)
        assert (await anext(watching)).kv.value == b"0"
        await enable(root)
        await root.put("/after", "1")  # auth is on: the same client logs in
        await eve.put("/eve/1", "1")
        assert (await anext(watching)).kv.value == b"1"
        lease = await eve.lease(2)
        await eve.put("/eve/lease", "1", lease=lease)
        with pytest.raises(client.Refused, match="permission denied"):
            await eve.get("/after")
        # Whatever is done to users makes tokens void.
        await grant_role(root, "root", "r")
        await eve.put("/eve/2", "2")
        assert [(await anext(watching)).kv.key for _ in range(2)] == [b"/eve/lease", b"/eve/2"]
        # Members know the tokens they have seen given out since they started.
        for process in cluster.voters.values():
            process.kill()
            process.start()
        await eve.put("/eve/3", "3")
        assert (await anext(watching)).kv.key == b"/eve/3"
        await asyncio.sleep(3)  # longer than the lease lives by itself
        assert lease.alive
        assert await eve.get("/eve/lease") is not None
        assert [blob async for blob in root.snapshot()]
    async with connect("eve", "wrong") as wrong:
        with pytest.raises(client.Refused, match="authentication failed") as refused:
            await wrong.get("/eve/1")
        assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    async with client.connect(cluster.endpoints, timeout=20) as nobody:
        with pytest.raises(client.Refused, match="user name is empty"):
            await nobody.get("/eve/1")
    with client.connect_blocking(cluster.endpoints, user="eve", password="pw") as blocking:
        assert [kv.value for kv in blocking.range("/eve/1").kvs] == [b"1"]
    with pytest.raises(ValueError, match="without a user"):
        client.connect(cluster.endpoints, password="pw")


async def test_the_command_line_with_a_password(cluster: LocalCluster) -> None:
    async with client.connect(cluster.endpoints, timeout=20) as hf:
        await enable(hf)

    def holdfast(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "holdfast", *words, "--endpoints", ",".join(cluster.endpoints)],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    assert holdfast("put", "/eve/1", "x", "--user", "eve", HOLDFAST_PASSWORD="pw").stdout.startswith("OK")
    assert holdfast("get", "/eve/1", "-o", "simple", "--user", "eve:pw").stdout == "/eve/1\nx\n"
    told = holdfast("get", "/eve/1", HOLDFAST_USER="root", HOLDFAST_PASSWORD="secret", NO_COLOR="1")
    assert told.returncode == 0, told.stderr
    for words, password, code, why in (
        (["get", "/other", "--user", "eve"], "pw", 1, "permission denied"),
        (["get", "/eve/1", "--user", "eve"], "wrong", 1, "authentication failed"),
        (["get", "/eve/1", "--user", "eve"], None, 2, "set HOLDFAST_PASSWORD"),
        (["get", "/eve/1"], None, 1, "user name is empty"),
    ):
        done = holdfast(*words, **({} if password is None else {"HOLDFAST_PASSWORD": password}))
        assert (done.returncode, why in done.stderr) == (code, True), done.stderr
        assert len(done.stderr.splitlines()) <= 2
