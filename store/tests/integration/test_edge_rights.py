"""Users at edge replicas: each caller has its own rights there, connected and cut off; nothing runs as the replica."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from holdfast import client
from holdfast.auth.store import REPLICA_ROLE
from holdfast.proto import auth_pb2, holdfast_pb2, lock_pb2, rpc_pb2
from holdfast_lab.processes import LocalCluster, Process, free_ports

from ..certificates import Authority
from .test_rights import _tls
from .users import PASSWORDS, ask, change_password, enable, grant_role, revoke_role, set_up_users

pytestmark = pytest.mark.timeout(180)
DENIED = "permission denied"
OFFLINE = "15s"  # for which a token is honoured at a replica that is cut off


class Site:
    """A member, a relay that follows it as the user edge, and a leaf below that as the user leaf. Everybody has a
    certificate."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority("one")
        self.authority.write_server(directory)
        self._files = [
            f"--cert-file={directory}/tls.crt",
            f"--key-file={directory}/tls.key",
            f"--trusted-ca-file={directory}/ca.crt",
            "--client-cert-auth",
        ]
        self.cluster = LocalCluster(directory / "c", voters=1, extra=[*self._files, "--bcrypt-cost=4"])
        (self.member,) = self.cluster.voters.values()
        self.member.arguments = [
            a.replace("--listen-client-urls=http:", "--listen-client-urls=https:") for a in self.member.arguments
        ]
        self.tls = {name: _tls(self.authority, directory / name, name) for name in (*PASSWORDS, "edge", "leaf")}
        self.relay = self._replica("edge", self.member.endpoint)
        self.leaf = self._replica("leaf", self.relay.endpoint)

    def _replica(self, name: str, upstream: str) -> Process:
        (port,) = free_ports(1)
        writer = f"127.0.0.1:{port}" if name == "edge" else upstream
        arguments = [
            "edge",
            f"--name={name}",
            f"--data-dir={self.directory / name / 'data'}",
            f"--listen-client-urls=https://127.0.0.1:{port}",
            f"--endpoints={upstream}",
            "--prefix=/eve/",
            "--prefix=/more/",
            f"--upstream-tls-dir={self.directory / name}",
            f"--offline-tokens={OFFLINE}",
            "--site=berlin",
            f"--site-writer=edge={writer}",
            *self._files,
        ]
        return Process(name, arguments, self.directory / f"{name}.log", port)

    def connect(self, user: str, process: Process, *, password: bool = False, certificate: str = "") -> client.Client:
        """As `user`: by its certificate, or by its password over a connection with the certificate of nobody's user."""
        options: dict[str, Any] = {"tls": self.tls[certificate or user]}
        if password:
            options |= {"user": user, "password": PASSWORDS[user]}
        return client.connect(process.endpoint, timeout=20, **options)


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    found = Site(tmp_path)
    found.cluster.start()
    try:
        async with found.connect("root", found.member) as root:
            await set_up_users(root)
            for name in ("edge", "leaf"):
                await ask(root, "UserAdd", rpc_pb2.AuthUserAddRequest(name=name, password="pw"))
            await ask(root, "RoleAdd", rpc_pb2.AuthRoleAddRequest(name=REPLICA_ROLE))
            await ask(root, "RoleAdd", rpc_pb2.AuthRoleAddRequest(name="reads"))
            for role, kind, prefix in (
                ("reads", auth_pb2.Permission.READ, b"/eve/"),
                ("reads", auth_pb2.Permission.READ, b"/more/"),
                (REPLICA_ROLE, auth_pb2.Permission.READWRITE, b"/eve/"),
                ("r", auth_pb2.Permission.READWRITE, b"/more/"),
                ("r", auth_pb2.Permission.READWRITE, b"/local/berlin/eve/"),
                ("reads", auth_pb2.Permission.READ, b"/local/berlin/"),
                (REPLICA_ROLE, auth_pb2.Permission.READWRITE, b"/local/berlin/eve/"),
            ):
                perm = auth_pb2.Permission(permType=kind, key=prefix, range_end=prefix[:-1] + b"0")
                await ask(root, "RoleGrantPermission", rpc_pb2.AuthRoleGrantPermissionRequest(name=role, perm=perm))
            for name in ("edge", "leaf"):
                await grant_role(root, name, "reads")
                await grant_role(root, name, REPLICA_ROLE)
            await root.put("/eve/1", "1")
            await root.put("/more/1", "1")
            await enable(root)
        for process in (found.relay, found.leaf):
            process.start()
        yield found
    finally:
        for process in (found.relay, found.leaf):
            process.kill()
        found.cluster.kill()
        print(found.cluster.logs(), found.relay.tail(30), found.leaf.tail(30), sep="\n")


async def local(hf: client.Client, key: str) -> bytes | None:
    found = await hf.get(key, serializable=True)
    return None if found is None else found.value


async def until(works: Callable[[], Awaitable[Any]]) -> None:
    """Wait until the call is answered."""
    async with asyncio.timeout(30):
        while True:
            try:
                await works()
            except client.ClientError:
                await asyncio.sleep(0.05)
            else:
                return


async def refused(works: Callable[[], Awaitable[Any]], why: str) -> None:
    """Wait until the call is refused so: what has changed is on its way."""
    error: client.ClientError | None = None
    async with asyncio.timeout(30):
        while error is None:
            try:
                await works()
                await asyncio.sleep(0.02)
            except client.ClientError as ended:
                error = ended
    assert why in str(error)


async def at_once(works: Callable[[], Awaitable[Any]], why: str) -> None:
    with pytest.raises(client.ClientError, match=why):
        await works()


async def who_am_i(hf: client.Client) -> holdfast_pb2.WhoAmIResponse:
    return await hf.connection.call(
        "/holdfast.v1.Identity/WhoAmI", holdfast_pb2.WhoAmIRequest(), holdfast_pb2.WhoAmIResponse, idempotent=True
    )


async def test_each_caller_has_its_own_rights_at_a_replica(site: Site) -> None:
    """By certificate and by token, local and forwarded, through one replica and two."""
    async with AsyncExitStack() as stack:

        async def as_(user: str, process: Process, **how: Any) -> client.Client:
            return await stack.enter_async_context(site.connect(user, process, **how))

        for process in (site.relay, site.leaf):
            eve, root = await as_("eve", process), await as_("root", process)
            mat, nobody = await as_("mat", process), await as_("edge", process, certificate="mat")
            await until(partial(local, eve, "/eve/1"))
            assert await local(eve, "/eve/1") is not None
            assert await local(root, "/eve/1") is not None
            for other in (mat, nobody):
                await at_once(partial(local, other, "/eve/1"), DENIED)
                await at_once(partial(anext, other.watch("/eve/", prefix=True)), DENIED)
                await at_once(partial(other.put, "/eve/1", "x"), DENIED)
            # Forwarded calls run as the caller, within what the replica itself may do.
            assert (await who_am_i(eve)).user == "eve"
            await eve.put("/eve/1", process.name)
            await at_once(partial(eve.put, "/more/1", "x"), r"replica whose user 'edge' may not write /more/1;")
            await at_once(partial(root.put, "/other", "x"), r"replica whose user 'edge' may not write /other;")
            await at_once(partial(ask, root, "UserList", rpc_pb2.AuthUserListRequest()), "nobody administers")
            await at_once(partial(ask, root, "UserAdd", rpc_pb2.AuthUserAddRequest(name="x", password="x")), DENIED)
            # A token speaks for itself.
            eve = await as_("eve", process, password=True, certificate="mat")
            await eve.put("/more/1", process.name)
            assert await local(eve, "/more/1") == process.name.encode()
            mat = await as_("mat", process, password=True, certificate="eve")
            await at_once(partial(local, mat, "/eve/1"), DENIED)
            root = await as_("root", process, password=True, certificate="mat")
            await root.put("/other", "x")


async def test_a_replica_vouches_only_with_the_role(site: Site) -> None:
    async with (
        site.connect("root", site.member) as root,
        site.connect("eve", site.leaf) as at_leaf,
        site.connect("eve", site.relay) as at_relay,
    ):
        await until(lambda: local(at_leaf, "/eve/1"))
        await at_leaf.put("/eve/1", "x")
        await revoke_role(root, "leaf", REPLICA_ROLE)
        await refused(lambda: at_leaf.put("/eve/1", "x"), "'leaf' may not make calls for others")
        await refused(lambda: local(at_leaf, "/eve/1"), "cannot tell what they may read")
        await at_relay.put("/eve/1", "x")
        await grant_role(root, "leaf", REPLICA_ROLE)
        await until(lambda: at_leaf.put("/eve/1", "again"))
        await until(lambda: local(at_leaf, "/eve/1"))


async def test_what_is_revoked_ends_at_the_replica_before_the_next_change_is_seen(site: Site) -> None:
    async with site.connect("root", site.member) as root, site.connect("eve", site.leaf) as eve:
        await until(lambda: local(eve, "/eve/1"))
        watch = eve.watch("/eve/", prefix=True)
        started = asyncio.ensure_future(anext(watch))
        async with asyncio.timeout(30):
            while not started.done():
                await root.put("/eve/1", "seen")
                await asyncio.sleep(0.05)
        await revoke_role(root, "eve", "r")
        await root.put("/eve/1", "secret")
        values: list[bytes] = []

        async def read_on() -> None:
            while True:
                values.append((await anext(watch)).kv.value)

        await refused(read_on, DENIED)
        assert set(values) <= {b"seen"}
        await at_once(lambda: local(eve, "/eve/1"), DENIED)


async def test_rights_hold_while_cut_off_and_after_a_restart(site: Site) -> None:
    async with AsyncExitStack() as stack:
        eve = await stack.enter_async_context(site.connect("eve", site.relay))
        mat = await stack.enter_async_context(site.connect("mat", site.relay))
        by_token = await stack.enter_async_context(site.connect("eve", site.relay, password=True, certificate="mat"))
        stale = await stack.enter_async_context(site.connect("eve", site.relay, password=True, certificate="mat"))
        root = await stack.enter_async_context(site.connect("root", site.member))
        await until(lambda: local(eve, "/eve/1"))
        await until(lambda: local(by_token, "/eve/1"))
        token = await by_token.connection.who()
        unknown = await stale.connection.who()
        await change_password(root, "mat", "pw")  # a change of rights that the replica has to have
        channel = await eve.connection.ready(site.relay.endpoint, 10)

        async def code_of(method: str, request: Message, metadata: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
            call = channel.unary_unary(f"/etcdserverpb.KV/{method}")(request.SerializeToString(), metadata=metadata)
            return await call.code()

        async def read(metadata: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
            return await code_of("Range", rpc_pb2.RangeRequest(key=b"/eve/1", serializable=True), metadata)

        assert await read(token) is grpc.StatusCode.OK
        site.member.kill()
        async with asyncio.timeout(30):
            while (await eve.describe()).connected:
                await asyncio.sleep(0.02)
        assert await local(eve, "/eve/1") is not None
        await at_once(lambda: local(mat, "/eve/1"), DENIED)
        assert await read(token) is grpc.StatusCode.OK
        assert await read(unknown) is grpc.StatusCode.UNAVAILABLE
        assert await read((("token", "made.up"),)) is grpc.StatusCode.UNAVAILABLE
        put = rpc_pb2.PutRequest(key=b"/eve/1", value=b"x")
        assert await code_of("Put", put, token) is grpc.StatusCode.UNAVAILABLE

        site.relay.stop()
        site.relay.start()
        await until(lambda: local(eve, "/eve/1"))
        await at_once(lambda: local(mat, "/eve/1"), DENIED)
        channel = await eve.connection.ready(site.relay.endpoint, 10)
        assert await read(token) is grpc.StatusCode.OK
        async with asyncio.timeout(30):
            while (code := await read(token)) is grpc.StatusCode.OK:
                await asyncio.sleep(0.1)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert await local(eve, "/eve/1") is not None, "a certificate is one for as long as it is valid"


async def test_keys_of_the_site_are_for_those_who_have_the_right(site: Site) -> None:
    """Written at the relay, for whom the leaf forwards; by certificate and by token, also while the site is cut off.
    Nothing is written as the leaf, or as the relay."""
    mine, others = "/local/berlin/eve/1", "/local/berlin/other"
    async with (
        site.connect("eve", site.leaf) as eve,
        site.connect("eve", site.leaf, password=True, certificate="mat") as by_token,
        site.connect("mat", site.leaf) as mat,
    ):
        await until(lambda: local(eve, "/eve/1"))
        assert await local(by_token, "/eve/1") == b"1"
        await eve.site("berlin").put("/eve/1", "1")
        assert await local(eve, mine) == b"1"
        await by_token.site("berlin").put("/eve/1", "2")
        site.cluster.kill()
        for hf, value in ((eve, "3"), (by_token, "4")):
            await hf.site("berlin").put("/eve/1", value)
            assert await local(hf, mine) == value.encode()
        for hf in (eve, by_token, mat):
            with pytest.raises(client.Refused, match=DENIED):
                await hf.site("berlin").put("/other", "?")
            with pytest.raises(client.Refused, match=DENIED):
                await hf.get(others, serializable=True)
        with pytest.raises(client.Refused, match=DENIED):
            await local(mat, mine)
        with pytest.raises(client.Refused, match=DENIED):
            await mat.site("berlin").delete("/eve/1")
        assert await local(eve, mine) == b"4"


async def test_nobody_but_a_replica_says_whose_call_it_is(site: Site) -> None:
    """Neither a user, nor a certificate without a name, nor a page: not to a member, a relay or a leaf. The honest
    replica in between must not lend them its role."""
    forged = (("holdfast-forwarded", "1"), ("holdfast-on-behalf-of", "eve"))
    (site.directory / "nameless").mkdir()
    key, certificate = site.authority.client()
    for file, text in (("tls.key", key), ("tls.crt", certificate), ("ca.crt", site.authority.certificate)):
        (site.directory / "nameless" / file).write_bytes(text)
    nameless = client.Tls.from_directory(site.directory / "nameless")
    async with site.connect("eve", site.leaf) as eve:
        await until(lambda: local(eve, "/eve/1"))
    for process in (site.member, site.relay, site.leaf):
        for tls in (site.tls["mat"], nameless):
            async with client.connect(process.endpoint, timeout=20, tls=tls) as hf:
                channel = await hf.connection.ready(process.endpoint, 10)
                for more in ((), (("holdfast-via", "edge"),), (("holdfast-via", ","),)):
                    for method, request in (
                        ("Put", rpc_pb2.PutRequest(key=b"/eve/1", value=b"forged")),
                        ("Put", rpc_pb2.PutRequest(key=b"/local/berlin/eve/1", value=b"forged")),
                        ("Range", rpc_pb2.RangeRequest(key=b"/eve/1", serializable=True)),
                        ("Range", rpc_pb2.RangeRequest(key=b"/local/berlin/eve/1", serializable=True)),
                    ):
                        call = channel.unary_unary(f"/etcdserverpb.KV/{method}")(
                            request.SerializeToString(), metadata=(*forged, *more)
                        )
                        assert await call.code() in (
                            grpc.StatusCode.PERMISSION_DENIED,
                            grpc.StatusCode.INVALID_ARGUMENT,
                        ), (method, request, await call.details())
        status = await asyncio.to_thread(_forged_page, site, process)
        assert status in (400, 401, 403), status
    async with site.connect("root", site.member) as root:
        assert (await root.range("/eve/1")).kvs[0].value != b"forged"


def _forged_page(site: Site, process: Process) -> int:
    """The status of a put by the JSON gateway that claims to be forwarded."""
    context = ssl.create_default_context(cafile=str(site.directory / "mat" / "ca.crt"))
    context.load_cert_chain(site.directory / "mat" / "tls.crt", site.directory / "mat" / "tls.key")
    body = {"key": base64.b64encode(b"/eve/1").decode(), "value": base64.b64encode(b"forged").decode()}
    headers = {"Grpc-Metadata-holdfast-forwarded": "1", "Grpc-Metadata-holdfast-on-behalf-of": "eve"}
    url = f"https://localhost:{process.endpoint.rpartition(':')[2]}/v3/kv/put"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def test_locks_and_elections_through_a_replica_are_the_callers(site: Site) -> None:
    async with site.connect("eve", site.leaf) as eve, site.connect("mat", site.leaf) as mat:
        await until(lambda: local(eve, "/eve/1"))

        async def lock(hf: client.Client) -> lock_pb2.LockResponse:
            path = "/v3lockpb.Lock/Lock"
            return await hf.connection.call(
                path, lock_pb2.LockRequest(name=b"/eve/lock"), lock_pb2.LockResponse, idempotent=True
            )

        assert (await lock(eve)).key.startswith(b"/eve/lock/")
        await at_once(lambda: lock(mat), DENIED)


async def test_a_replica_does_not_get_hold_of_sessions(site: Site) -> None:
    """A user's session through a replica is not the one that the user has made itself."""
    async with site.connect("eve", site.member) as direct, site.connect("eve", site.relay) as through:
        await until(lambda: local(through, "/eve/1"))
        await direct.put("/eve/1", "1")
        assert direct._session._lease is not None
        session = direct._session._lease.id
        request = rpc_pb2.PutRequest(key=b"/eve/1", value=b"x")
        name = (("holdfast-session", str(session)), ("holdfast-seq", "1000000"), ("holdfast-low", "1000000"))
        with pytest.raises(client.Refused, match="belongs to another user"):
            await through.connection.call(
                "/etcdserverpb.KV/Put", request, rpc_pb2.PutResponse, idempotent=False, name=name
            )
        revoke = rpc_pb2.LeaseRevokeRequest(ID=session)
        with pytest.raises(client.Refused, match=DENIED):
            await through.connection.call(
                "/etcdserverpb.Lease/LeaseRevoke", revoke, rpc_pb2.LeaseRevokeResponse, idempotent=True
            )
        await direct.put("/eve/1", "2")
        await through.put("/eve/1", "3")
