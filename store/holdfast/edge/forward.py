"""Forwards calls from a replica to its cluster over gRPC, unchanged.

A forwarded call acts for its original caller. It carries the caller's token, or the name in the certificate that the
caller has shown here (`edge.access`), and a mark, so that the member does not use the replica's certificate as the
caller's identity.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from holdfast.api.identity import FORWARDED
from holdfast.api.router import Router
from holdfast.client.closed import channel_may_close
from holdfast.client.connection import Connection, Tls
from holdfast.client.errors import Unavailable
from holdfast.edge.access import Access
from holdfast.front.calls import Call, Credit
from holdfast.proto import rpc_pb2
from holdfast.status import SITE_METADATA, Code, Refusal, RequestError

FORWARD_SECONDS = 7.0
MAX_ANSWER_BYTES = 64 << 20  # a replica runs where memory is scarce
_NO_ANSWER = Refusal(Code.INTERNAL, "holdfast: the upstream answered with something that is no answer")
ANSWER_TOO_LARGE = Refusal(
    Code.RESOURCE_EXHAUSTED,
    f"holdfast: the answer has more than {MAX_ANSWER_BYTES >> 20} MiB, which a replica does not forward: read in pages "
    "(limit), or at a member",
)
_LARGER = "Received message larger than max"  # in an error of gRPC's own
# The caller's metadata that is forwarded.
_PASSED_ON = (
    "token",
    "authorization",
    "hasleader",
    "client-api-version",
    "holdfast-session",
    "holdfast-seq",
    "holdfast-low",
    "holdfast-read",
)


def connection_to(endpoints: Sequence[str], tls: Tls | None, cache_dir: Path) -> Connection:
    """To servers that a replica follows and forwards to."""
    return Connection(
        list(endpoints), tls=tls, timeout=FORWARD_SECONDS, cache_dir=cache_dir, max_answer_bytes=MAX_ANSWER_BYTES
    )


class Forwarder:
    """Forwards calls to any endpoint that can be reached."""

    def __init__(self, connection: Connection, access: Access, *, site: str = "") -> None:
        """`site`: the calls are about keys of this site."""
        self._connection = connection
        self._access = access
        self._mark = [(FORWARDED, "1"), *([(SITE_METADATA, site)] if site else [])]

    def on_behalf_of(self, call: Call) -> list[tuple[str, str]]:
        """The metadata of a forwarded call."""
        passed_on = [(name, call.metadata[name]) for name in _PASSED_ON if name in call.metadata]
        for name, value in passed_on:
            if not (value.isascii() and value.isprintable()):
                text = f"holdfast: the value of the metadata {name} is not printable ASCII"
                raise RequestError(Refusal(Code.INVALID_ARGUMENT, text))
        return [*passed_on, *self._access.on_behalf_of(call), *self._mark]

    async def ask(self, method: str, body: bytes, token: str) -> bytes:
        """Make a call for whoever has this token. Raises RequestError."""
        try:
            channel = await self.channel(FORWARD_SECONDS)
            with channel_may_close():
                answer: bytes = await channel.unary_unary(method)(
                    body, timeout=FORWARD_SECONDS, metadata=[("token", token), (FORWARDED, "1")]
                )
        except (Unavailable, grpc.aio.AioRpcError) as error:
            raise RequestError(refusal(error)) from error
        return answer

    async def call(self, call: Call, body: bytes, seconds: float | None) -> bytes:
        """Forward a unary call and return the response. `seconds`: until it fails; None: it may take any time. Raises
        RequestError with the cluster's error, or if the cluster cannot be reached."""
        timeout = None if seconds is None else max(0.001, seconds)
        try:
            channel = await self.channel(FORWARD_SECONDS if seconds is None else seconds)
            with channel_may_close():
                answer: bytes = await channel.unary_unary(call.method)(
                    body, timeout=timeout, metadata=self.on_behalf_of(call)
                )
        except (Unavailable, grpc.aio.AioRpcError) as error:
            raise RequestError(refusal(error)) from error
        return answer

    async def channel(self, seconds: float) -> grpc.aio.Channel:
        """A connected channel to one of the endpoints. Raises Unavailable."""
        last: Unavailable | None = None
        for address in await self._connection.order(write=True):
            try:
                return await self._connection.ready(address, min(2.0, max(0.001, seconds)))
            except Unavailable as error:
                last = error
        raise last or Unavailable("no endpoints")


def seconds_left(call: Call, longest: float = FORWARD_SECONDS) -> float:
    """Until the call's deadline, but no more than `longest`. It may be negative."""
    return longest if call.deadline_ns is None else min(longest, (call.deadline_ns - time.monotonic_ns()) / 1e9)


def header_of(answer: bytes, kind: Callable[[], Any]) -> rpc_pb2.ResponseHeader:
    """The header of a response of this type. Raises RequestError if the answer is none."""
    response = kind()
    try:
        response.ParseFromString(answer)
    except DecodeError:
        raise RequestError(_NO_ANSWER) from None
    header: rpc_pb2.ResponseHeader = response.header
    return header


def refusal(error: Unavailable | grpc.aio.AioRpcError) -> Refusal:
    """The error to return to the caller when forwarding failed."""
    if isinstance(error, grpc.aio.AioRpcError):
        if _LARGER in (error.details() or ""):
            return ANSWER_TOO_LARGE
        return Refusal(Code(error.code().value[0]), error.details() or "")
    return Refusal(Code.UNAVAILABLE, f"holdfast: {error}")


class ForwardedKeepAlives:
    """A keep-alive stream, forwarded message by message."""

    def __init__(self, forwarder: Forwarder, router: Router, call: Call) -> None:
        self._forwarder = forwarder
        self._router = router
        self._call = call
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._run())

    def on_message(self, body: bytes) -> None:
        self._requests.put_nowait(body)

    def on_half_close(self) -> None:
        self._requests.put_nowait(None)

    def on_cancelled(self) -> None:
        self._task.cancel()

    def on_over(self) -> None:
        """Nothing to do: the credit bounds what is sent."""

    def on_writable(self) -> None:
        """See `on_over`."""

    async def _run(self) -> None:
        router, call = self._router, self._call
        try:
            channel = await self._forwarder.channel(FORWARD_SECONDS)
            stream = channel.stream_stream(call.method)(metadata=self._forwarder.on_behalf_of(call))
            try:
                while (body := await self._requests.get()) is not None:
                    with channel_may_close():
                        async with asyncio.timeout(FORWARD_SECONDS):
                            await stream.write(body)
                            answer = await stream.read()
                    if answer is grpc.aio.EOF:
                        raise Unavailable("the cluster ended the stream")
                    router.send(call.id, answer)
                    router.act(Credit(call.id, 1))
            finally:
                stream.cancel()
            router.finish(call.id)
        except TimeoutError:
            router.fail(call.id, Refusal(Code.UNAVAILABLE, f"holdfast: no answer within {FORWARD_SECONDS:g} s"))
        except (Unavailable, grpc.aio.AioRpcError) as error:
            router.fail(call.id, refusal(error))
        except RequestError as error:
            router.fail(call.id, error.refusal)


class ForwardedAnswers:
    """A call with one request and many answers. It reads on only while its client keeps up."""

    def __init__(self, forwarder: Forwarder, router: Router, call: Call) -> None:
        self._forwarder = forwarder
        self._router = router
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def on_message(self, body: bytes) -> None:
        if self._task is None:
            self._task = asyncio.ensure_future(self._run(body))

    def on_half_close(self) -> None:
        """Nothing to do: the request was all."""

    def on_cancelled(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def on_over(self) -> None:
        self._writable.clear()

    def on_writable(self) -> None:
        self._writable.set()

    async def _run(self, body: bytes) -> None:
        router, call = self._router, self._call
        try:
            channel = await self._forwarder.channel(FORWARD_SECONDS)
            stream = channel.unary_stream(call.method)(body, metadata=self._forwarder.on_behalf_of(call))
            try:
                while True:
                    await self._writable.wait()
                    with channel_may_close():
                        answer = await stream.read()
                    if answer is grpc.aio.EOF:
                        break
                    router.send(call.id, answer)
                    router.flush()
            finally:
                stream.cancel()
            router.finish(call.id)
        except (Unavailable, grpc.aio.AioRpcError) as error:
            router.fail(call.id, refusal(error))
        except RequestError as error:
            router.fail(call.id, error.refusal)
        router.flush()
