"""Makes calls to a list of endpoints: channels, round-robin and fail-over.

A read is tried at one endpoint after the other until its timeout, and so is a write named by a session (it takes effect
once, see `session.py`). Any other write is sent only over an established connection and never twice: if the answer is
lost, the caller gets OutcomeUnknown.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from holdfast.client.errors import OutcomeUnknown, Refused, Unavailable, known_of, refused
from holdfast.client.login import Login, Metadata
from holdfast.proto import rpc_pb2
from holdfast.status import (
    LEARNER_UNSUPPORTED,
    NO_STATE,
    NOT_A_MEMBER,
    NOT_RECOVERED,
    REPLICA_DISCONNECTED,
    REPLICA_EMPTY,
    Known,
    said_by_server,
)

CONNECT_SECONDS = 3.0
PAUSE_SECONDS = 0.05
AVOID_SECONDS = 1.0
_BROKEN = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)
# Codes by which gRPC may report a broken connection, besides UNAVAILABLE.
_BREAKS = (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
# Errors that a server returns before it has done anything.
_BEFORE_ANYTHING = (
    NOT_A_MEMBER,
    NO_STATE,
    NOT_RECOVERED,
    REPLICA_EMPTY,
    REPLICA_DISCONNECTED,
    LEARNER_UNSUPPORTED,
)
Response = TypeVar("Response", bound=Message)

_OPTIONS = [
    ("grpc.max_receive_message_length", (1 << 31) - 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.ping_timeout_ms", 5_000),  # without it, a ping that is not answered counts only after a minute
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # proxies set in the environment cannot reach loopback or a cluster's network
]


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: the CA of server certificates, and the client's certificate and key. `server_name` overrides the name
    that a server's certificate must have."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""

    @classmethod
    def from_directory(cls, directory: str | Path) -> Tls:
        """From ca.crt, tls.crt and tls.key, as in a mounted Kubernetes Secret of type kubernetes.io/tls."""
        path = Path(directory)
        certificate = path / "tls.crt"
        has_own = certificate.exists()
        return cls(path / "ca.crt", certificate if has_own else None, path / "tls.key" if has_own else None)

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(),
            self.key.read_bytes() if self.key else None,
            self.certificate.read_bytes() if self.certificate else None,
        )


class _Addresses:
    """Resolves names, and caches the addresses on disk: a disconnected node has no DNS, but can reach its replica."""

    def __init__(self, cache_dir: Path | None) -> None:
        self._file = cache_dir / "addresses.json" if cache_dir else None
        self._known: dict[str, list[str]] = {}
        if self._file is not None and self._file.exists():
            try:
                self._known = json.loads(self._file.read_text())
            except ValueError:
                self._known = {}  # an unreadable cache is ignored

    async def resolve(self, host: str) -> list[str]:
        """The addresses of `host`; the last known ones if it cannot be resolved now."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = await loop.getaddrinfo(host, None, type=1)
            addresses = sorted({str(entry[4][0]) for entry in found})
        except (OSError, TimeoutError):
            return self._known.get(host, [])
        if self._known.get(host) != addresses:
            self._known[host] = addresses
            if self._file is not None:
                await loop.run_in_executor(None, self._store)
        return addresses

    def _store(self) -> None:
        assert self._file is not None
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(self._known))
        fresh.replace(self._file)


class Connection:
    """Channels to `endpoints` (host:port), created when first needed."""

    def __init__(
        self,
        endpoints: list[str],
        *,
        tls: Tls | None,
        timeout: float,
        cache_dir: str | Path | None = None,
        login: Login | None = None,
    ) -> None:
        if not endpoints:
            raise ValueError("no endpoints given")
        self.endpoints = endpoints
        self.timeout = timeout
        self._tls = tls
        self._login = login
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._dropped: dict[asyncio.Future[None], grpc.aio.Channel] = {}
        self._next = 0
        self._failed_at: dict[str, float] = {}
        self._addresses = _Addresses(Path(cache_dir) if cache_dir else None)
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        channels, self._channels = [*self._channels.values(), *self._dropped.values()], {}
        for channel in channels:
            await channel.close()
        await asyncio.gather(*self._dropped)

    def rotation(self) -> list[str]:
        """All endpoints, starting with the next one on each call; those that failed recently come last."""
        at = self._next % len(self.endpoints)
        self._next += 1
        turned = self.endpoints[at:] + self.endpoints[:at]
        since = time.monotonic() - AVOID_SECONDS
        return sorted(turned, key=lambda endpoint: self._failed_at.get(endpoint, 0.0) > since)

    async def channel(self, endpoint: str) -> grpc.aio.Channel:
        """The channel to `endpoint`. Raises Unavailable if its name has no address and none is cached."""
        if self._closed:
            raise Unavailable("this client is closed")
        channel = self._channels.get(endpoint)
        if channel is None:
            host, _, port = endpoint.rpartition(":")
            host = host.strip("[]")
            addresses = await self._addresses.resolve(host)
            if not addresses:
                raise Unavailable(f"{host} has no address")
            target = ",".join(f"[{a}]:{port}" if ":" in a else f"{a}:{port}" for a in addresses)
            scheme = "ipv6" if ":" in addresses[0] else "ipv4"
            channel = self._make(f"{scheme}:{target}", host)
            self._channels[endpoint] = channel
        return channel

    def _make(self, target: str, host: str) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(target, options=_OPTIONS)
        name = self._tls.server_name or host
        options = [*_OPTIONS, ("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
        return grpc.aio.secure_channel(target, self._tls.credentials(), options=options)

    async def drop(self, endpoint: str) -> None:
        """Drop the channel, so that the name is resolved again."""
        channel = self._channels.pop(endpoint, None)
        if channel is not None:
            # Give other calls on this channel time to end: closing it at once would cancel them.
            closing = asyncio.ensure_future(channel.close(self.timeout))
            self._dropped[closing] = channel
            closing.add_done_callback(lambda done: self._dropped.pop(done, None))

    async def ready(self, endpoint: str, seconds: float) -> grpc.aio.Channel:
        """The connected channel to `endpoint`. Raises Unavailable if it does not connect within `seconds`."""
        channel = await self.channel(endpoint)
        try:
            async with asyncio.timeout(seconds):
                while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state in _BROKEN:
                        # For example, connection refused. Try other endpoints; the name is resolved again next time.
                        raise TimeoutError
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            self._failed_at[endpoint] = time.monotonic()
            await self.drop(endpoint)
            how = (
                "with TLS (does it serve TLS, with a certificate of this CA and name, and does it want one of yours?)"
                if self._tls
                else "without TLS"
            )
            raise Unavailable(f"cannot connect to {endpoint} {how}") from None
        return channel

    async def who(self) -> Metadata:
        """The credentials to send with each call, as metadata. Raises a ClientError."""
        return await self._login.metadata(self._authenticate) if self._login is not None else ()

    async def _authenticate(self, request: rpc_pb2.AuthenticateRequest) -> rpc_pb2.AuthenticateResponse:
        path = "/etcdserverpb.Auth/Authenticate"
        return await self.call(path, request, rpc_pb2.AuthenticateResponse, idempotent=True, anonymous=True)

    def void(self, who: Metadata, reason: Known | None) -> bool:
        """Whether a call was refused because the credentials `who` are no longer valid; one retry may then succeed."""
        return self._login is not None and self._login.void(who, reason)

    async def call(
        self,
        path: str,
        request: Message,
        response: type[Response],
        *,
        idempotent: bool,
        timeout: float | None = None,
        endpoint: str | None = None,
        name: Metadata | None = None,
        anonymous: bool = False,
    ) -> Response:
        """Make a unary call to one of the endpoints (or to `endpoint`). `name`: the session's name for a write;
        `anonymous`: send no credentials. Raises a ClientError."""
        how = (path, request, response, idempotent, timeout, endpoint, name)
        who = () if anonymous else await self.who()
        try:
            return await self._call(*how, who)
        except Refused as error:
            if anonymous or not self.void(who, error.known):
                raise
        return await self._call(*how, await self.who())  # it was refused, so it had no effect

    async def _call(
        self,
        path: str,
        request: Message,
        response: type[Response],
        idempotent: bool,
        timeout: float | None,
        endpoint: str | None,
        name: Metadata | None,
        who: Metadata,
    ) -> Response:
        lost = False  # whether an answer to an earlier attempt of a named write was lost
        end = time.monotonic() + (self.timeout if timeout is None else timeout)
        last: Exception | None = None
        while True:
            for candidate in [endpoint] if endpoint else self.rotation():
                remaining = end - time.monotonic()
                if remaining <= 0:
                    if lost:
                        raise OutcomeUnknown(f"no endpoint answered in time: {last}")
                    raise Unavailable(f"no endpoint answered in time: {last or 'no connection'}")
                try:
                    channel = await self.ready(candidate, min(remaining, CONNECT_SECONDS))
                except Unavailable as error:
                    last = error
                    continue
                try:
                    return await _invoke(channel, path, request, response, remaining, (*who, *(name or ())))
                except grpc.aio.AioRpcError as error:
                    last = error
                    maybe_done = name is not None and known_of(error) not in _BEFORE_ANYTHING
                    try:
                        await self._failed(candidate, error, idempotent or name is not None)
                    except Refused as refusal:
                        if lost:  # an earlier attempt may have taken effect
                            raise OutcomeUnknown(str(refusal)) from None
                        raise
                    except Unavailable as late:
                        if lost or maybe_done:
                            raise OutcomeUnknown(str(late)) from None
                        raise
                    lost = lost or maybe_done
            await asyncio.sleep(min(PAUSE_SECONDS, max(0.0, end - time.monotonic())))

    async def _failed(self, endpoint: str, error: grpc.aio.AioRpcError, idempotent: bool) -> None:
        """Return if the call may be tried at another endpoint, raise otherwise."""
        code, details, known = error.code(), error.details() or "", known_of(error)
        if known == LEARNER_UNSUPPORTED and len(self.endpoints) > 1:
            self._failed_at[endpoint] = time.monotonic()  # prefer the others until it votes
            return
        broken = code in _BREAKS and not said_by_server(details)
        if not broken and code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise refused(error) from None
        if not idempotent and known not in _BEFORE_ANYTHING:
            self._failed_at[endpoint] = time.monotonic()
            raise OutcomeUnknown(details or code.name) from None
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._failed_at[endpoint] = time.monotonic()
            raise Unavailable(f"{endpoint} did not answer in time") from None
        if not said_by_server(details):
            await self.drop(endpoint)  # the error is of the connection, not from the server


async def _invoke(
    channel: grpc.aio.Channel,
    path: str,
    request: Message,
    response: type[Response],
    seconds: float,
    metadata: Metadata,
) -> Response:
    call: Callable[..., Any] = channel.unary_unary(
        path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
    )
    answer: Response = await call(request, timeout=seconds, metadata=metadata)
    return answer
