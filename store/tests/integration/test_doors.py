"""Who may do what on the client port while auth is on: the anonymous, the operator, certificates with several names."""

from __future__ import annotations

import asyncio
import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import pytest
import pytest_asyncio
from holdfast import client
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast_lab.processes import LocalCluster, Process, free_ports

from ..certificates import Authority
from .users import ask, connector, enable, grant_role, set_up

OPERATOR = "holdfast://shop/operator"
FOLLOW = "/holdfast.v1.Edge/Follow"


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """One voter with users; auth is on. A login costs what it costs in production."""
    local = LocalCluster(tmp_path, voters=1)
    local.start()
    try:
        await set_up(local)
        async with connector(local)("root") as root:
            await enable(root)
        yield local
    finally:
        local.kill()
        print(local.logs())


def channel(endpoint: str) -> grpc.aio.Channel:
    """A connection of its own."""
    return grpc.aio.insecure_channel(endpoint, options=[("grpc.use_local_subchannel_pool", 1)])


def post(endpoint: str, tls: client.Tls) -> tuple[int, str]:
    """Read a key by JSON, over a connection with this certificate."""
    assert tls.certificate is not None
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.load_cert_chain(tls.certificate, tls.key)
    request = Request(f"https://{endpoint}/v3/kv/range", json.dumps({"key": "aw=="}).encode())
    try:
        with urlopen(request, context=context) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def started(endpoint: str) -> bool:
    """Whether a Follow stream has been opened."""
    with urlopen(f"http://{endpoint}/metrics") as page:
        lines = page.read().decode().splitlines()
    counts = [line for line in lines if line.startswith("grpc_server_started_total") and '"Follow"' in line]
    return any(not line.endswith(" 0") for line in counts)


class Flood:
    """300 wrong logins at once on a connection of its own; `refused` is set once that is more than its share."""

    def __init__(self, at: grpc.aio.Channel) -> None:
        self._at = at
        self.checked = 0
        self.refused = asyncio.Event()
        self.all = [asyncio.ensure_future(self._try()) for _ in range(300)]

    async def _try(self) -> None:
        try:
            await login(self._at, "wrong")
        except grpc.aio.AioRpcError as error:
            self.checked += "authentication failed" in str(error.details())
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.refused.set()


def login(at: grpc.aio.Channel, password: str) -> grpc.aio.UnaryUnaryCall:
    call = at.unary_unary("/etcdserverpb.Auth/Authenticate")
    return call(rpc_pb2.AuthenticateRequest(name="root", password=password).SerializeToString(), timeout=60)


async def test_wrong_passwords_of_one_connection_delay_other_logins_by_their_turn_only(one: LocalCluster) -> None:
    async with channel(one.endpoints[0]) as attacker, channel(one.endpoints[0]) as polite:
        flood = Flood(attacker)
        await asyncio.wait_for(flood.refused.wait(), 30)  # so its whole share is waiting
        for _ in range(3):
            before = flood.checked
            assert await login(polite, "secret")
            assert flood.checked - before <= 6  # two in the threads, one turn, and answers on their way
        await asyncio.gather(*flood.all)
        assert flood.checked >= 64


@pytest.mark.timeout(120)
async def test_clients_of_a_replica_take_turns_for_logins_too(tmp_path: Path) -> None:
    """To the member they are all one connection."""
    secure = Secure(tmp_path)
    (port,) = free_ports(1)
    secure.files("edge", place=tmp_path / "edge")
    arguments = [
        "edge",
        f"--data-dir={tmp_path / 'e'}",
        f"--listen-client-urls=http://127.0.0.1:{port}",
        f"--endpoints={secure.local.endpoints[0]}",
        "--prefix=/k",
        f"--upstream-tls-dir={tmp_path / 'edge'}",
    ]
    edge = Process("edge", arguments, tmp_path / "edge.log", port)
    secure.local.start()
    edge.start()
    try:
        async with secure.connect("root") as root, client.connect(edge.endpoint, timeout=20) as nobody:
            for name in ("root", "edge"):
                await ask(root, "UserAdd", rpc_pb2.AuthUserAddRequest(name=name, password="secret"))
                await grant_role(root, name, "root")
            await enable(root)
            async with asyncio.timeout(30):
                while not (await nobody.describe()).connected:
                    await asyncio.sleep(0.02)
        async with channel(edge.endpoint) as attacker, channel(edge.endpoint) as polite:
            flood = Flood(attacker)
            await asyncio.wait_for(flood.refused.wait(), 30)
            for _ in range(3):
                before = flood.checked
                assert await login(polite, "secret")
                assert flood.checked - before <= 20  # those that had been forwarded, one turn, and answers on their way
            await asyncio.gather(*flood.all)
            assert flood.checked >= 64
    finally:
        edge.kill()
        secure.local.kill()
        print(secure.local.logs(), edge.tail(40))


async def test_strangers_learn_nothing_while_auth_is_on(one: LocalCluster) -> None:
    connect = connector(one)
    async with client.connect(one.endpoints, timeout=20) as nobody, connect("mat") as mat, connect("root") as root:
        told = await root.describe()
        assert (await mat.describe()).cluster_id == told.cluster_id
        for attempt in (
            nobody.describe,
            lambda: nobody.form(told.cluster_id, 1),
            lambda: nobody.open_for_clients(1),
        ):
            with pytest.raises(client.Refused, match="user name is empty") as refused:
                await attempt()
            assert f"{told.cluster_id:x}" not in str(refused.value)
        with pytest.raises(client.Refused, match="permission denied"):
            await mat.open_for_clients(1)
        with pytest.raises(client.Refused, match="belongs to"):
            await root.open_for_clients(1)


async def test_a_stream_of_a_stranger_is_not_kept_and_not_answered(one: LocalCluster) -> None:
    connect = connector(one)
    async with connect("mat") as mat, channel(one.endpoints[0]) as at:
        follow = at.stream_stream(FOLLOW, request_serializer=holdfast_pb2.FollowRequest.SerializeToString)
        probe = holdfast_pb2.FollowRequest(probe=holdfast_pb2.Probe(id=1))
        call = follow()  # nothing is written: the server refuses the call itself, and a write would race with the end
        assert await asyncio.wait_for(call.code(), 10) is grpc.StatusCode.INVALID_ARGUMENT
        assert "user name is empty" in await call.details()
        await mat.describe()  # logs in
        # Nor does a user get an answer before the start, which says what the stream is for.
        call = follow(metadata=await mat.connection.who())
        await call.write(probe)
        assert await asyncio.wait_for(call.code(), 10) is grpc.StatusCode.INVALID_ARGUMENT
        assert "has not been started" in await call.details()


async def test_a_stream_that_is_not_started_ends_when_auth_is_enabled(one: LocalCluster) -> None:
    connect = connector(one)
    async with connect("root") as root, channel(one.endpoints[0]) as at:
        await ask(root, "AuthDisable", rpc_pb2.AuthDisableRequest())
        call = at.stream_stream(FOLLOW)()
        await call.write(holdfast_pb2.FollowRequest().SerializeToString())
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(started, one.endpoints[0]):
                await asyncio.sleep(0.01)
        await enable(root)
        assert await asyncio.wait_for(call.code(), 10) is grpc.StatusCode.INVALID_ARGUMENT
        assert "user name is empty" in await call.details()


class Secure:
    """A voter that serves clients by TLS and takes the common names of their certificates as users."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self._directory = directory
        self._authority = Authority("one")
        self._authority.write_server(directory)
        tls = [f"--cert-file={directory}/tls.crt", f"--key-file={directory}/tls.key"]
        verify = [f"--trusted-ca-file={directory}/ca.crt", "--client-cert-auth"]
        self.local = LocalCluster(directory / "c", voters=1, extra=[*tls, *verify, *flags])
        (process,) = self.local.voters.values()
        process.arguments = [
            a.replace("--listen-client-urls=http:", "--listen-client-urls=https:") for a in process.arguments
        ]

    def files(self, *names: str, uris: tuple[str, ...] = (), place: Path | None = None) -> client.Tls:
        place = place or Path(tempfile.mkdtemp(dir=self._directory))
        place.mkdir(exist_ok=True)
        key, certificate = self._authority.client(*names, uris=uris)
        (place / "tls.key").write_bytes(key)
        (place / "tls.crt").write_bytes(certificate)
        (place / "ca.crt").write_bytes(self._authority.certificate)
        return client.Tls.from_directory(place)

    def connect(self, *names: str, uris: tuple[str, ...] = (), **options: Any) -> client.Client:
        return client.connect(self.local.endpoints, timeout=20, tls=self.files(*names, uris=uris), **options)


@pytest.mark.timeout(120)
async def test_the_operators_certificate(tmp_path: Path) -> None:
    secure = Secure(tmp_path, f"--operator-cert-uri={OPERATOR}", "--bcrypt-cost=4")
    local, connect = secure.local, secure.connect
    files = secure.files("shop operator", uris=(OPERATOR,))
    local.start()
    try:
        async with connect("root") as root, connect("shop operator", uris=(OPERATOR,)) as operator:
            await root.put("/k", "v")
            await ask(root, "UserAdd", rpc_pb2.AuthUserAddRequest(name="root", password="s"))
            await ask(root, "UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
            await operator.put("/before", "1")
            await enable(root)

            # It does what it did before, and needs no user for it.
            told = await operator.describe()
            assert (await operator.status()).leader == told.member_id
            assert (await operator.membership()).members
            await operator.move_leader(told.member_id)
            await operator.put("/after", "2")
            assert [kv.value for kv in (await operator.range("/", prefix=True)).kvs] == [b"2", b"1", b"v"]
            index = (await operator.membership()).config_index
            change = holdfast_pb2.MembershipChangeRequest(
                kind=holdfast_pb2.MembershipChangeRequest.ADD_LEARNER,
                member_id=77,
                name="m2",
                peer_urls=["http://127.0.0.1:9"],
                expected_config_index=index,
            )
            assert await operator.change_membership(change) > index
            # It has no rights over users, and reads no secrets of theirs.
            for method, request in (
                ("AuthDisable", rpc_pb2.AuthDisableRequest()),
                ("UserAdd", rpc_pb2.AuthUserAddRequest(name="x", password="x")),
                ("UserList", rpc_pb2.AuthUserListRequest()),
            ):
                with pytest.raises(client.Refused, match="permission denied"):
                    await ask(operator, method, request)
            with pytest.raises(client.Refused, match="permission denied"):
                [_ async for _ in operator.snapshot()]

            # A forwarded call is its caller's, never the forwarder's.
            path, range_, forwarded = (
                "/etcdserverpb.KV/Range",
                rpc_pb2.RangeRequest(key=b"k"),
                (("holdfast-forwarded", "1"),),
            )
            with pytest.raises(client.Refused, match="user name is empty"):
                await operator.connection._caller.call(
                    path, range_, rpc_pb2.RangeResponse, True, 5.0, None, None, forwarded
                )
            # Nor does the JSON gateway look at certificates.
            status, answer = await asyncio.to_thread(post, local.endpoints[0], files)
            assert (status, "user name is empty" in answer) == (400, True), answer

            # Nobody else has this identity: no other or further URI, and no name.
            for names, uris in (
                (("shop operator",), ()),
                ((OPERATOR,), ()),
                (("x",), ("holdfast://shop/client",)),
                (("x",), ("holdfast://other/operator",)),
                (("x",), (OPERATOR + "/",)),
                (("x",), (OPERATOR, "holdfast://shop/client")),
            ):
                async with connect(*names, uris=uris) as other:
                    with pytest.raises(client.Refused, match="permission denied"):
                        await other.get("/k")

            # Which of two common names is the user's is not guessed.
            for pair in (("root", "app"), ("app", "root"), ("root", "root")):
                async with connect(*pair) as several:
                    with pytest.raises(client.Refused, match="2 common names") as refused:
                        await several.get("/k")
                    assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
            # A token says who calls, whatever the certificate says.
            async with connect("root", "app", user="root", password="s") as by_token:
                assert await by_token.get("/k") is not None
    finally:
        local.kill()
        print(local.logs())
