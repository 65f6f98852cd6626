"""Calls to members: by pod address, with the server name of their certificates, and with short timeouts."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

from google.protobuf.message import Message
from holdfast import client
from holdfast.client.connection import Response
from holdfast.proto import holdfast_pb2

from holdfast_operator.kube import Kube, Object
from holdfast_operator.resources.common import CLIENT_PORT, host_port, peer_host

DESCRIBE_SECONDS = 3.0
CHANGE_SECONDS = 10.0


class Members:
    """Connections to the members of one cluster, by pod address: DNS lags by up to half a minute after a restart."""

    def __init__(self, kube: Kube, cluster: str, namespace: str, tls: bool) -> None:
        self._kube = kube
        self._cluster = cluster
        self._namespace = namespace
        self._tls = tls
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self._clients: dict[str, client.Client] = {}
        self._data: dict[str, str] | None = None

    async def trust(self, secret: Object | None) -> None:
        """Use the operator's certificate in this Secret from now on. Connections with another one are closed."""
        data = None if secret is None else secret.get("data")
        if data == self._data:
            return
        await self.forget(set())
        self._data = data
        if self._files is not None:
            self._files.cleanup()
            self._files = None

    def _credentials(self) -> Path:
        if self._files is None:
            if self._data is None:
                raise client.Unavailable("the operator's certificate is not made yet")
            self._files = tempfile.TemporaryDirectory(prefix="holdfast-operator-")
            for name in ("ca.crt", "tls.crt", "tls.key"):
                path = Path(self._files.name) / name
                path.touch(0o600)
                path.write_bytes(base64.b64decode(self._data[name]))
        return Path(self._files.name)

    async def at(self, ordinal: int, address: str) -> client.Client:
        """A client of the member on this pod."""
        known = self._clients.get(address)
        if known is None:
            tls = None
            if self._tls:
                directory = self._credentials()
                host = peer_host(self._cluster, self._namespace, ordinal)
                tls = client.Tls(directory / "ca.crt", directory / "tls.crt", directory / "tls.key", host)
            known = client.connect(await self.endpoint(ordinal, address), tls=tls, timeout=CHANGE_SECONDS)
            self._clients[address] = known
        return known

    async def endpoint(self, ordinal: int, address: str) -> str:
        """Where the client port of this pod is reached."""
        return host_port(address, CLIENT_PORT)

    async def describe(self, ordinal: int, address: str) -> holdfast_pb2.DescribeResponse | None:
        """What the node reports about itself; None if it does not answer."""
        path, request = "/holdfast.v1.Node/Describe", holdfast_pb2.DescribeRequest()
        return await self._ask(ordinal, address, path, request, holdfast_pb2.DescribeResponse)

    async def membership(self, ordinal: int, address: str) -> holdfast_pb2.MembershipGetResponse | None:
        """The membership, read linearizably through this member; None if that fails."""
        path, request = "/holdfast.v1.Membership/Get", holdfast_pb2.MembershipGetRequest()
        return await self._ask(ordinal, address, path, request, holdfast_pb2.MembershipGetResponse)

    async def _ask(
        self, ordinal: int, address: str, path: str, request: Message, response: type[Response]
    ) -> Response | None:
        try:
            connection = (await self.at(ordinal, address)).connection
            return await connection.call(path, request, response, idempotent=True, timeout=DESCRIBE_SECONDS)
        except client.ClientError:
            return None

    async def forget(self, addresses: set[str]) -> None:
        """Close all connections except those to these pods."""
        for address in set(self._clients) - addresses:
            await self._clients.pop(address).close()

    async def close(self) -> None:
        await self.forget(set())
        if self._files is not None:
            self._files.cleanup()
            self._files = None


def hex_id(value: int) -> str:
    return f"{value:016x}"


def from_hex(text: str | None) -> int:
    return int(text, 16) if text else 0
