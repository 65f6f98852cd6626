"""Channels to the addresses of a list of endpoints, and the choice among them.

Each address has a channel of its own, because gRPC would take the first address of a name that connects and stay there:
all clients of a Service without a virtual address would use the same member. `picker.py` chooses, `calls.py` makes
unary calls; streams choose by `order`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

import grpc
import grpc.aio
from google.protobuf.message import Message

from holdfast.client import forks
from holdfast.client.addresses import Addresses
from holdfast.client.calls import CONNECT_SECONDS, Caller
from holdfast.client.causes import cause
from holdfast.client.closed import ChannelClosed, channel_may_close
from holdfast.client.errors import ClientError, Refused, Unavailable
from holdfast.client.keepalive import KeepAlives
from holdfast.client.login import Headers, Login, Metadata
from holdfast.client.picker import Address, Picker
from holdfast.client.position import Seen
from holdfast.client.stream import Stream
from holdfast.proto import rpc_pb2
from holdfast.status import Known, said_by_server

PROBE_SECONDS = 1.5
LEADER_SECONDS = 5.0
CAUSE_SECONDS = 0.5  # for gRPC to tell why there is no connection
_HEALTH = "/grpc.health.v1.Health/Check"
_BROKEN = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)
Response = TypeVar("Response", bound=Message)

MAX_ANSWER_BYTES = (1 << 31) - 1  # as in etcd's client
_OPTIONS = [
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


class Connection:
    """Channels to `endpoints` (HOST:PORT), created when first needed. `hedge`: send a read to a second address when the
    first is slower than nineteen of twenty. `monotonic`: see `position.py`. A call whose answer is larger than
    `max_answer_bytes` fails."""

    def __init__(
        self,
        endpoints: list[str],
        *,
        tls: Tls | None,
        timeout: float,
        cache_dir: str | Path | None = None,
        login: Login | None = None,
        picker: Picker | None = None,
        hedge: bool = True,
        monotonic: bool = False,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        if not endpoints:
            raise ValueError("no endpoints given")
        self.endpoints = endpoints
        self.timeout = timeout
        self.picker = picker or Picker()
        self.seen = Seen(floor=monotonic)
        self._tls = tls
        self._options = [*_OPTIONS, ("grpc.max_receive_message_length", max_answer_bytes)]
        self._login = login
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._dropped: dict[asyncio.Future[None], grpc.aio.Channel] = {}
        self._addresses = Addresses(endpoints, Path(cache_dir) if cache_dir else None)
        self._names: dict[str, str] = {}  # address -> endpoint
        self._leader_due = 0.0  # when to look for the leader again, at the next write
        self._looking: asyncio.Task[None] | None = None
        self._probes: dict[str, asyncio.Task[bool]] = {}
        self._caller = Caller(self, hedge=hedge)
        self.keep_alives = KeepAlives(self)
        self._closed = False
        self._generation = forks.generation
        self._free = asyncio.Event()  # unless the process is about to fork
        self._free.set()
        self._streams: WeakSet[Stream] = WeakSet()
        self.hangs_up = False
        forks.connected(self)
        self.caches: set[Any] = set()  # that follow by this connection

    async def close(self) -> None:
        self._closed = True
        await self.keep_alives.close()
        self._addresses.close()
        if self._looking is not None:
            self._looking.cancel()
        channels, self._channels = [*self._channels.values(), *self._dropped.values()], {}
        for channel in channels:
            await channel.close()
        await asyncio.gather(*self._dropped)

    @property
    def open(self) -> bool:
        """Whether there are channels."""
        return bool(self._channels or self._dropped)

    @property
    def closed(self) -> bool:
        return self._closed

    async def hang_up(self) -> None:
        """Close all channels, whatever is under way on them, and open none until `go_on`. Calls that are under way
        begin again then, and so do streams; a write that cannot be repeated raises OutcomeUnknown."""
        self._free.clear()
        await asyncio.gather(*(cache.let_go() for cache in list(self.caches)))
        for stream in list(self._streams):
            stream.cancel()
        channels, self._channels = [*self._channels.values(), *self._dropped.values()], {}
        for channel in channels:
            await channel.close()

    def go_on(self) -> None:
        self._free.set()

    def _check(self) -> None:
        """Raises Unavailable, or Forked."""
        forks.check(self._generation)
        if self._closed:
            raise Unavailable("this client is closed")

    # ---- addresses -----------------------------------------------------------------------------------------

    async def order(self, *, endpoint: str | None = None, write: bool = False, stream: bool = False) -> list[str]:
        """The addresses to try, the best one first; of all endpoints, or of `endpoint`. Empty if no name has
        an address."""
        self._check()
        found = await self._addresses.all()
        own = await self._addresses.of(endpoint) if endpoint is not None else []
        if not found.keys() >= set(own):  # it is none of this client's endpoints
            found = {**dict.fromkeys(own, endpoint or ""), **found}
        if found is not self._names and found != self._names:
            self._names = found
            self.picker.update(found)
            for address in self._channels.keys() - found.keys():
                await self._close(address)
        now = time.monotonic()
        if write and now > self._leader_due and len(found) > 1:
            self._leader_due = now + LEADER_SECONDS
            self._looking = asyncio.ensure_future(self._find_leader())
        ordered = self.picker.order(now, write=write, stream=stream)
        return ordered if endpoint is None else [address for address in ordered if address in own]

    async def _find_leader(self) -> None:
        """Ask the connected members which of them leads: a write to another one takes a step more."""
        await asyncio.gather(*(self._ask_leader(address) for address in list(self._channels)))

    async def _ask_leader(self, address: str) -> None:
        try:
            who = await self.who()
            channel = self.connected(address)
            if channel is None:
                return
            call: Callable[..., Awaitable[rpc_pb2.StatusResponse]] = channel.unary_unary(
                "/etcdserverpb.Maintenance/Status",
                request_serializer=rpc_pb2.StatusRequest.SerializeToString,
                response_deserializer=rpc_pb2.StatusResponse.FromString,
            )
            with channel_may_close():
                status = await call(rpc_pb2.StatusRequest(), timeout=PROBE_SECONDS, metadata=who)
        except (grpc.aio.AioRpcError, ClientError):
            return  # it is only a hint
        if status.leader and status.leader == status.header.member_id:
            self.picker.leader = address
        elif self.picker.leader == address:
            self.picker.leader = ""

    def metrics(self) -> Mapping[str, Address]:
        """What is known of each address: calls, failures, calls without an answer yet, streams, latency, ejection."""
        return self.picker.addresses

    # ---- channels ------------------------------------------------------------------------------------------

    def channel(self, address: str) -> grpc.aio.Channel:
        """The channel to `address`. Raises Unavailable if this client is closed, and Forked."""
        self._check()
        if not self._free.is_set():
            raise ChannelClosed("the process is about to fork")
        channel = self._channels.get(address)
        if channel is None:
            name = self._names.get(address, address)
            scheme = "ipv6" if address.startswith("[") else "ipv4"
            channel = self._channels[address] = self._make(f"{scheme}:{address}", name.rpartition(":")[0].strip("[]"))
        return channel

    def _make(self, target: str, host: str) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(target, options=self._options)
        name = self._tls.server_name or host
        options = [*self._options, ("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
        return grpc.aio.secure_channel(target, self._tls.credentials(), options=options)

    async def drop(self, address: str) -> None:
        """Drop the channel, and resolve the name again."""
        self._addresses.stale(self._names.get(address, address))
        await self._close(address)

    async def _close(self, address: str) -> None:
        channel = self._channels.pop(address, None)
        if channel is not None:
            # Give other calls on this channel time to end: closing it at once would cancel them.
            closing = asyncio.ensure_future(channel.close(self.timeout))
            self._dropped[closing] = channel
            closing.add_done_callback(lambda done: self._dropped.pop(done, None))

    def connected(self, address: str) -> grpc.aio.Channel | None:
        """The channel to `address` if it is connected."""
        if not self._free.is_set():
            return None
        channel = self.channel(address)
        return channel if channel.get_state() is grpc.ChannelConnectivity.READY else None

    async def ready(self, address: str, seconds: float) -> grpc.aio.Channel:
        """The connected channel to `address`. Raises Unavailable if it does not connect within `seconds`."""
        why = f"no answer within {seconds:.1f} s"
        try:
            async with asyncio.timeout(seconds):
                await self._free.wait()
                channel = self.channel(address)
                while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    current = self._channels.get(address)
                    if current is None or current is not channel:
                        raise ChannelClosed("its connection was closed by this client")
                    if state in _BROKEN:
                        # For example, connection refused. Try other addresses; the name is resolved again next time.
                        why = await self._why(channel)
                        raise TimeoutError
                    with channel_may_close():
                        await channel.wait_for_state_change(state)
        except TimeoutError:
            self.picker.failed(address, time.monotonic())
            await self.drop(address)
            raise Unavailable(f"cannot connect to {self.shown(address)}: {why}") from None
        return channel

    async def _why(self, channel: grpc.aio.Channel) -> str:
        """Why this channel has no connection. gRPC tells it to a call, which fails at once then."""
        details = ""
        try:
            call: Callable[..., Awaitable[bytes]] = channel.unary_unary(_HEALTH)
            with channel_may_close():
                await call(b"", timeout=CAUSE_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                details = error.details() or ""
        return cause(details, tls=self._tls is not None)

    async def stream(
        self, address: str, path: str, request: type[Message], response: type[Message], metadata: Metadata
    ) -> Stream:
        """Begin a stream at `address`; cancel it at the end. Raises Unavailable if it does not connect."""
        stream = Stream(await self.ready(address, CONNECT_SECONDS), path, request, response, metadata)
        self._streams.add(stream)
        return stream

    def shown(self, address: str) -> str:
        """The address for a message, with the endpoint that it is one of."""
        name = self._names.get(address, address)
        return address if name == address else f"{name} ({address})"

    async def alive(self, address: str) -> bool:
        """Whether the server behind `address` answers at all: a frozen one keeps its connections. Several callers at a
        time share one question."""
        asked = self._probes.get(address)
        if asked is None:
            asked = self._probes[address] = asyncio.ensure_future(self._probe(address))
            asked.add_done_callback(lambda _: self._probes.pop(address, None))
        return await asyncio.shield(asked)

    async def _probe(self, address: str) -> bool:
        try:
            call: Callable[..., Awaitable[bytes]] = self.channel(address).unary_unary(_HEALTH)
            with channel_may_close():
                await call(b"", timeout=PROBE_SECONDS)
        except grpc.aio.AioRpcError as error:
            silent = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
            if error.code() in silent and not said_by_server(error.details() or ""):
                self.picker.failed(address, time.monotonic(), PROBE_SECONDS)
                return False
        except Unavailable:
            return False
        return True

    # ---- calls ---------------------------------------------------------------------------------------------

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
        metadata: Metadata = (),
        headers: Headers | None = None,
        noted: bool = True,
    ) -> Response:
        """Make a unary call to one of the endpoints (or to `endpoint`). `name`: the session's name for a write;
        `anonymous`: send no credentials; `metadata`: more of it; `headers`: gets those of the answer; `noted`: the
        answer says how far the cluster is. Raises a ClientError."""
        seconds = self.timeout if timeout is None else timeout
        how = (path, request, response, idempotent, seconds, endpoint, name)
        who = () if anonymous else await self.who()
        try:
            answer = await self._caller.call(*how, (*who, *metadata), headers)
        except Refused as error:
            if anonymous or not self.void(who, error.known):
                raise
            # It was refused, so it had no effect.
            answer = await self._caller.call(*how, (*await self.who(), *metadata), headers)
        header = getattr(answer, "header", None)
        if noted and isinstance(header, rpc_pb2.ResponseHeader):
            self.seen.note(header)
        return answer
