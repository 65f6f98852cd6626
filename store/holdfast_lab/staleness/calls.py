"""Reads over HTTP/2 at a quarter of the cost of gRPC's library, so that the servers and not the tester are at work.

It understands what our servers send, and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from holdfast.front.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD_BYTES,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Setting,
    frame,
    settings,
    window_update,
)
from hpack import Decoder

RANGE = "/etcdserverpb.KV/Range"
MESSAGE_HEAD = 5  # of a gRPC message: compressed, length
WINDOW = 1 << 30  # never exhausted: answers are small, and a connection ends with a fault sooner or later
OK, DEADLINE_EXCEEDED = 0, 4  # gRPC's codes


class Failed(Exception):
    """A read that was not answered. `late`: because of its deadline."""

    def __init__(self, what: str, *, late: bool) -> None:
        super().__init__(what)
        self.late = late


@dataclass(slots=True)
class _Call:
    done: asyncio.Future[tuple[dict[str, str], bytes]]
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._decoder = Decoder()
        self._calls: dict[int, _Call] = {}
        self._last = -1
        self._ending = False

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._ending and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        window = settings({Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: WINDOW})
        transport.write(PREFACE + window + window_update(0, WINDOW))

    def connection_lost(self, exc: Exception | None) -> None:
        calls, self._calls = self._calls, {}
        for call in calls.values():
            _fail(call, "the connection was closed", late=False)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def ask(self, block: bytes, message: bytes) -> asyncio.Future[tuple[dict[str, str], bytes]]:
        assert self._transport is not None
        self._last += 2
        call = self._calls[self._last] = _Call(asyncio.get_running_loop().create_future())
        body = b"\0" + len(message).to_bytes(4, "big") + message
        head = frame(HEADERS, END_HEADERS, self._last, block)
        self._transport.write(head + frame(DATA, END_STREAM, self._last, body))
        return call.done

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._received += data
        for kind, flags, stream, payload in self._frames():
            if kind == SETTINGS and not flags & ACK:
                self._transport.write(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self._transport.write(frame(PING, ACK, 0, payload))
            elif kind == GOAWAY:
                self._ending = True  # what was asked is still answered
            elif kind == HEADERS:
                self._headers(stream, payload, ended=bool(flags & END_STREAM))
            elif kind == DATA and stream in self._calls:
                self._calls[stream].body += payload
            elif kind == RST_STREAM and stream in self._calls:
                _fail(self._calls.pop(stream), "the call was reset", late=False)

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        at, received = 0, self._received
        while len(received) >= at + HEAD_BYTES:
            end = at + HEAD_BYTES + int.from_bytes(received[at : at + 3], "big")
            if len(received) < end:
                break
            stream = int.from_bytes(received[at + 5 : at + HEAD_BYTES], "big")
            yield received[at + 3], received[at + 4], stream, bytes(received[at + HEAD_BYTES : end])
            at = end
        del received[:at]

    def _headers(self, stream: int, block: bytes, *, ended: bool) -> None:
        fields = {str(name): str(value) for name, value in self._decoder.decode(block)}  # also of calls given up
        call = self._calls.get(stream)
        if call is None:
            return
        call.headers.update(fields)
        if ended:
            del self._calls[stream]
            status = int(call.headers.get("grpc-status", "2"))
            if status != OK:
                _fail(call, call.headers.get("grpc-message", ""), late=status == DEADLINE_EXCEEDED)
            elif not call.done.done():
                call.done.set_result((call.headers, call.body[MESSAGE_HEAD:]))


def _fail(call: _Call, what: str, *, late: bool) -> None:
    if not call.done.done():
        call.done.set_exception(Failed(what, late=late))


class Calls:
    """Reads at one server, over one connection at a time."""

    def __init__(self, endpoint: str, seconds: float) -> None:
        """`seconds`: for each read."""
        self._host, _, self._port = endpoint.rpartition(":")
        self._seconds = seconds
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._block = b"".join(
            _literal(name, value)
            for name, value in (
                (":method", "POST"),
                (":scheme", "http"),
                (":path", RANGE),
                (":authority", endpoint),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("grpc-timeout", f"{seconds * 1000:.0f}m"),
            )
        )

    async def range(self, message: bytes, name: str, value: str) -> tuple[dict[str, str], bytes]:
        """The headers and the message of the answer. `name` and `value`: metadata. Raises Failed."""
        try:
            async with asyncio.timeout(self._seconds):
                connection = await self._connected()
                return await connection.ask(self._block + _literal(name, value), message)
        except TimeoutError:
            raise Failed("no answer in time", late=True) from None
        except OSError as error:
            raise Failed(str(error), late=False) from None

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is None or not self._connection.open:
                loop = asyncio.get_running_loop()
                _, self._connection = await loop.create_connection(_Connection, self._host, int(self._port))
            return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _literal(name: str, value: str) -> bytes:
    """A header field that is in no table (RFC 7541, section 6.2.2). Both are shorter than 127 bytes."""
    return bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode()
