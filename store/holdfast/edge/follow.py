"""Keeps a replica following an upstream: connects, resumes at its position, and tries the next endpoint on failure."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import Callable

import grpc
import grpc.aio

from holdfast.client.calls import CONNECT_SECONDS
from holdfast.client.closed import channel_may_close
from holdfast.client.connection import Connection
from holdfast.client.errors import Unavailable
from holdfast.edge.core import BrokenUpstream, ReplicaCore, WrongCluster
from holdfast.kv.rows import Change
from holdfast.proto import holdfast_pb2
from holdfast.status import said_by_server

log = logging.getLogger("holdfast.edge")

PROBE_SECONDS = 1.0
MAX_PROBES = 32  # not answered
# Time without a message after which the next endpoint is tried. It is different each time: members that have lost their
# quorum are silent for all their replicas at once.
SILENCE_SECONDS = (10.0, 15.0)
RETRY_SECONDS = (0.5, 1.5)  # pause after all endpoints have failed
BUSY_SECONDS = 0.05  # pause before a write is retried after the store was busy or full


def boot_ns() -> int:
    """A clock that also runs while the machine is suspended, so that this time counts as staleness."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Follower:
    """Follows any endpoint that answers, and passes its frames to the replica's core.

    `changed` is called with the changes of each revision (empty for progress), `replaced` after a snapshot, `greeted`
    after an upstream's hello.
    """

    def __init__(
        self,
        core: ReplicaCore,
        connection: Connection,
        *,
        name: str,
        pool: str,
        changed: Callable[[list[Change]], None],
        replaced: Callable[[], None],
        greeted: Callable[[], None] = lambda: None,
    ) -> None:
        self._core = core
        self._connection = connection
        self._name = name
        self._pool = pool
        self._changed = changed
        self._replaced = replaced
        self._greeted = greeted
        self.connected = False
        self._probes: dict[int, int] = {}  # id -> when it was sent (boot_ns)
        self._answered: list[tuple[int, int]] = []  # (revision to reach, when its probe was sent)
        self._fresh_at: int | None = None  # all writes acknowledged before this time are visible here
        self._probe_ids = itertools.count(1)
        self._newest_probe = 0
        self._answered_newest = asyncio.Event()
        self._said = ""
        self._wanted = asyncio.Event()  # somebody waits for the watermark

    def want_progress(self) -> None:
        """Ask the upstream at once how far this replica is complete, instead of with the next probe."""
        self._wanted.set()

    @property
    def staleness_ms(self) -> int | None:
        """The maximum age of the served data; None: unknown (no probe was answered since the start)."""
        return None if self._fresh_at is None else (boot_ns() - self._fresh_at) // 1_000_000

    async def run(self) -> None:
        while True:
            for address in await self._connection.order(stream=True):
                try:
                    await self._follow(address)
                except (Unavailable, BrokenUpstream) as error:
                    self._say(f"{address}: {error}")
                except WrongCluster as error:
                    self._say(f"{address}: {error}; correct --endpoints, or start with an empty data directory")
                except grpc.aio.AioRpcError as error:
                    self._say(f"{address}: {error.details() or error.code().name}")
                    if not said_by_server(error.details() or ""):
                        await self._connection.drop(address)
                except TimeoutError:
                    self._say(f"{address}: silent for more than {SILENCE_SECONDS[0]:g} s")
                    await self._connection.drop(address)
                finally:
                    self.connected = False
                    self._probes.clear()
            await asyncio.sleep(random.uniform(*RETRY_SECONDS))

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            log.warning("not following: %s", line)

    async def _settled(self) -> None:
        """Wait until the store accepts writes. Until then the replica reads nothing from its stream, the upstream keeps
        the data, and the reported staleness grows."""
        while True:
            if self._core.settle():
                return
            await asyncio.sleep(BUSY_SECONDS)

    async def _follow(self, address: str) -> None:
        await self._settled()
        channel = await self._connection.ready(address, CONNECT_SECONDS)
        call = channel.stream_stream(
            "/holdfast.v1.Edge/Follow",
            request_serializer=holdfast_pb2.FollowRequest.SerializeToString,
            response_deserializer=holdfast_pb2.FollowResponse.FromString,
        )()
        talking: asyncio.Task[None] | None = None
        silence = random.uniform(*SILENCE_SECONDS)
        try:
            with channel_may_close():
                await call.write(holdfast_pb2.FollowRequest(start=self._core.start(self._name, self._pool)))
            talking = asyncio.ensure_future(self._talk(call))
            while True:
                await self._settled()
                with channel_may_close():
                    async with asyncio.timeout(silence):
                        response = await call.read()
                if response is grpc.aio.EOF:
                    # The status of an ended stream says why.
                    raise grpc.aio.AioRpcError(await call.code(), None, None, details=await call.details())
                self._take(address, response)
        finally:
            if talking is not None:
                talking.cancel()
            call.cancel()

    async def _talk(self, call: grpc.aio.StreamStreamCall) -> None:
        """Send probes, which bound the staleness, and reports of the replica's position."""
        reported, report_at = -1, 0.0
        while True:
            self._wanted.clear()
            if self.connected and not self._core.stalled:
                await self._probe(call)
                watermark, now = self._core.position.watermark, time.monotonic()
                if watermark != reported and now >= report_at:
                    reported, report_at = watermark, now + PROBE_SECONDS
                    await call.write(holdfast_pb2.FollowRequest(report=self._report()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS if self.connected else 0.05):
                    await self._wanted.wait()
                    await self._answered_newest.wait()  # one at a time, however many wait

    async def _probe(self, call: grpc.aio.StreamStreamCall) -> None:
        id = self._newest_probe = next(self._probe_ids)
        self._answered_newest.clear()
        self._probes[id] = boot_ns()
        while len(self._probes) > MAX_PROBES:
            self._probes.pop(next(iter(self._probes)))
        await call.write(holdfast_pb2.FollowRequest(probe=holdfast_pb2.Probe(id=id)))

    def _report(self) -> holdfast_pb2.ReplicaReport:
        p = self._core.position
        return holdfast_pb2.ReplicaReport(
            replica=self._name,
            pool=self._pool,
            watermark=p.watermark if self._core.complete else 0,
            filter_version=self._core.filter_version,
            epoch=p.epoch,
        )

    def _take(self, address: str, response: holdfast_pb2.FollowResponse) -> None:
        core = self._core
        kind = response.WhichOneof("response")
        if kind == "hello":
            core.hello(response.hello)
            self._greeted()
            self.connected = True
            self._said = ""
            log.info(
                "following %s from revision %d%s",
                address,
                core.position.watermark,
                ", by a snapshot" if response.hello.snapshot else "",
            )
        elif kind == "chunk":
            core.chunk(response.chunk)
        elif kind == "trailer":
            if not core.trailer(response.trailer):
                raise Unavailable("the snapshot does not match its trailer, or is older than the data here")
            self._replaced()
        elif kind == "revision":
            changes = core.revision(response.revision)
            if changes:
                self._changed(changes)
        elif kind == "progress":
            if core.progress(response.progress):
                self._changed([])
        elif kind == "probe":
            sent = self._probes.pop(response.probe.id, None)
            if response.probe.id == self._newest_probe:
                self._answered_newest.set()
            if sent is not None:
                self._answered.append((response.probe.revision, sent))
        self._note_freshness()

    def _note_freshness(self) -> None:
        """Update the staleness bound: once complete up to a probe's revision, the replica has all writes that were
        acknowledged before the probe was sent."""
        watermark = self._core.position.watermark
        waiting: list[tuple[int, int]] = []
        for revision, sent in self._answered:
            if revision <= watermark:
                self._fresh_at = max(sent, self._fresh_at or 0)
            else:
                waiting.append((revision, sent))
        self._answered = waiting
