"""Between members: one long-lived connection each way, frames of protobuf on TCP or TLS.

A frame is its length (4 bytes, big-endian) and a message. The first frame is a Hello: members prove that they belong to
the same cluster, and that each is who the other takes it for, before anything else counts. What cannot be sent is
dropped: Raft asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Collection
from typing import Protocol
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Proto

from holdfast.histogram import FAST, Histogram
from holdfast.member import codec
from holdfast.proto import raft_pb2
from holdfast.raft.messages import Message
from holdfast.tls import Dialling

log = logging.getLogger("holdfast.peer")

PROTOCOL = 1
MAX_FRAME_BYTES = 64 << 20
SEND_BUFFER_BYTES = 64 << 20
CONNECT_TIMEOUT_SECONDS = 3.0
_RTT_AT = 68  # of tcpi_rtt (microseconds, 4 bytes) in Linux's struct tcp_info
_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


class ProtocolError(Exception):
    """The other side does not speak as agreed."""


def frame(message: Proto) -> bytes:
    body = message.SerializeToString()
    return len(body).to_bytes(4, "big") + body


async def read_frame(reader: asyncio.StreamReader, limit: int = MAX_FRAME_BYTES) -> bytes:
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > limit:
        raise ProtocolError(f"a frame of {size} bytes")
    return await reader.readexactly(size)


class Node(Protocol):
    """Who this transport speaks for."""

    def hello(self, to: int, purpose: str) -> raft_pb2.Hello: ...

    def welcome(self, hello: raft_pb2.Hello) -> str:
        """Why `hello` is refused; empty if it is not."""
        ...

    def received(self, frm: int, frame: raft_pb2.PeerFrame) -> None: ...

    def peer_up(self, member: int) -> None: ...

    def peer_lost(self, member: int) -> None:
        """The connection to `member` has ended, or was refused."""
        ...

    def refused(self, member: int, reason: str) -> None: ...

    async def serve_other(
        self, hello: raft_pb2.Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a connection whose purpose is not "messages"."""
        ...


class _Link:
    """The way out to one member: keeps a connection, reports when it comes and goes."""

    def __init__(self, node: Node, member: int, url: str, tls: Dialling | None) -> None:
        self._node = node
        self._member = member
        self.url = url
        self._tls = tls
        self._writer: asyncio.StreamWriter | None = None
        self._task = asyncio.ensure_future(self._run())

    @property
    def connected(self) -> bool:
        return self._writer is not None

    def round_trip(self) -> float | None:
        """Seconds to the other side and back, as TCP has measured them lately."""
        writer = self._writer
        if writer is None or writer.is_closing():
            return None
        info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_AT + 4)
        return int.from_bytes(info[_RTT_AT:], sys.byteorder) / 1e6

    def send(self, messages: list[Message]) -> int:
        """Returns how many bytes were handed to the connection; 0 = there is none that takes them."""
        writer = self._writer
        # Closed by the other side a moment ago: uvloop raises on it, before our reader has noticed the end.
        if writer is None or writer.is_closing():
            return 0
        if writer.transport.get_write_buffer_size() > SEND_BUFFER_BYTES:
            return 0
        data = frame(raft_pb2.PeerFrame(messages=[codec.encode(m) for m in messages]))
        writer.write(data)
        return len(data)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                connected = await self._connect_once()
                failures = 0 if connected else failures + 1
            except (
                OSError,
                TimeoutError,
                asyncio.IncompleteReadError,
                ProtocolError,
                DecodeError,
                ssl.SSLError,
            ) as error:
                log.debug("peer %x at %s: %s", self._member, self.url, error)
                failures += 1
                if isinstance(error, ConnectionRefusedError):
                    self._node.peer_lost(self._member)
            await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])

    async def _connect_once(self) -> bool:
        """Connect and stay until the connection ends. Returns whether the other side took us."""
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            reader, writer = await connect(self.url, self._tls)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                writer.write(frame(self._node.hello(self._member, "messages")))
                answer = raft_pb2.Hello.FromString(await read_frame(reader))
            if answer.refused:
                self._node.refused(self._member, answer.refused)
                return False
            if answer.from_id != self._member:
                raise ProtocolError(f"{self.url} is {answer.from_id:x}, not {self._member:x}")
            self._writer = writer
            self._node.peer_up(self._member)
            await reader.read(1)  # nothing comes back on this connection but its end
            return True
        finally:
            if self._writer is not None:
                self._writer = None
                self._node.peer_lost(self._member)
            writer.close()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


async def connect(url: str, tls: Dialling | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    if parts.scheme == "https" and tls is None:
        raise ProtocolError(f"{url} wants TLS; give --peer-cert-file, --peer-key-file and --peer-trusted-ca-file")
    context = tls() if tls is not None and parts.scheme == "https" else None
    return await asyncio.open_connection(parts.hostname, parts.port, ssl=context, limit=1 << 20)


class Transport:
    """All connections of one member to its peers."""

    def __init__(self, node: Node, *, client_tls: Dialling | None, server_tls: ssl.SSLContext | None) -> None:
        self._node = node
        self._client_tls = client_tls
        self._server_tls = server_tls
        self._links: dict[int, _Link] = {}
        self._servers: list[asyncio.Server] = []
        self._sent: Counter[int] = Counter()  # bytes by member
        self._received: Counter[int] = Counter()
        self._failed: Counter[int] = Counter()  # frames that could not be sent
        self._round_trips: dict[int, Histogram] = {}
        self._inbound: dict[asyncio.StreamWriter, int] = {}  # whose it is; 0 = not known yet

    async def listen(self, host: str, port: int) -> None:
        server = await asyncio.start_server(self._serve, host, port, ssl=self._server_tls, limit=1 << 20)
        self._servers.append(server)

    @property
    def client_tls(self) -> Dialling | None:
        return self._client_tls

    def set_peers(self, peers: dict[int, str]) -> None:
        """Keep connections to exactly these members (id to URL)."""
        for member in list(self._links):
            if peers.get(member) != self._links[member].url:
                asyncio.ensure_future(self._links.pop(member).close())
        for member, url in peers.items():
            if member not in self._links:
                self._links[member] = _Link(self._node, member, url, self._client_tls)

    def shut_out(self, members: Collection[int]) -> None:
        """End what these have open here; they learn why when they come again."""
        for writer, member in list(self._inbound.items()):
            if member in members:
                writer.close()

    def send(self, messages: list[Message]) -> None:
        """Send each message to whom it is for, one frame a member."""
        by_member: dict[int, list[Message]] = {}
        for message in messages:
            by_member.setdefault(message.to, []).append(message)
        for member, batch in by_member.items():
            link = self._links.get(member)
            if link is not None:
                sent = link.send(batch)
                self._sent[member] += sent
                self._failed[member] += not sent

    @property
    def active_peers(self) -> int:
        """Members that we have a connection to."""
        return sum(link.connected for link in self._links.values())

    def round_trips(self) -> dict[int, Histogram]:
        """Seconds there and back by member; what is measured now is counted in."""
        for member, link in self._links.items():
            seconds = link.round_trip()
            if seconds is not None:
                self._round_trips.setdefault(member, Histogram(FAST)).observe(seconds)
        return self._round_trips

    def counts(self) -> dict[str, Counter[int]]:
        """By the names that etcd's metrics have for them, then by member."""
        return {
            "etcd_network_peer_sent_bytes": self._sent,
            "etcd_network_peer_received_bytes": self._received,
            "etcd_network_peer_sent_failures": self._failed,
        }

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._inbound[writer] = 0
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                hello = raft_pb2.Hello.FromString(await read_frame(reader, 1 << 20))
            if hello.purpose not in ("messages", "snapshot"):
                await self._node.serve_other(hello, reader, writer)
                return
            answer = self._node.hello(hello.from_id, hello.purpose)
            answer.refused = self._node.welcome(hello)
            writer.write(frame(answer))
            if answer.refused:
                await writer.drain()
                return
            self._inbound[writer] = hello.from_id
            if hello.purpose == "messages":
                while True:
                    body = await read_frame(reader)
                    self._received[hello.from_id] += len(body)
                    self._node.received(hello.from_id, raft_pb2.PeerFrame.FromString(body))
            await self._node.serve_other(hello, reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ProtocolError, DecodeError) as error:
            log.debug("a peer connection ended: %s", error)
        finally:
            self._inbound.pop(writer, None)
            writer.close()

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for link in list(self._links.values()):
            await link.close()
        self._links.clear()
        for writer in list(self._inbound):
            writer.close()
