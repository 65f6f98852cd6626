"""The front on grpcio's asyncio server: works everywhere, at about 200 microseconds of CPU a call.

Each call is a coroutine of grpcio's that puts its events in one queue and waits for the actions on it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from holdfast.front.calls import (
    Action,
    Call,
    Cancelled,
    Credit,
    Event,
    Fail,
    Finish,
    HalfClose,
    Kind,
    Message,
    Open,
    Peer,
    Reply,
    Send,
    Unary,
    Writable,
)

HIGH_WATER_BYTES = 1 << 20
FIRST_CREDIT = 16
MAX_CALLS = 20_000
MAX_RECEIVE_BYTES = 2 << 20  # etcd's: the largest request and 512 KiB around it

_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class AddressInUse(Exception):
    """The client port cannot be had."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM bytes. With `client_ca` a client has to show a certificate signed by it."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class _Stream:
    """The way out of one streaming call."""

    __slots__ = ("credit", "end", "more", "over", "queue", "queued", "wake")

    def __init__(self) -> None:
        self.queue: deque[bytes] = deque()
        self.queued = 0
        self.over = False
        self.end: Fail | Finish | None = None
        self.wake = asyncio.Event()  # something to send, or the end
        self.credit = FIRST_CREDIT
        self.more = asyncio.Event()  # credit came


class GrpcioFront:
    """Serves `methods` (full path to kind) on one or more addresses."""

    def __init__(self, methods: Mapping[str, Kind]) -> None:
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._events: deque[Event] = deque()
        self._ids = itertools.count(1)
        self._unary: dict[int, asyncio.Future[Reply | Fail]] = {}
        self._streams: dict[int, _Stream] = {}
        self._handlers = {path: self._handler(path, kind) for path, kind in methods.items()}
        # Interval and strikes as etcd enforces them (5 s), not grpcio's 300 s, or Go clients get GOAWAY.
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),  # otherwise a second process silently shares the port
                ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
                ("grpc.max_send_message_length", (1 << 31) - 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.keepalive_time_ms", 7_200_000),
                ("grpc.keepalive_timeout_ms", 20_000),
            ]
        )
        self._server.add_generic_rpc_handlers((_Methods(self._handlers),))

    def listen(self, address: str, tls: Tls | None) -> int:
        """Bind `address` (host:port). Returns the port."""
        try:
            if tls is None:
                return int(self._server.add_insecure_port(address))
            credentials = grpc.ssl_server_credentials(
                [(tls.key, tls.certificate)], tls.client_ca, require_client_auth=tls.client_ca is not None
            )
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise AddressInUse(f"cannot listen for clients on {address}: is another process using the port?") from error

    async def start(self) -> None:
        await self._server.start()

    # ---- the interface -------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._event

    def poll(self, max_events: int) -> list[Event]:
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return []
        events = [self._events.popleft() for _ in range(min(max_events, len(self._events)))]
        if self._events:
            os.eventfd_write(self._event, 1)
        return events

    def send(self, actions: Iterable[Action]) -> set[int]:
        over: set[int] = set()
        for action in actions:
            if isinstance(action, Reply | Fail) and action.id in self._unary:
                future = self._unary.pop(action.id)
                if not future.done():
                    future.set_result(action)
                continue
            stream = self._streams.get(action.id)
            if stream is None or stream.end is not None:
                continue
            if isinstance(action, Send):
                stream.queue.append(action.body)
                stream.queued += len(action.body)
                if stream.queued > HIGH_WATER_BYTES:
                    stream.over = True
                    over.add(action.id)
                stream.wake.set()
            elif isinstance(action, Credit):
                stream.credit += action.count
                stream.more.set()
            elif isinstance(action, Fail | Finish):
                stream.end = action
                stream.wake.set()
        return over

    async def drain(self, grace_seconds: float) -> None:
        await self._server.stop(grace_seconds)

    async def close(self) -> None:
        await self._server.stop(0)
        os.close(self._event)

    # ---- calls ---------------------------------------------------------------------------------------------

    def _push(self, event: Event) -> None:
        if not self._events:
            os.eventfd_write(self._event, 1)
        self._events.append(event)

    def _call(self, path: str, context: Any) -> Call:
        remaining = context.time_remaining()
        metadata = {k: v for k, v in context.invocation_metadata() or () if isinstance(v, str)}
        names = context.auth_context().get("x509_common_name") or [b""]
        tls = "transport_security_type" in context.auth_context()
        peer = Peer(context.peer(), tls, names[0].decode("utf-8", "replace"))
        deadline = None if remaining is None else time.monotonic_ns() + int(remaining * 1e9)
        return Call(next(self._ids), path, peer, metadata, deadline)

    def _handler(self, path: str, kind: Kind) -> Any:
        if kind is Kind.UNARY:

            async def unary(body: bytes, context: Any) -> bytes:
                return await self._serve_unary(path, body, context)

            return grpc.unary_unary_rpc_method_handler(unary)
        if kind is Kind.SERVER_STREAM:

            async def server_stream(body: bytes, context: Any) -> None:
                await self._serve_stream(path, _once(body), context)

            return grpc.unary_stream_rpc_method_handler(server_stream)

        async def bidi(requests: AsyncIterator[bytes], context: Any) -> None:
            await self._serve_stream(path, requests, context)

        return grpc.stream_stream_rpc_method_handler(bidi)

    async def _serve_unary(self, path: str, body: bytes, context: Any) -> bytes:
        if len(self._unary) + len(self._streams) >= MAX_CALLS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
        call = self._call(path, context)
        future: asyncio.Future[Reply | Fail] = asyncio.get_running_loop().create_future()
        self._unary[call.id] = future
        self._push(Unary(call, body))
        try:
            answer = await future
        except asyncio.CancelledError:
            self._unary.pop(call.id, None)
            self._push(Cancelled(call.id, "the client gave up"))
            raise
        if isinstance(answer, Fail):
            await context.abort(_STATUS[answer.code.value], answer.text)
            raise AssertionError("abort raises")
        return answer.body

    async def _serve_stream(self, path: str, requests: AsyncIterator[bytes], context: Any) -> None:
        if len(self._unary) + len(self._streams) >= MAX_CALLS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
        call = self._call(path, context)
        stream = self._streams[call.id] = _Stream()
        self._push(Open(call))
        reader = asyncio.ensure_future(self._read(call.id, stream, requests))
        try:
            end = await self._write(call.id, stream, context)
        except BaseException:
            self._push(Cancelled(call.id, "the client ended the call"))
            raise  # swallowing a cancellation leaks native memory for every stream (grpc issue 43360)
        finally:
            del self._streams[call.id]
            reader.cancel()
        if isinstance(end, Fail):
            await context.abort(_STATUS[end.code.value], end.text)

    async def _read(self, id: int, stream: _Stream, requests: AsyncIterator[bytes]) -> None:
        async for body in requests:
            while stream.credit <= 0:
                stream.more.clear()
                await stream.more.wait()
            stream.credit -= 1
            self._push(Message(id, body))
        self._push(HalfClose(id))

    async def _write(self, id: int, stream: _Stream, context: Any) -> Fail | Finish:
        while True:
            while stream.queue:
                body = stream.queue.popleft()
                await context.write(body)
                stream.queued -= len(body)
                if stream.over and stream.queued < HIGH_WATER_BYTES // 2:
                    stream.over = False
                    self._push(Writable(id))
            if stream.end is not None:
                return stream.end
            stream.wake.clear()
            await stream.wake.wait()


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)
