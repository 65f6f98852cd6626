"""The outgoing connection to one member: keeps it open, and reports when it begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
import sys
from typing import Protocol

from google.protobuf.message import DecodeError

from holdfast.member.frames import ProtocolError, connect, read_frame, shown, write_frame
from holdfast.member.pulse import Pulse, notice_silence
from holdfast.proto import raft_pb2
from holdfast.tls import PeerTls

log = logging.getLogger("holdfast.peer")

SEND_BUFFER_BYTES = 64 << 20
_RTT_AT = 68  # of tcpi_rtt (microseconds, 4 bytes) in Linux's struct tcp_info
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.05, 0.6


class Node(Protocol):
    """The node that owns the connections."""

    def hello(self, to: int, purpose: str) -> raft_pb2.Hello: ...

    def welcome(self, hello: raft_pb2.Hello) -> str:
        """Why `hello` is refused; empty if it is not."""
        ...

    def received(self, frm: int, frame: raft_pb2.PeerFrame) -> None: ...

    def peer_up(self, member: int) -> None: ...

    def peer_lost(self, member: int) -> None:
        """The connection to `member` ended, or was refused."""
        ...

    def refused(self, member: int, reason: str) -> None: ...

    async def serve_other(
        self, hello: raft_pb2.Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a connection whose purpose is not "messages"."""
        ...


class Link:
    def __init__(self, node: Node, member: int, url: str, tls: PeerTls | None, silence_seconds: float) -> None:
        self._node = node
        self._member = member
        self.url = url
        self._tls = tls
        self._silence = silence_seconds
        self._writer: asyncio.StreamWriter | None = None
        self._pulse: Pulse | None = None
        self._lost = False  # the loss was reported already
        self._task = asyncio.ensure_future(self._run())

    @property
    def connected(self) -> bool:
        return self._writer is not None

    def round_trip(self) -> float | None:
        """The round-trip time in seconds, as TCP measured it lately."""
        writer = self._writer
        if writer is None or writer.is_closing():
            return None
        info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_AT + 4)
        return int.from_bytes(info[_RTT_AT:], sys.byteorder) / 1e6

    def send(self, data: bytes) -> bool:
        """Returns whether there is a connection with room for `data`; otherwise it is dropped."""
        writer = self._writer
        # If the peer closed it a moment ago, uvloop raises on write before our reader notices the end.
        if writer is None or writer.is_closing():
            return False
        if writer.transport.get_write_buffer_size() > SEND_BUFFER_BYTES:
            return False
        writer.write(data)
        if self._pulse is not None:
            self._pulse.sent()
        return True

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
                    self._is_lost()  # no process listens there: it is gone
                else:
                    self._lost = False
            await asyncio.sleep(_pause(failures))

    def _is_lost(self) -> None:
        if not self._lost:
            self._lost = True
            self._node.peer_lost(self._member)

    async def _connect_once(self) -> bool:
        """Connect and stay until the connection ends. Returns whether the peer accepted us."""
        async with asyncio.timeout(self._silence):
            reader, writer = await connect(self.url, self._tls)
            try:
                notice_silence(writer, self._silence)
                write_frame(writer, self._node.hello(self._member, "messages"))
                answer = raft_pb2.Hello.FromString(await read_frame(reader))
                if answer.refused:
                    self._node.refused(self._member, shown(answer.refused))
                    writer.close()
                    return False
                if answer.from_id != self._member:
                    raise ProtocolError(f"{self.url} is {answer.from_id:x}, not {self._member:x}")
            except BaseException:
                writer.transport.abort()
                raise
        try:
            self._writer = writer
            self._lost = False
            self._node.peer_up(self._member)
            await self._until_its_end(reader, writer, answer)
            return True
        finally:
            self._writer = None
            self._is_lost()
            writer.transport.abort()  # unsent data is useless later

    async def _until_its_end(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: raft_pb2.Hello
    ) -> None:
        """Wait for the end of the connection. The peer sends only keepalive frames on it; with protocol 1, nothing."""
        if answer.speaks < 2:
            await reader.read(1)
            return
        self._pulse = pulse = Pulse(writer, self._silence)
        try:
            while await reader.read(1024):
                pulse.heard()
        finally:
            self._pulse = None
            pulse.stop()
            if pulse.silent:
                log.warning("nothing comes back from %x at %s any more: connecting anew", self._member, self.url)

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


def _pause(failures: int) -> float:
    """Seconds until the next try, with jitter, so that members do not connect all at once."""
    longest: float = min(_FIRST_RETRY_SECONDS * (1 << min(failures, 8)), _LAST_RETRY_SECONDS)
    return longest * (0.5 + random.random() / 2)
