"""Who may what, against a real server where users count: what others tried, and what happens when rights go away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from holdfast import client
from holdfast.cli.processes import LocalCluster
from holdfast.proto import rpc_pb2

from .users import connector, enable, set_up

PUT = "/etcdserverpb.KV/Put"
TXN = "/etcdserverpb.KV/Txn"


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """One voter with users, which do not count yet."""
    local = LocalCluster(tmp_path, voters=1, extra=["--bcrypt-cost=4"])
    local.start()
    try:
        await set_up(local)
        yield local
    finally:
        local.kill()
        print(local.logs())


def name(session: int, seq: int) -> tuple[tuple[str, str], ...]:
    return (("holdfast-session", str(session)), ("holdfast-seq", str(seq)), ("holdfast-low", "1"))


async def index(hf: client.Client) -> int:
    return (await hf.status()).raftIndex


async def test_a_session_of_another_user(one: LocalCluster) -> None:
    connect = connector(one)
    async with connect("root") as root, connect("eve") as eve:
        await enable(root)
        await root.put("/other", "first")
        await root.put("/other", "second", previous=True)
        assert root._session._lease is not None
        session = root._session._lease.id
        for seq in (2, 3):
            request = rpc_pb2.PutRequest(key=b"/eve/1", value=b"x")
            with pytest.raises(client.Refused, match="belongs to another user") as refused:
                await eve.connection.call(PUT, request, rpc_pb2.PutResponse, idempotent=False, name=name(session, seq))
            assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
        assert await eve.get("/eve/1") is None
        done = await root.put("/third", "3")
        assert (await root.get("/third")) is not None
        # A client whose session is not its own opens another one, and goes on.
        await eve.put("/eve/1", "1")
        assert eve._session._lease is not None
        eve._session._lease.id = session
        assert (await eve.put("/eve/1", "2")).revision > done.revision
        assert eve._session._lease is not None
        assert eve._session._lease.id != session


async def test_nobody_in_particular_writes_no_log(one: LocalCluster) -> None:
    connect = connector(one)
    async with connect("root") as root, client.connect(one.endpoints, timeout=20) as nobody:
        await enable(root)
        nested = rpc_pb2.TxnRequest()
        nested.success.add().request_txn.SetInParent()
        await root.put("/k", "v")
        before = await index(root)
        for request in (rpc_pb2.TxnRequest(), nested):
            for _ in range(5):
                await nobody.connection.call(TXN, request, rpc_pb2.TxnResponse, idempotent=True)
        with pytest.raises(client.Refused, match="user name is empty"):
            await nobody.put("/k", "w")
        assert await index(root) == before


async def test_only_what_can_be_kept_can_be_named(one: LocalCluster) -> None:
    async with client.connect(one.endpoints, timeout=20) as hf:
        await hf.put("/k", "v")
        assert hf._session._lease is not None
        session = hf._session._lease.id
        for _ in range(2):
            with pytest.raises(client.Refused, match="can be a session's command"):
                await hf.connection.call(
                    "/etcdserverpb.Auth/RoleAdd",
                    rpc_pb2.AuthRoleAddRequest(name="x"),
                    rpc_pb2.AuthRoleAddResponse,
                    idempotent=False,
                    name=name(session, 9),
                )
        await hf.put("/k", "w")


async def test_a_token_of_an_index_that_is_never_reached_is_answered_at_once(one: LocalCluster) -> None:
    connect = connector(one)
    async with connect("root") as root, client.connect(one.endpoints, timeout=20) as nobody:
        await enable(root)
        await root.put("/k", "v")
        applied = (await root.status()).raftAppliedIndex
        for far in (applied + 100, 10**12 - 1, 10**18):
            request = rpc_pb2.RangeRequest(key=b"/k", serializable=True)
            with pytest.raises(client.Refused, match="invalid auth token") as refused:
                await nobody.connection._call(
                    "/etcdserverpb.KV/Range",
                    request,
                    rpc_pb2.RangeResponse,
                    True,
                    5.0,
                    None,
                    None,
                    (("token", f"x.{far}"),),
                )
            assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
        async for answer in _watching(nobody, f"x.{applied + 100}"):
            assert answer.canceled
            assert "invalid auth token" in answer.cancel_reason
            break


async def _watching(hf: client.Client, token: str) -> AsyncIterator[rpc_pb2.WatchResponse]:
    """The answers to a watch that is asked for with this token."""
    channel = await hf.connection.ready(hf.connection.endpoints[0], 5)
    call = channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=rpc_pb2.WatchRequest.SerializeToString,
        response_deserializer=rpc_pb2.WatchResponse.FromString,
    )(metadata=(("token", token),), timeout=10)
    create = rpc_pb2.WatchCreateRequest(key=b"/eve/", range_end=b"/eve0")
    await call.write(rpc_pb2.WatchRequest(create_request=create))
    async for answer in call:
        yield answer
