"""The front on real sockets, with grpcio as the client of gRPC and bare sockets for the rest."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import h11
import pytest
from holdfast.front import http1
from holdfast.front.calls import (
    Cancelled,
    Credit,
    Event,
    Fail,
    Finish,
    HalfClose,
    Kind,
    Message,
    Open,
    Reply,
    Send,
    Unary,
    Writable,
)
from holdfast.front.http import Receiver, Request, Responder
from holdfast.front.http2 import connection, session
from holdfast.front.http2 import front as module
from holdfast.front.http2.frames import frame
from holdfast.front.http2.front import Http2Front
from holdfast.status import LEASE_NOT_FOUND, NAME_METADATA, Code, Refusal
from holdfast.tls import TlsFiles, server_context

from ..certificates import Authority
from .test_connection import HELLO, block

METHODS = {"/t.T/Unary": Kind.UNARY, "/t.T/Many": Kind.SERVER_STREAM, "/t.T/Both": Kind.BIDI}


class _Echo:
    """A page that says what was asked; of /stream, the beginning of an answer without end."""

    def __init__(self, request: Request, responder: Responder) -> None:
        self._request = request
        self._responder = responder
        self._body = bytearray()

    def on_body(self, data: bytes) -> None:
        if self._request.target == "/early" and not self._body:
            self._responder.start(413, {"content-length": "5"})
            self._responder.write(b"early")
            self._responder.end()
        self._body += data

    def on_end(self) -> None:
        r = self._request
        if r.target == "/broken":
            raise RuntimeError(r.target)
        if r.target == "/stream":
            self._responder.start(200, {"content-type": "text/plain"})
            self._responder.write(b"begun")
            return
        if r.target == "/never":
            return
        text = f"{r.method} {r.target} {r.headers.get('x', '')} {' '.join(r.peer.common_names)}".encode() + self._body
        self._responder.start(200, {"content-length": str(len(text))})
        self._responder.write(text)
        self._responder.end()

    def on_gone(self) -> None:
        gone.append(self._request.target)

    def on_drained(self) -> None: ...


gone: list[str] = []  # requests whose clients left before the answer's end


def echo(request: Request, responder: Responder) -> Receiver:
    return _Echo(request, responder)


class Served:
    """A front that is polled as the router does it; without `serve` there are no answers."""

    def __init__(self, front: Http2Front, port: int) -> None:
        self.front = front
        self.port = port
        self.events: list[Event] = []
        self.over: set[int] = set()
        self.serve: Callable[[Event], list[Any]] = lambda event: []
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(front.fileno(), self._poll)

    def _poll(self) -> None:
        for event in self.front.poll(512):
            self.events.append(event)
            self.over |= self.front.send(self.serve(event))
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@contextlib.asynccontextmanager
async def served(tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[Served]:
    front = Http2Front(METHODS, echo, **options)
    port = await front.listen("127.0.0.1", 0, tls)
    this = Served(front, port)
    try:
        yield this
    finally:
        asyncio.get_running_loop().remove_reader(front.fileno())
        await front.close()


def calling(path: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of a gRPC call, for those who write frames by hand."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b"content-type", b"application/grpc"),
    ]


def channel(port: int, **options: Any) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=list(options.items()))


async def test_a_call_its_metadata_and_its_deadline() -> None:
    async with served() as s, channel(s.port) as to:
        s.serve = lambda e: [Reply(e.call.id, e.body[::-1])] if isinstance(e, Unary) else []
        call = to.unary_unary("/t.T/Unary")(b"abc", timeout=30, metadata=(("token", "t"), ("x-bin", b"\x00")))
        assert await call == b"cba"
        event = s.of(Unary)[0]
        assert event.call.metadata["token"] == "t"
        assert "x-bin" not in event.call.metadata
        assert 25e9 < event.call.deadline_ns - time.monotonic_ns() < 30e9
        assert await to.unary_unary("/t.T/Unary")(b"") == b""
        assert s.of(Unary)[1].call.deadline_ns is None
        answers = await asyncio.gather(*(to.unary_unary("/t.T/Unary")(b"%d" % n) for n in range(300)))
        assert answers == [(b"%d" % n)[::-1] for n in range(300)]
        assert not s.front.open_calls


async def test_errors_are_told_whole() -> None:
    async with served() as s, channel(s.port) as to:
        s.serve = lambda e: [Fail(e.call.id, Code.NOT_FOUND, "nö, 100 % not")] if isinstance(e, Unary) else []
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await to.unary_unary("/t.T/Unary")(b"")
        assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.NOT_FOUND, "nö, 100 % not")
        for path, text in (
            ("/t.T/None", "unknown method None for service t.T"),
            ("/u.U/None", "unknown service u.U"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await to.unary_unary(path)(b"")
            assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, text)


async def test_an_error_that_has_a_name_is_sent_with_it() -> None:
    async with served() as s, channel(s.port) as to:
        refused = [LEASE_NOT_FOUND, Refusal(Code.NOT_FOUND, "no such thing")]
        coming = iter(refused)
        s.serve = lambda e: [Fail(e.call.id, *next(coming))] if isinstance(e, Unary) else []
        for refusal, name in zip(refused, ("LEASE_NOT_FOUND", None), strict=True):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await to.unary_unary("/t.T/Unary")(b"")
            assert (failed.value.code().value[0], failed.value.details()) == refusal
            assert dict(failed.value.trailing_metadata() or ()).get(NAME_METADATA) == name


async def test_large_messages_go_through_and_larger_ones_are_refused() -> None:
    options = {"grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1}
    async with served(max_message_bytes=2 << 20) as s, channel(s.port, **options) as to:
        s.serve = lambda e: [Reply(e.call.id, e.body * 3)] if isinstance(e, Unary) else []
        assert await to.unary_unary("/t.T/Unary")(b"x" * (2 << 20)) == b"x" * (6 << 20)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await to.unary_unary("/t.T/Unary")(b"x" * ((2 << 20) + 1))
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failed.value.details() == "grpc: received message larger than max (2097153 vs. 2097152)"


async def test_a_large_answer_is_sent_without_waiting_for_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn sends a part of it. The next turn came only with news from the client, or with the sweep of all
    connections, so a client with large windows waited for seconds."""
    monkeypatch.setattr(module, "SWEEP_SECONDS", 600.0)
    options = {"grpc.max_receive_message_length": -1}
    async with served() as s, channel(s.port, **options) as to:
        s.serve = lambda e: [Reply(e.call.id, b"x" * (12 << 20))] if isinstance(e, Unary) else []
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*(to.unary_unary("/t.T/Unary")(b"") for _ in range(4)))
        assert [len(answer) for answer in answers] == [12 << 20] * 4


async def test_a_connection_that_reads_nothing_is_told_to_be_full_until_half_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "OWN_UNREAD_BYTES", 1 << 20)
    async with served() as s:
        s.serve = lambda e: [Reply(e.call.id, b"x" * (700 << 10))] if isinstance(e, Unary) else []
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(HELLO + frame(4, 0, 0, (4).to_bytes(2, "big") + bytes(4)))  # streams have no window
        changes: list[bool] = []
        for id in (1, 3):
            writer.write(frame(1, 4, id, block(calling(b"/t.T/Unary"))) + frame(0, 1, id, bytes(5)))
            await s.until(lambda: len(s.of(Unary)) > len(changes))
            changes.append(s.of(Unary)[0].call.peer.outbox.full)
        assert changes == [False, True], "one answer is no reason, two are"
        outbox = s.of(Unary)[0].call.peer.outbox
        room = asyncio.Event()
        outbox.when_room("test", room.set)
        wide = (4 << 20).to_bytes(4, "big")
        writer.write(frame(8, 0, 0, wide) + frame(8, 0, 1, wide))
        read = asyncio.ensure_future(reader.readexactly(600 << 10))
        async with asyncio.timeout(20):
            await read
            writer.write(frame(8, 0, 3, wide))
            await room.wait()
        assert not outbox.full
        writer.close()


async def test_gzip_is_understood_up_to_the_same_size() -> None:
    async with served(max_message_bytes=100_000) as s, channel(s.port) as to:
        s.serve = lambda e: [Reply(e.call.id, b"%d" % len(e.body))] if isinstance(e, Unary) else []
        call = to.unary_unary("/t.T/Unary")
        assert await call(b"x" * 90_000, compression=grpc.Compression.Gzip) == b"90000"
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(b"x" * 5_000_000, compression=grpc.Compression.Gzip)
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(b"x" * 9_000, compression=grpc.Compression.Deflate)
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stream_of_answers() -> None:
    async with served() as s, channel(s.port) as to:

        def serve(event: Event) -> list[Any]:
            if isinstance(event, Message):
                return [*(Send(event.id, b"%d" % n) for n in range(3)), Finish(event.id)]
            return []

        s.serve = serve
        assert [m async for m in to.unary_stream("/t.T/Many")(b"go")] == [b"0", b"1", b"2"]
        assert [type(e) for e in s.events] == [Open, Message, HalfClose]


async def test_a_half_close_does_not_end_a_stream_and_no_message_comes_beyond_the_credit() -> None:
    async with served() as s, channel(s.port) as to:
        call = to.stream_stream("/t.T/Both")(iter([b"%d" % n for n in range(50)]))
        await s.until(lambda: len(s.of(Message)) == 16)
        id = s.of(Open)[0].call.id
        await asyncio.sleep(0)
        assert not s.of(HalfClose)
        s.front.send([Credit(id, 30)])
        await s.until(lambda: len(s.of(Message)) == 46)
        assert not s.of(HalfClose)
        s.front.send([Credit(id, 30)])
        await s.until(lambda: len(s.of(HalfClose)) == 1)
        assert [e.body for e in s.of(Message)] == [b"%d" % n for n in range(50)]
        s.front.send([Send(id, b"still"), Fail(id, Code.UNAVAILABLE, "gone")])
        assert await call.read() == b"still"
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_of_answers_is_asked_for_once() -> None:
    """Or each further message would begin the work anew: sixteen snapshots for one call."""
    headers = calling(b"/t.T/Many")
    for cut in (b"", frame(0, 0, 1, b"")):  # in one piece, or each by itself
        async with served() as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            message = frame(0, 0, 1, bytes(5))
            writer.write(HELLO + frame(1, 4, 1, block(headers)) + message + cut + message + message)
            async with asyncio.timeout(10):
                assert await reader.readuntil(b"more than one message")
            await s.until(lambda: bool(s.of(Cancelled)))
            assert len(s.of(Message)) <= 1
            writer.close()


async def test_a_slow_reader_is_told_of_and_costs_no_more_than_its_queue() -> None:
    async with served() as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        # By hand, so that nothing reads ahead: a client with the default window that never gives it back.
        headers = calling(b"/t.T/Both")
        writer.write(HELLO + frame(1, 4, 1, block(headers)))
        await s.until(lambda: bool(s.of(Open)))
        id = s.of(Open)[0].call.id
        sent = 0
        while id not in s.over:
            s.over |= s.front.send([Send(id, b"x" * 10_000)])
            sent += 1
        assert 100 < sent < 130  # a window and a mebibyte
        assert not s.of(Writable)
        writer.write(frame(8, 0, 0, (1 << 22).to_bytes(4, "big")) + frame(8, 0, 1, (1 << 22).to_bytes(4, "big")))
        await s.until(lambda: bool(s.of(Writable)))
        writer.close()
        await s.until(lambda: bool(s.of(Cancelled)))
        del reader


async def test_who_gives_up_is_cancelled() -> None:
    async with served() as s, channel(s.port) as to:
        call = to.unary_unary("/t.T/Unary")(b"")
        await s.until(lambda: bool(s.of(Unary)))
        call.cancel()
        await s.until(lambda: bool(s.of(Cancelled)))
        assert s.of(Cancelled)[0].id == s.of(Unary)[0].call.id
        assert not s.front.open_calls
        s.front.send([Reply(s.of(Unary)[0].call.id, b"late")])  # the client is gone


async def test_plain_http_on_the_same_port() -> None:
    async with served() as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(
            b"GET /a?b HTTP/1.1\r\nhost: h\r\nx: y\r\n\r\nPOST /c HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody"
        )
        assert await _answer(reader) == b"GET /a?b y "
        assert await _answer(reader) == b"POST /c  body"
        writer.write(b"GET /last HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        assert await _answer(reader) == b"GET /last  "
        assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(b"RUBBISH\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def _asked(port: int, request: bytes) -> bytes:
    """Everything that is answered to `request`, whose client sends nothing after it and waits for the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        b"content-length: 4\r\ncontent-length: 5\r\n",
        b"content-length: " + b"9" * 5000 + b"\r\n",
        b"content-length: +4\r\n",
        b"content-length: 0x4\r\n",
        b"transfer-encoding: chunked, chunked\r\n",
        b"transfer-encoding : chunked\r\n",
        b"x: a\0b\r\n",
        b"x: a\rb\r\n",
        b"x: a\x01b\r\n",
        b"x: a\x7fb\r\n",
        b"x y: a\r\n",
        b"x\0: a\r\n",
        b": a\r\n",
        b"host: other\r\n",
    ],
)
async def test_a_head_that_can_be_read_in_two_ways_is_refused(head: bytes) -> None:
    async with served() as s:
        smuggled = b"4\r\nbody\r\n0\r\n\r\nGET /second HTTP/1.1\r\nhost: h\r\n\r\n"
        answer = await _asked(s.port, b"POST /first HTTP/1.1\r\nhost: h\r\n" + head + b"\r\n" + smuggled)
        status = answer.split()[1]
        assert status in (b"400", b"501"), answer
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in answer.lower()


async def test_another_version_in_the_form_of_the_first_is_refused() -> None:
    async with served() as s:
        for version in (b"2.0", b"0.9", b"1.2"):
            assert b" 400 " in await _asked(s.port, b"GET /a HTTP/%s\r\nhost: h\r\n\r\n" % version)


async def test_of_a_header_that_comes_twice_the_first_counts() -> None:
    async with served() as s:
        assert b"GET /a 1 " in await _asked(
            s.port, b"GET /a HTTP/1.1\r\nhost: h\r\nx: 1\r\nx: 2\r\nconnection: close\r\n\r\n"
        )


async def test_what_one_connection_sends_in_small_pieces_is_done_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests and pieces of bodies, however many come at once, are bounded in each turn of the loop."""
    done = [0]  # in each turn of the loop

    def turn() -> None:
        done.append(0)
        loop.call_soon(turn)

    next_event = h11.Connection.next_event

    def counted(connection: h11.Connection) -> object:
        done[-1] += 1
        return next_event(connection)

    monkeypatch.setattr(h11.Connection, "next_event", counted)
    loop = asyncio.get_running_loop()
    async with served() as s:
        loop.call_soon(turn)
        chunks = b"POST /c HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        answer = await _asked(s.port, chunks + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
        assert answer.endswith(b"x" * 20_000)
        many = b"GET /p HTTP/1.1\r\nhost: h\r\n\r\n" * 1000 + b"GET /p HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
        answer = await _asked(s.port, many)
        assert answer.count(b"GET /p") == 1001
    assert sum(done) > 21_000
    assert max(done) <= http1.EVENTS_PER_TURN


async def test_an_answer_before_the_end_of_a_request_is_read() -> None:
    """A client that sends all of its body before it reads gets the answer, not a reset."""
    async with served() as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        size = 20 << 20
        writer.write(b"POST /early HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % size)
        async with asyncio.timeout(20):
            for _ in range(20):
                writer.write(b"x" * (1 << 20))
                await writer.drain()
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()
        assert answer.endswith(b"early")
        writer.close()


async def test_who_goes_on_sending_after_the_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "LINGER_BYTES", 1 << 20)
    async with served() as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(b"POST /early HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")

        async def send_for_ever() -> None:
            while True:
                writer.write(b"10000\r\n" + b"x" * (1 << 16) + b"\r\n")
                await writer.drain()

        async with asyncio.timeout(20):
            with pytest.raises(ConnectionError):
                await send_for_ever()
        writer.close()
    monkeypatch.setattr(http1, "LINGER_SECONDS", 0.1)
    async with served() as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(b"POST /early HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nx")
        async with asyncio.timeout(20):
            assert (await reader.read()).endswith(b"early")
            while s.front.connections:  # the client never closes
                await asyncio.sleep(0.01)
        writer.close()


async def test_a_request_that_fails_inside_is_answered() -> None:
    async with served() as s:
        assert b" 500 " in await _asked(s.port, b"GET /broken HTTP/1.1\r\nhost: h\r\n\r\n")


async def test_plain_http_in_version_2() -> None:
    async with served() as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        headers = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/page"), (b"x", b"y")]
        writer.write(HELLO + frame(1, 5, 1, block(headers)))
        async with asyncio.timeout(10):
            assert b"GET /page y" in await reader.readuntil(b"GET /page y")
        writer.close()


async def test_more_connections_than_there_is_room_for_are_refused() -> None:
    async with served(max_connections=2) as s:
        kept = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n")
            assert await _answer(reader) == b"GET /a  "
            kept.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert not await reader.read()
        kept[0].write(b"GET /last HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            while len(s.front.connections) > 1:
                await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(b"GET /b HTTP/1.1\r\nhost: h\r\n\r\n")
        assert await _answer(reader) == b"GET /b  "
        for one in (*kept, writer):
            one.close()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return await reader.readexactly(size)


async def test_the_newest_connection_takes_the_place_of_the_quietest() -> None:
    async with served(max_connections=2, newest_first=True) as s:
        ask = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n"
        wires = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(ask)
            assert await _answer(reader) == b"GET /a  "
            wires.append((reader, writer))
        wires[0][1].write(ask)
        assert await _answer(wires[0][0]) == b"GET /a  "
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(ask)
        assert await _answer(reader) == b"GET /a  "
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert await wires[1][0].read() == b""
        wires[0][1].write(ask)
        assert await _answer(wires[0][0]) == b"GET /a  "
        assert len(s.front.connections) == 2
        for _, one in (*wires, (reader, writer)):
            one.close()


async def test_a_connection_that_says_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_BYTES_SECONDS", 0.1)
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.05)
    async with served() as s:
        for first in (b"", b"PRI * HT", b"GET / HTTP/1.1\r\nhalf"):
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(first)
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):
                    assert not await reader.read()
            writer.close()


async def test_a_peer_that_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.05)
    async with served(keepalive_seconds=0.2, keepalive_timeout_seconds=0.2) as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(HELLO)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert b"holdfast" in await reader.read(-1)  # our ping, unanswered, then the end
        writer.close()
        assert not s.front.connections


async def test_a_client_that_floods_waits_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_CALLS", 10)
    async with served() as s, channel(s.port) as flooding, channel(s.port, x=1) as other:
        calls = [flooding.unary_unary("/t.T/Unary")(b"flood" * 20_000) for _ in range(60)]
        await s.until(lambda: len(s.of(Unary)) > 10)
        quiet = other.unary_unary("/t.T/Unary")(b"quiet")
        await s.until(lambda: any(e.body == b"quiet" for e in s.of(Unary)))
        assert len(s.of(Unary)) < 61  # not all were read
        s.front.send([Reply(e.call.id, b"ok") for e in s.of(Unary)])
        assert await quiet == b"ok"
        s.serve = lambda e: [Reply(e.call.id, b"ok")] if isinstance(e, Unary) else []
        s.front.send([Reply(e.call.id, b"ok") for e in s.of(Unary)])
        assert await asyncio.gather(*calls) == [b"ok"] * 60


async def test_messages_that_never_become_whole_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_BUFFERED_BYTES", 1 << 20)
    monkeypatch.setattr(session, "BUFFERED_FLOOR_BYTES", 1 << 16)
    async with served() as s, channel(s.port) as other:
        s.serve = lambda e: [Reply(e.call.id, b"ok")] if isinstance(e, Unary) else []
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        headers = calling(b"/t.T/Unary")
        begun = b"\x00\x00\x1f\xff\xff" + b"x" * 16_000
        writer.write(
            HELLO + b"".join(frame(1, 4, id, block(headers)) + frame(0, 0, id, begun) for id in range(1, 201, 2))
        )
        async with asyncio.timeout(10):
            assert b"too many requests" in await reader.readuntil(b"too many requests")
        assert s.front.buffered <= 1 << 20
        assert await other.unary_unary("/t.T/Unary")(b"whole") == b"ok"
        writer.close()
        await s.until(lambda: bool(s.of(Cancelled)) and not s.front.open_calls)
        assert s.front.buffered == 0


async def test_a_connection_may_have_as_many_calls_open_as_there_is_room_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CALLS", 90)
    async with served() as s, channel(s.port) as other:
        s.serve = lambda e: [Reply(e.call.id, b"ok")] if isinstance(e, Unary) else []
        held = []
        for number, path in enumerate((b"/t.T/Unary", b"/t.T/Both", b"/a/page")):
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            fields = calling(path) if path.startswith(b"/t") else calling(path)[:3]
            writer.write(HELLO + b"".join(frame(1, 4, id, block(fields)) for id in range(1, 401, 2)))
            async with asyncio.timeout(10):
                assert await reader.readuntil(b"too many requests" if number < 2 else b"\x00\x00\x00\x07")
            held.append(writer)
            assert await other.unary_unary("/t.T/Unary")(b"") == b"ok"
        assert 60 < s.front.streams < 90
        for writer in held:
            writer.close()
        async with asyncio.timeout(10):
            while s.front.streams:
                await asyncio.sleep(0)
        assert await other.unary_unary("/t.T/Unary")(b"") == b"ok"


async def test_the_room_for_messages_is_shared_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_BUFFERED_BYTES", 1 << 20)
    monkeypatch.setattr(session, "BUFFERED_FLOOR_BYTES", 1 << 10)
    async with served() as s:
        s.serve = lambda e: [Reply(e.call.id, b"ok")] if isinstance(e, Unary) else []
        half = b"\x00\x00\x1f\xff\xff" + b"x" * 16_000
        small = b"\x00\x00\x00\x00\x01x" * 2_000  # whole messages, beyond the credit of their call
        for path, data in ((b"/t.T/Unary", half), (b"/t.T/Both", small)):
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            calls = (frame(1, 4, id, block(calling(path))) + frame(0, 0, id, data) for id in range(1, 201, 2))
            writer.write(HELLO + b"".join(calls))
            async with asyncio.timeout(10):
                assert await reader.readuntil(b"too many requests")
            assert s.front.buffered < 1 << 20
            writer.close()
            async with asyncio.timeout(10):
                while s.front.connections or s.front.streams:
                    await asyncio.sleep(0)
            assert s.front.buffered == 0


async def test_a_request_that_does_not_come_is_ended_and_a_stream_that_is_quiet_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "REQUEST_NS", 100_000_000)
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.05)
    gone.clear()
    async with served() as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        opened = [calling(b"/t.T/Unary"), calling(b"/t.T/Many"), calling(b"/late")[:3], calling(b"/t.T/Both")]
        writer.write(HELLO + b"".join(frame(1, 4, 2 * n + 1, block(fields)) for n, fields in enumerate(opened)))
        async with asyncio.timeout(10):
            for _ in range(2):
                assert await reader.readuntil(b"did not come in time")
            while gone != ["/late"]:
                await asyncio.sleep(0.01)
        assert [entry.call.method for entry in s.front.open_calls.values()] == ["/t.T/Both"]
        writer.write(frame(0, 0, 7, b"\x00\x00\x00\x00\x05"))  # its message begins, and never ends
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"did not come in time")
        writer.close()


async def test_a_request_is_awaited_no_longer_than_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.05)
    async with served() as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(HELLO + frame(1, 4, 1, block([*calling(b"/t.T/Unary"), (b"grpc-timeout", b"1m")])))
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"did not come in time")
        writer.close()


async def test_connections_take_turns_with_their_calls() -> None:
    async with served() as s, channel(s.port) as other:
        asyncio.get_running_loop().remove_reader(s.front.fileno())
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        call = block(calling(b"/t.T/Unary"))
        writer.write(HELLO + b"".join(frame(1, 4, id, call) + frame(0, 1, id, bytes(5)) for id in range(1, 801, 2)))
        quiet = other.unary_unary("/t.T/Unary")(b"quiet")
        async with asyncio.timeout(10):
            while len(s.front.open_calls) < 401:
                await asyncio.sleep(0)
        events = [e for e in s.front.poll(2 * module.TURN_CALLS) if isinstance(e, Unary)]
        assert b"quiet" in [e.body for e in events]
        assert len(events) < 20 + module.TURN_CALLS
        s.front.send([Reply(e.call.id, b"ok") for e in events])
        assert await quiet == b"ok"
        found = len(events)
        while more := s.front.poll(64):
            found += len(more)
        assert found == 401
        writer.close()
        del reader


async def test_large_requests_are_polled_a_few_at_a_time() -> None:
    async with served() as s, channel(s.port) as client:
        asyncio.get_running_loop().remove_reader(s.front.fileno())
        large = bytes(module.TURN_BYTES * 3 // 4)
        answers = [client.unary_unary("/t.T/Unary")(large) for _ in range(5)]
        async with asyncio.timeout(10):
            while sum(session.unanswered for session in s.front._turns) < 5:
                await asyncio.sleep(0)
        counts = []
        while s.front.waiting:
            events = [e for e in s.front.poll(64) if isinstance(e, Unary)]
            counts.append(len(events))
            s.front.send([Reply(e.call.id, b"ok") for e in events])
        assert counts == [2, 2, 1]
        assert [await answer for answer in answers] == [b"ok"] * 5


async def test_a_call_that_is_given_up_before_its_turn_is_not_served() -> None:
    async with served() as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        call, cancel = block(calling(b"/t.T/Unary")), b"\x00\x00\x00\x08"
        for id in range(1, 201, 2):
            writer.write((HELLO if id == 1 else b"") + frame(1, 4, id, call) + frame(0, 1, id, bytes(5)))
            writer.write(frame(3, 0, id, cancel))
        writer.write(frame(1, 4, 201, call) + frame(0, 1, 201, bytes(5)))
        s.serve = lambda e: [Reply(e.call.id, b"ok")] if isinstance(e, Unary) else []
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"ok")
        assert len(s.of(Unary)) + len(s.of(Cancelled)) < 190  # no event, or one: services need not know
        writer.close()


async def test_an_answer_that_cannot_be_sent_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    bad: Any = object()
    async with served() as s, channel(s.port) as to:
        calls = [to.unary_unary("/t.T/Unary")(b"%d" % n) for n in range(4)]
        stream = to.unary_stream("/t.T/Many")(b"")
        await s.until(lambda: len(s.of(Unary)) == 4 and bool(s.of(Message)))
        ids = {int(e.body): e.call.id for e in s.of(Unary)}
        streaming = s.of(Open)[0].call.id
        s.front.send(
            [
                Reply(ids[0], b"zero"),
                Reply(ids[1], bad),
                Fail(ids[2], bad, "text"),
                Send(streaming, b"first"),
                Send(streaming, bad),
                Reply(ids[3], b"three"),
            ]
        )
        assert await calls[0] == b"zero"
        assert await calls[3] == b"three"
        for call in calls[1:3]:
            assert await call.code() is grpc.StatusCode.INTERNAL
        assert await stream.code() is grpc.StatusCode.INTERNAL
        await s.until(lambda: streaming in [e.id for e in s.of(Cancelled)])
        assert not s.front.open_calls
    assert "an answer to /t.T/Unary cannot be sent" in caplog.text


async def test_what_is_said_of_long_things_is_short() -> None:
    async with served() as s, channel(s.port, **{"grpc.max_metadata_size": 1 << 20}) as to:
        for path in ("/" + "a" * 20_000 + "/x", "/" + "\xff" * 20_000 + "/x"):
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            fields = block(calling(path.encode("latin-1")))
            parts = [fields[at : at + 16_000] for at in range(0, len(fields), 16_000)]
            writer.write(HELLO + frame(1, 1, 1, parts[0]) + frame(9, 4, 1, b"".join(parts[1:])))
            async with asyncio.timeout(10):
                answer = await reader.readuntil(b"...")
            assert b"unknown service" in answer
            assert len(answer) < 5_000
            writer.close()
        s.serve = lambda e: [Fail(e.call.id, Code.INTERNAL, "\U0001f600" * 1_000_000)] if isinstance(e, Unary) else []
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await to.unary_unary("/t.T/Unary")(b"")
        assert set((failed.value.details() or "").removesuffix("...")) == {"\U0001f600"}


async def test_a_content_type_that_only_begins_like_grpc_is_refused() -> None:
    async with served() as s:
        for kind, expected in ((b"application/grpcfoo", b"\x03415"), (b"application/grpc+proto", b"\x88")):
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            fields = [*calling(b"/t.T/None")[:3], (b"content-type", kind)]
            writer.write(HELLO + frame(1, 5, 1, block(fields)))
            async with asyncio.timeout(10):
                await reader.readuntil(expected)
            writer.close()


async def test_a_flood_of_unknown_methods_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_NS", 600 * 10**9)  # however long this machine takes for so many
    async with served() as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        call = block(calling(b"/t.T/None"))
        writer.write(HELLO + b"".join(frame(1, 5, id, call) for id in range(1, 12_001, 2)))
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                assert b"carry nothing" in (await reader.read(-1))[-200:]
            writer.close()
            while s.front.streams:  # the client may hear of the end before the server has forgotten the connection
                await asyncio.sleep(0)


async def test_a_request_that_is_cut_off_leaves_nothing_behind() -> None:
    endless = b"POST /stream HTTP/1.1\r\nhost: h\r\n\r\n"
    half_body = b"POST /stream HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nhalf"
    never = b"POST /never HTTP/1.1\r\nhost: h\r\n\r\n"  # nothing to answer yet
    flood = endless + b"GET /next HTTP/1.1\r\nhost: h\r\n\r\n" * 10_000
    async with served() as s:
        for asked, ends in ((half_body, True), (endless, True), (never, True), (flood, False)):
            gone.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(asked)
            if ends:
                writer.write_eof()
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):
                    answer = await reader.read()
                    assert (b"begun" in answer) == (asked is endless or asked is flood)
            assert gone == [asked.split()[1].decode()]
            writer.close()
        assert not s.front.connections


async def test_a_request_whose_body_does_not_come_is_ended_and_a_stream_that_is_quiet_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRST_BYTES_SECONDS", 0.1)
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.05)
    gone.clear()
    async with served() as s:
        quiet, quiet_writer = await asyncio.open_connection("127.0.0.1", s.port)
        quiet_writer.write(b"GET /stream HTTP/1.1\r\nhost: h\r\n\r\n")
        await quiet.readuntil(b"begun")
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(b"POST /half HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nhalf")
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        assert gone == ["/half"]
        assert len(s.front.connections) == 1
        writer.close()
        quiet_writer.close()


def _unread(port: int) -> socket.socket:
    """A connection whose client reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


async def test_who_does_not_read_is_not_read_from() -> None:
    headers = calling(b"/t.T/Unary")
    wide = frame(4, 0, 0, b"\x00\x04\x7f\xff\xff\xff") + frame(8, 0, 0, ((1 << 31) - 70_000).to_bytes(4, "big"))
    async with served() as s:
        s.serve = lambda e: [Reply(e.call.id, b"x" * 100_000)] if isinstance(e, Unary) else []
        loop, client = asyncio.get_running_loop(), _unread(s.port)
        await loop.sock_sendall(client, HELLO + wide)
        id = 1
        with contextlib.suppress(TimeoutError):
            while id < 20_000:  # it sends requests until none is accepted
                async with asyncio.timeout(2):
                    padding = [(b"x", b"y" * 8000)]
                    call = frame(1, 4, id, block([*headers, *padding])) + frame(0, 1, id, b"\x00\x00\x00\x00\x00")
                    await loop.sock_sendall(client, call)
                id += 2
        answered = len(s.of(Unary))
        assert answered < 1000
        (wire,) = s.front.connections
        held = wire._transport.get_write_buffer_size() + s.front.queued
        assert held < 20 << 20, f"{held} bytes wait for a client that reads nothing, after {answered} calls"
        taken = 0
        while taken < 10 << 20:  # it reads at last, and all goes on
            async with asyncio.timeout(10):
                taken += len(await loop.sock_recv(client, 1 << 20))
        await s.until(lambda: len(s.of(Unary)) > answered)
        client.close()


async def test_a_connection_that_takes_nothing_for_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALLED_SECONDS", 1.0)
    headers = calling(b"/t.T/Many")
    async with served() as s:
        client = _unread(s.port)
        opening = HELLO + frame(8, 0, 0, b"\x7f\x00\x00\x00") + frame(4, 0, 0, b"\x00\x04\x7f\xff\xff\xff")
        await asyncio.get_running_loop().sock_sendall(client, opening + frame(1, 5, 1, block(headers)))
        await s.until(lambda: bool(s.of(Open)))
        for _ in range(8):
            s.front.send([Send(s.of(Open)[0].call.id, b"x" * 1_000_000)])
        assert s.front.queued
        await s.until(lambda: bool(s.of(Cancelled)))
        assert not s.front.connections
        assert not s.front.queued
        client.close()


async def test_answers_that_nobody_fetches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket takes everything, but the client never opens its windows."""
    monkeypatch.setattr(session, "MAX_BUFFERED_BYTES", 4 << 20)
    unary, stays = calling(b"/t.T/Unary"), calling(b"/t.T/Both")
    async with served() as s, channel(s.port) as other:
        s.serve = lambda e: [Reply(e.call.id, b"x" * 100_000)] if isinstance(e, Unary) else []
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(HELLO + frame(1, 4, 1, block(stays)))
        answer, asked = b"", 0
        async with asyncio.timeout(10):
            while b"too many requests" not in answer:
                asked += 1
                id = 2 * asked + 1
                writer.write(frame(1, 4, id, block(unary)) + frame(0, 1, id, bytes(5)))
                answer = await reader.read(1 << 17)
                assert answer
        assert asked < 60
        assert s.front.queued < 5 << 20
        assert await other.unary_unary("/t.T/Unary")(b"", timeout=10) == b"x" * 100_000
        writer.close()
        await s.until(lambda: bool(s.of(Cancelled)))
        assert s.front.queued == 0


async def test_draining_lets_calls_end_and_takes_no_new_ones() -> None:
    async with served() as s, channel(s.port) as to:
        call = to.unary_unary("/t.T/Unary")(b"")
        await s.until(lambda: bool(s.of(Unary)))
        draining = asyncio.ensure_future(s.front.drain(10))
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="111"):
            await asyncio.open_connection("127.0.0.1", s.port)
        assert not draining.done()
        s.front.send([Reply(s.of(Unary)[0].call.id, b"done")])
        await draining
        assert await call == b"done"


# ---- TLS -------------------------------------------------------------------------------------------------------


def _secure(port: int, authority: Authority, name: str | None) -> grpc.aio.Channel:
    key, certificate = authority.client(name) if name else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.certificate, key, certificate)
    return grpc.aio.secure_channel(f"localhost:{port}", credentials)


async def test_tls_tells_who_calls_and_certificates_are_read_again(tmp_path: Path) -> None:
    first, second = Authority("first"), Authority("second")
    first.write_server(tmp_path)
    files = TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    async with served(server_context(files, alpn=("h2", "http/1.1"))) as s:
        s.serve = lambda e: (
            [Reply(e.call.id, "".join(e.call.peer.common_names).encode())] if isinstance(e, Unary) else []
        )
        async with _secure(s.port, first, "ann") as to:
            assert await to.unary_unary("/t.T/Unary")(b"", wait_for_ready=True, timeout=20) == b"ann"
        for authority, name in ((first, None), (second, "ann")):
            async with _secure(s.port, authority, name) as to:
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await to.unary_unary("/t.T/Unary")(b"", timeout=5)
                assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        context = ssl.create_default_context(cadata=first.certificate.decode())
        first.load_client(context, "bob", tmp_path)
        reader, writer = await asyncio.open_connection("localhost", s.port, ssl=context)
        writer.write(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n")
        assert await _answer(reader) == b"GET /a  bob"
        writer.close()
        # Another authority signs everything from now on.
        second.write_server(tmp_path)
        await asyncio.sleep(1.1)  # files are looked at once a second at most
        async with _secure(s.port, second, "cid") as to:
            assert await to.unary_unary("/t.T/Unary")(b"", wait_for_ready=True, timeout=20) == b"cid"
        async with _secure(s.port, first, "ann") as to:
            with pytest.raises(grpc.aio.AioRpcError):
                await to.unary_unary("/t.T/Unary")(b"", timeout=5)
        # What cannot be used changes nothing.
        (tmp_path / "tls.crt").write_text("half a certifica")
        await asyncio.sleep(1.1)
        async with _secure(s.port, second, "cid") as to:
            assert await to.unary_unary("/t.T/Unary")(b"", wait_for_ready=True, timeout=20) == b"cid"


async def test_versions_of_tls_below_the_lowest_are_refused(tmp_path: Path) -> None:
    authority = Authority("only")
    authority.write_server(tmp_path)
    files = TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key", None, ssl.TLSVersion.TLSv1_3)
    async with served(server_context(files)) as s:
        context = ssl.create_default_context(cadata=authority.certificate.decode())
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("localhost", s.port, ssl=context)
