"""Reaches members from outside the cluster: each connection goes through the API server, as with kubectl port-forward.

A member is asked on a local port; what is sent there goes over a WebSocket to the client port of its pod.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import aiohttp

from holdfast_operator.kube import Kube
from holdfast_operator.members import Members
from holdfast_operator.resources.common import CLIENT_PORT, host_port, voter_name

PROTOCOL = "v4.channel.k8s.io"
DATA = 0  # the channel of the first port; the next is that of its errors
_PORT_BYTES = 2  # with which each channel begins
_READ_BYTES = 1 << 16

Open = Callable[[str], Awaitable[aiohttp.ClientWebSocketResponse]]


class ForwardedMembers(Members):
    """`open_pod`: opens the WebSocket to the client port of the pod with this name."""

    def __init__(self, kube: Kube, cluster: str, namespace: str, tls: bool, open_pod: Open) -> None:
        super().__init__(kube, cluster, namespace, tls)
        self._open = open_pod
        self._pods = voter_name(cluster)
        self._servers: dict[int, asyncio.Server] = {}

    async def endpoint(self, ordinal: int, address: str) -> str:
        server = self._servers.get(ordinal)
        if server is None:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._forward(f"{self._pods}-{ordinal}", reader, writer)

            server = self._servers[ordinal] = await asyncio.start_server(serve, "127.0.0.1", 0)
        return host_port("127.0.0.1", server.sockets[0].getsockname()[1])

    async def _forward(self, pod: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, aiohttp.ClientError):
            async with await self._open(pod) as socket:
                sending = asyncio.ensure_future(_send(reader, socket))
                try:
                    await _receive(socket, writer)
                finally:
                    sending.cancel()

    async def close(self) -> None:
        await super().close()
        for server in self._servers.values():
            server.close()
        self._servers = {}


async def _send(reader: asyncio.StreamReader, socket: aiohttp.ClientWebSocketResponse) -> None:
    while data := await reader.read(_READ_BYTES):
        await socket.send_bytes(bytes([DATA]) + data)
    await socket.close()


async def _receive(socket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    begun = False
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data or message.data[0] != DATA:
            continue  # an error of the other channel: the API server closes the connection after it
        data = message.data[1:]
        if not begun:
            begun, data = True, data[_PORT_BYTES:]
        writer.write(data)
        await writer.drain()


def path(namespace: str, pod: str) -> str:
    return f"{Kube.path('Pod', namespace, pod, 'portforward')}?ports={CLIENT_PORT}"
