"""Permissions against a real server with auth on: forbidden calls, and rights that are revoked meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from holdfast import client
from holdfast.proto import election_pb2, holdfast_pb2, lock_pb2, rpc_pb2
from holdfast_lab.processes import LocalCluster, Process, free_ports

from ..certificates import Authority
from .users import ask, change_password, connector, enable, grant_role, revoke_role, set_up

PUT = "/etcdserverpb.KV/Put"
TXN = "/etcdserverpb.KV/Txn"


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """One voter with users; auth is still off."""
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
                await nobody.connection._caller.call(
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


async def test_a_login_does_not_tell_users_apart(one: LocalCluster) -> None:
    async with client.connect(one.endpoints, timeout=20) as hf:
        await enable(hf)
    connect = connector(one)
    async with connect("root") as root, client.connect(one.endpoints, timeout=20) as nobody:
        bare = rpc_pb2.AuthUserAddRequest(name="bare")
        bare.options.no_password = True
        await ask(root, "UserAdd", bare)
        told = set()
        for user, password in (("eve", "no"), ("none", "no"), ("bare", "no"), ("bare", ""), ("", ""), ("none", "")):
            with pytest.raises(client.Refused) as refused:
                await nobody.connection.call(
                    "/etcdserverpb.Auth/Authenticate",
                    rpc_pb2.AuthenticateRequest(name=user, password=password),
                    rpc_pb2.AuthenticateResponse,
                    idempotent=True,
                )
            told.add((refused.value.code, str(refused.value)))
        assert len(told) == 1
        with pytest.raises(client.Refused, match="user name is empty"):
            await nobody.membership()


async def test_no_log_level_prints_what_is_secret(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path, voters=1, extra=["--bcrypt-cost=4", "--log-level=debug"])
    local.start()
    try:
        await set_up(local)
        (process,) = local.voters.values()
        async with client.connect(local.endpoints, timeout=20) as hf:
            await enable(hf)
        async with connector(local)("root") as root:
            await root.put("/k", "a value that is secret")
            await root.get("/k")
            await change_password(root, "eve", "a password that is secret")
            ((_, token),) = await root.connection.who()
        told = process.log.read_text()
        for secret in (token, token.partition(".")[0], "that is secret"):
            assert secret not in told
    finally:
        local.kill()


async def test_a_signed_token_ends_with_its_password(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k" * 32)
    options = f"--auth-token=jwt,sign-method=HS256,priv-key={tmp_path}/key"
    local = LocalCluster(tmp_path / "c", voters=1, extra=["--bcrypt-cost=4", options])
    local.start()
    try:
        await set_up(local)
        async with client.connect(local.endpoints, timeout=20) as hf:
            await enable(hf)
        connect = connector(local)
        async with connect("root") as root, client.connect(local.endpoints, timeout=20) as thief:
            stolen = await root.connection.who()
            add = rpc_pb2.AuthRoleAddRequest(name="x")
            await ask(root, "RoleAdd", add)
            await change_password(root, "root", "another")
            with pytest.raises(client.Refused, match="invalid auth token"):
                await thief.connection._caller.call(
                    "/etcdserverpb.Auth/RoleDelete",
                    rpc_pb2.AuthRoleDeleteRequest(role="x"),
                    rpc_pb2.AuthRoleDeleteResponse,
                    True,
                    5.0,
                    None,
                    None,
                    stolen,
                )
        async with client.connect(local.endpoints, timeout=20, user="root", password="another") as root:
            await ask(root, "RoleDelete", rpc_pb2.AuthRoleDeleteRequest(role="x"))
    finally:
        local.kill()


async def test_leases_are_kept_alive_longer_than_a_token_lasts(tmp_path: Path) -> None:
    """The stream ended with the token that had opened it; a watch does not, either."""
    (tmp_path / "key").write_bytes(b"k" * 32)
    options = f"--auth-token=jwt,sign-method=HS256,priv-key={tmp_path}/key,ttl=2s"
    local = LocalCluster(tmp_path / "c", voters=1, extra=["--bcrypt-cost=4", options])
    local.start()
    try:
        await set_up(local)
        async with client.connect(local.endpoints, timeout=20) as hf:
            await enable(hf)
        async with connector(local)("eve") as eve, client.connect(local.endpoints, timeout=20) as thief:
            lease = await eve.lease(600)
            await eve.put("/eve/l", "v", lease=lease)
            token = await eve.connection.who()
            channel = await thief.connection.ready(local.endpoints[0], 5)
            stream = channel.stream_stream(
                "/etcdserverpb.Lease/LeaseKeepAlive",
                request_serializer=rpc_pb2.LeaseKeepAliveRequest.SerializeToString,
                response_deserializer=rpc_pb2.LeaseKeepAliveResponse.FromString,
            )(metadata=token)

            async def keep_alive() -> int:
                await stream.write(rpc_pb2.LeaseKeepAliveRequest(ID=lease.id))
                answer = await stream.read()
                return 0 if answer is grpc.aio.EOF else answer.TTL

            assert await keep_alive() == 600
            get = channel.unary_unary("/etcdserverpb.KV/Range")
            async with asyncio.timeout(20):
                code = grpc.StatusCode.OK
                while code is grpc.StatusCode.OK:  # until the token has expired
                    call = get(rpc_pb2.RangeRequest(key=b"/eve/l").SerializeToString(), metadata=token)
                    code = await call.code()
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert await keep_alive() == 600
            async with connector(local)("root") as root:
                await change_password(root, "eve", "another")
            await stream.write(rpc_pb2.LeaseKeepAliveRequest(ID=lease.id))
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await stream.read()
            assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
    finally:
        local.kill()


class Following:
    """A Follow stream, by hand."""

    def __init__(self, hf: client.Client, who: tuple[tuple[str, str], ...], **start: str) -> None:
        self._hf = hf
        self._who = who
        self._start = holdfast_pb2.FollowStart(**start)  # type: ignore[arg-type]
        self._start.filter.add(key=b"/eve/", range_end=b"/eve0")
        self.events: list[bytes] = []

    async def __aenter__(self) -> Following:
        channel = await self._hf.connection.ready(self._hf.connection.endpoints[0], 5)
        self.call = channel.stream_stream(
            "/holdfast.v1.Edge/Follow",
            request_serializer=holdfast_pb2.FollowRequest.SerializeToString,
            response_deserializer=holdfast_pb2.FollowResponse.FromString,
        )(metadata=self._who)
        await self.call.write(holdfast_pb2.FollowRequest(start=self._start))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()

    async def until(self, kind: str) -> holdfast_pb2.FollowResponse:
        async with asyncio.timeout(10):
            while True:
                response: holdfast_pb2.FollowResponse = await self.call.read()
                if response is grpc.aio.EOF:
                    raise grpc.aio.AioRpcError(await self.call.code(), None, None, details=await self.call.details())
                self.events += [event.kv.value for event in response.revision.events]
                if response.WhichOneof("response") == kind:
                    return response

    async def refused(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ends."""
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await self.until("nothing")
        return ended.value.code(), ended.value.details() or ""


async def test_following_ends_when_the_right_to_read_does(one: LocalCluster) -> None:
    connect = connector(one)
    denied = (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
    async with connect("root") as root, connect("eve") as eve, client.connect(one.endpoints, timeout=20) as nobody:
        await root.put("/eve/1", "old")
        async with Following(nobody, ()) as early:
            assert not (await early.until("hello")).hello.users
            await early.until("trailer")
            await enable(root)
            # A caller without a user may not read any more.
            assert (await early.refused())[1] == "etcdserver: user name is empty"
        for end in ("role", "user", "password"):
            await eve.put("/eve/1", "seen")
            who = await eve.connection.who()
            async with Following(eve, who) as following:
                assert (await following.until("hello")).hello.users
                await following.until("trailer")
                if end == "role":
                    await revoke_role(root, "eve", "r")
                elif end == "user":
                    await ask(root, "UserDelete", rpc_pb2.AuthUserDeleteRequest(name="eve"))
                else:
                    await change_password(root, "eve", "pw")
                await root.put("/eve/1", "secret")
                expected = (
                    denied if end != "password" else (grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
                )
                assert await following.refused() == expected
                assert b"secret" not in following.events
            if end == "user":
                await ask(root, "UserAdd", rpc_pb2.AuthUserAddRequest(name="eve", password="pw"))
            if end != "password":
                await grant_role(root, "eve", "r")
        # A stream whose user keeps the right goes on, whatever else changes in users and roles.
        await eve.put("/eve/1", "seen")  # by another token
        who = await eve.connection.who()
        async with Following(eve, who) as following:
            await following.until("trailer")
            await grant_role(root, "mat", "r")
            await root.put("/eve/1", "still")
            await following.until("revision")
            assert following.events == [b"still"]


async def test_a_stream_reports_of_its_own_replica_only(one: LocalCluster) -> None:
    async with client.connect(one.endpoints, timeout=20) as hf:
        async with Following(hf, (), replica="mine", pool="p") as following:
            await following.until("trailer")
            for n in range(300):
                report = holdfast_pb2.ReplicaReport(replica=f"fake{n}", pool=f"other{n}", watermark=n + 1)
                await following.call.write(holdfast_pb2.FollowRequest(report=report))
            async with asyncio.timeout(10):
                while not (told := (await hf.describe()).replicas) or told[0].watermark < 300:
                    await asyncio.sleep(0.01)
            assert [(r.replica, r.pool) for r in told] == [("mine", "p")]
        async with asyncio.timeout(10):
            while not (told := (await hf.describe()).replicas)[0].offline_since:
                await asyncio.sleep(0.01)
        assert [(r.replica, r.pool, r.watermark) for r in told] == [("mine", "p", 300)]
        for bad in ("x" * 300, "a\nb"):
            async with Following(hf, (), replica=bad) as refused:
                assert (await refused.refused())[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_waits_and_streams_of_others_end_when_the_right_does(one: LocalCluster) -> None:
    """A snapshot, a lock and an observed election, which their callers might not read or wait for any more."""
    connect = connector(one)
    async with connect("root") as root, connect("eve") as eve:
        for n in range(60):
            await root.put(f"/big/{n}", b"x" * 1_000_000)
        await enable(root)
        await grant_role(root, "eve", "root")
        await root.put("/eve/l/0", "taken")
        who = await eve.connection.who()
        channel = await eve.connection.ready(one.endpoints[0], 5)
        snapshot = channel.unary_stream(
            "/etcdserverpb.Maintenance/Snapshot",
            request_serializer=rpc_pb2.SnapshotRequest.SerializeToString,
            response_deserializer=rpc_pb2.SnapshotResponse.FromString,
        )(rpc_pb2.SnapshotRequest(), metadata=who)
        await snapshot.read()
        lock = channel.unary_unary(
            "/v3lockpb.Lock/Lock",
            request_serializer=lock_pb2.LockRequest.SerializeToString,
            response_deserializer=lock_pb2.LockResponse.FromString,
        )(lock_pb2.LockRequest(name=b"/eve/l"), metadata=who)
        observed = channel.unary_stream(
            "/v3electionpb.Election/Observe",
            request_serializer=election_pb2.LeaderRequest.SerializeToString,
            response_deserializer=election_pb2.LeaderResponse.FromString,
        )(election_pb2.LeaderRequest(name=b"/eve/l"), metadata=who)
        assert (await observed.read()).kv.value == b"taken"
        async with asyncio.timeout(10):
            while (await root.range("/eve/l/", prefix=True)).count < 2:
                await asyncio.sleep(0.01)
        await revoke_role(root, "eve", "root")
        await revoke_role(root, "eve", "r")
        await root.put("/eve/l/0", "secret")
        for ended in (_to_the_end(snapshot), _to_the_end(observed), lock):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await asyncio.wait_for(ended, 20)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, refused.value.details()


async def _to_the_end(call: grpc.aio.UnaryStreamCall) -> None:
    """Read what comes; it holds nothing that was written after the right was taken away."""
    while (message := await call.read()) is not grpc.aio.EOF:
        assert b"secret" not in message.SerializeToString()
    raise grpc.aio.AioRpcError(await call.code(), None, None, details=await call.details())


async def test_a_replica_lends_its_certificate_to_nobody(tmp_path: Path) -> None:
    authority = Authority("one")
    authority.write_server(tmp_path)
    files = [f"--cert-file={tmp_path}/tls.crt", f"--key-file={tmp_path}/tls.key"]
    local = LocalCluster(
        tmp_path / "c",
        voters=1,
        extra=[*files, f"--trusted-ca-file={tmp_path}/ca.crt", "--client-cert-auth", "--bcrypt-cost=4"],
    )
    (process,) = local.voters.values()
    process.arguments = [
        a.replace("--listen-client-urls=http:", "--listen-client-urls=https:") for a in process.arguments
    ]
    tls = {name: _tls(authority, tmp_path / name, name) for name in ("root", "edge")}
    (port,) = free_ports(1)
    arguments = [
        "edge",
        f"--data-dir={tmp_path / 'e'}",
        f"--listen-client-urls=http://127.0.0.1:{port}",
        f"--endpoints={process.endpoint}",
        "--prefix=/eve/",
        f"--upstream-tls-dir={tmp_path / 'edge'}",
    ]
    edge = Process("edge", arguments, tmp_path / "edge.log", port)
    local.start()
    edge.start()
    try:
        async with (
            client.connect(local.endpoints, timeout=20, tls=tls["root"]) as root,
            client.connect(edge.endpoint, timeout=20) as nobody,
            client.connect(edge.endpoint, timeout=20, user="eve", password="pw") as eve,
        ):
            for name in ("root", "eve", "edge"):
                await ask(root, "UserAdd", rpc_pb2.AuthUserAddRequest(name=name, password="pw"))
                await grant_role(root, name, "root")
            await root.put("/eve/1", "1")
            async with asyncio.timeout(20):
                while await _read(nobody) != b"1":
                    await asyncio.sleep(0.02)
            second = await root.put("/eve/1", "1")
            watching = nobody.watch("/eve/1", start_revision=second.revision)
            assert (await anext(watching)).kv.value == b"1"
            await enable(root)
            # It follows again, by its certificate, and knows now that there are users.
            with pytest.raises(client.Refused, match="cannot tell what they may read"):
                async with asyncio.timeout(20):
                    await anext(watching)
            with pytest.raises(client.Refused, match="--anonymous-reads"):
                await nobody.get("/eve/1", serializable=True)
            async with asyncio.timeout(20):
                while not (await nobody.describe()).connected:
                    await asyncio.sleep(0.02)
            for attempt in (
                lambda: nobody.put("/eve/1", "evil"),
                lambda: nobody.get("/eve/1"),
                lambda: nobody.get("/other"),
                lambda: nobody.delete("/eve/1"),
                nobody.members,
                lambda: nobody.lease(10),
            ):
                with pytest.raises(client.Refused, match="user name is empty"):
                    await attempt()
            # With their own token, callers have their own rights.
            await eve.put("/eve/1", "2")
            found = await eve.get("/eve/1")
            assert found is not None
            assert found.value == b"2"
            await root.put("/eve/2", "3")
            await revoke_role(root, "edge", "root")
            await root.put("/eve/2", "secret")
            edge.stop()
            edge.arguments.append("--anonymous-reads")
            edge.start()
            assert await _read(nobody, "/eve/2") == b"3"
            assert await _read(nobody) == b"2"
    finally:
        edge.kill()
        local.kill()
        print(local.logs(), edge.tail(40), sep="\n")


async def _read(hf: client.Client, key: str = "/eve/1") -> bytes | None:
    try:
        found = await hf.get(key, serializable=True)
    except client.Unavailable:
        return None
    return None if found is None else found.value


def _tls(authority: Authority, directory: Path, name: str) -> client.Tls:
    """A client's files, as a Secret is mounted."""
    directory.mkdir()
    key, certificate = authority.client(name)
    (directory / "tls.key").write_bytes(key)
    (directory / "tls.crt").write_bytes(certificate)
    (directory / "ca.crt").write_bytes(authority.certificate)
    return client.Tls.from_directory(directory)


async def test_cache_leases_follow_the_right_to_read(one: LocalCluster, caplog: pytest.LogCaptureFixture) -> None:
    connect = connector(one)
    async with connect("root") as root, connect("eve") as eve, connect("mat") as mat:
        await enable(root)
        for user in (eve, mat):
            with pytest.raises(client.Refused, match="permission denied"):
                await user.allow_caching("/eve/")
        await root.allow_caching("/eve/")
        assert await mat.cachable() == [b"/eve/"]
        async with await eve.cache("/eve/", consistent=True) as cache, asyncio.timeout(30):
            while not cache.is_current:
                await cache.current()
            holder = await call_hold(mat, b"/eve/", b"/eve0")
            assert holder.code() is grpc.StatusCode.PERMISSION_DENIED
            holder = await call_hold(eve, b"/", b"0")
            assert holder.code() is grpc.StatusCode.PERMISSION_DENIED
            await revoke_role(root, "eve", "r")
            while cache.is_current:
                await asyncio.sleep(0.01)
            assert "permission denied" in caplog.text


async def call_hold(hf: client.Client, key: bytes, end: bytes) -> grpc.aio.AioRpcError:
    """Ask for a cache lease; returns the error."""
    (address,) = await hf.connection.order()
    request, response = holdfast_pb2.CacheHoldRequest, holdfast_pb2.CacheHoldResponse
    who = await hf.connection.who()
    stream = await hf.connection.stream(address, "/holdfast.v1.Caches/Hold", request, response, who)
    try:
        await stream.write(request(key=key, range_end=end, number=1))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stream.read()
        return failed.value
    finally:
        stream.cancel()
