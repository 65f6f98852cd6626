"""Keeps all leases of a client alive over one stream, at any address that answers.

Each lease is renewed three times per TTL. When a renewal was asked for is remembered, because the server may have begun
to count the TTL right then. A stream that does not answer in time is left for another address.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import grpc
import grpc.aio
from google.protobuf.message import Message

from holdfast.client.calls import PAUSE_SECONDS
from holdfast.client.closed import ChannelClosed
from holdfast.client.errors import ClientError, known_of
from holdfast.client.login import Metadata
from holdfast.client.stream import Stream, abandon
from holdfast.proto import rpc_pb2
from holdfast.status import Known

_PATH = "/etcdserverpb.Lease/LeaseKeepAlive"
LEAST_PATIENCE_SECONDS = 1.0
NOT_READY_SHARE = 1 / 12  # of the TTL, until a lease that was not ready is looked at again


def now() -> float:
    """Seconds on a clock that goes on while the machine is suspended, as the server's does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Channels(Protocol):
    """What keep-alives need of a connection."""

    async def order(self, *, endpoint: str | None = None, write: bool = False, stream: bool = False) -> list[str]: ...
    async def stream(
        self, address: str, path: str, request: type[Message], response: type[Message], metadata: Metadata
    ) -> Stream: ...
    async def who(self) -> Metadata: ...
    def void(self, who: Metadata, reason: Known | None) -> bool: ...


@dataclass(slots=True)
class _Kept:
    """A lease. `asked`: since when an answer is outstanding, 0 if none is; `at`: when to ask, or when the answer is
    missed."""

    ttl: float
    answered: Callable[[float, float], None]
    ready: Callable[[], bool]
    at: float = 0.0
    asked: float = 0.0

    @property
    def patience(self) -> float:
        return max(LEAST_PATIENCE_SECONDS, self.ttl / 3)


class KeepAlives:
    """The leases of one connection that are kept alive."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._kept: dict[int, _Kept] = {}
        self._times: list[tuple[float, int]] = []  # a heap of `at` and lease, with times that are no longer meant
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(
        self,
        lease: int,
        ttl: float,
        asked: float,
        answered: Callable[[float, float], None],
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        """Renew `lease`, granted for `ttl` seconds by a request of the time `asked`. `answered` is called with the time
        of each renewal's request and its TTL; 0 or less: the lease is gone, and was removed. While it is not `ready`,
        it is not renewed, and runs down."""
        self._kept[lease] = _Kept(ttl, answered, ready)
        self._plan(lease, asked + ttl / 3)
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())

    def remove(self, lease: int) -> None:
        """Stop renewing it. It is no error if it is not renewed."""
        if self._kept.pop(lease, None) is not None:
            self._changed.set()

    async def close(self) -> None:
        self._kept.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _plan(self, lease: int, at: float) -> None:
        self._kept[lease].at = at
        heapq.heappush(self._times, (at, lease))

    async def _run(self) -> None:
        while self._kept:
            for address in await self._addresses():
                try:
                    who = await self._channels.who()
                    stream = await self._channels.stream(
                        address, _PATH, rpc_pb2.LeaseKeepAliveRequest, rpc_pb2.LeaseKeepAliveResponse, who
                    )
                except ClientError:
                    continue
                try:
                    await self._renew(stream)
                except grpc.aio.AioRpcError as error:
                    self._channels.void(who, known_of(error))
                except (asyncio.InvalidStateError, TimeoutError, ChannelClosed):
                    pass  # the stream has ended, or is silent: the next address
                finally:
                    stream.cancel()
                if not self._kept:
                    return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _addresses(self) -> list[str]:
        try:
            return await self._channels.order(stream=True)
        except ClientError:
            return []

    async def _renew(self, stream: Stream) -> None:
        """Renew over this stream, until it ends or no lease is left. Raises TimeoutError if it is silent."""
        for lease, kept in self._kept.items():
            if kept.asked:  # over another stream, which did not answer
                kept.asked = 0.0
                self._plan(lease, 0.0)
        reading = asyncio.ensure_future(stream.read())
        try:
            while self._kept:
                self._changed.clear()
                wake = await self._ask(stream)
                changed = asyncio.ensure_future(self._changed.wait())
                done, _ = await asyncio.wait(
                    (reading, changed), timeout=max(0.0, wake - now()), return_when=asyncio.FIRST_COMPLETED
                )
                changed.cancel()
                if reading in done:
                    answer = reading.result()
                    if answer is grpc.aio.EOF:
                        return
                    self._take(answer)
                    reading = asyncio.ensure_future(stream.read())
        finally:
            abandon(reading)

    async def _ask(self, stream: Stream) -> float:
        """Ask for what is due. Returns when something is due next, or an answer is missed. Raises TimeoutError."""
        while self._times:
            at, lease = self._times[0]
            kept = self._kept.get(lease)
            if kept is not None and kept.at == at:
                if at > now():
                    return at
                if kept.asked:
                    raise TimeoutError
                if not kept.ready():
                    self._plan(lease, now() + kept.ttl * NOT_READY_SHARE)
                    continue
                kept.asked = now()
                self._plan(lease, kept.asked + kept.patience)
                async with asyncio.timeout(kept.patience):
                    await stream.write(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
            else:
                heapq.heappop(self._times)
        return now()

    def _take(self, answer: rpc_pb2.LeaseKeepAliveResponse) -> None:
        kept = self._kept.get(answer.ID)
        if kept is None or not kept.asked:
            return
        asked, kept.asked = kept.asked, 0.0
        if answer.TTL <= 0:
            del self._kept[answer.ID]
        else:
            kept.ttl = answer.TTL
            self._plan(answer.ID, asked + kept.ttl / 3)
        kept.answered(asked, answer.TTL)
