"""Keeps a replica following an upstream: connects, resumes at its position, and tries the next endpoint on failure."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from holdfast.client.calls import CONNECT_SECONDS
from holdfast.client.closed import channel_may_close
from holdfast.client.connection import Connection
from holdfast.client.errors import Unavailable
from holdfast.edge.compression import BadFrame, unpack
from holdfast.edge.core import EarlierEpoch, Loaded, Loop, ReplicaCore, WrongCluster, lineage_of
from holdfast.edge.data import BrokenUpstream
from holdfast.edge.lineage import Lineage
from holdfast.edge.probes import Confirmed, Probes, bound_seconds
from holdfast.edge.reasons import Reasons
from holdfast.edge.received import checked
from holdfast.kv.rows import Change
from holdfast.proto import holdfast_pb2
from holdfast.status import Code, Refusal, RequestError, said_by_server

log = logging.getLogger("holdfast.edge")

PROBE_SECONDS = 1.0
# Time without a message after which the next endpoint is tried. It is different each time: members that have lost their
# quorum are silent for all their replicas at once.
SILENCE_SECONDS = (10.0, 15.0)
CUT_OFF = "it does not reach the cluster itself"
CUT_OFF_SECONDS = 3.0  # within this time the replicas below one that was cut off look for another upstream
LONGEST_PATIENCE = 120.0  # with an upstream that does not answer probes, while no other one does
PARENTS_SECONDS = (8.0, 12.0)  # between two looks at the parents, while a member is followed
LONGEST_PARENTS = 32  # times as long, while they refuse
REPORT_BYTES = 1 << 20  # of replicas below
RETRY_SECONDS = (0.5, 1.5)  # pause after all endpoints have failed
ASK_SECONDS = 600.0  # for the hash of everything
_FOLLOWS_NOBODY = Refusal(Code.UNAVAILABLE, "holdfast: the replica follows nobody now")
STEADY_SECONDS = 10.0  # an upstream that is followed for so long is no passing one
BUSY_SECONDS = 0.05  # pause before a write is retried after the store was busy or full


def boot_ns() -> int:
    """A clock that also runs while the machine is suspended, so that this time counts as staleness."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class _ToParents(Exception):
    """It is time to look whether a parent is there again."""


@dataclass(frozen=True, slots=True)
class _Upstream:
    """An endpoint as it is tried. `alone`: there is no other. `cut_off`: take it even if it is cut off itself."""

    connection: Connection
    address: str
    tier: int
    cut_off: bool
    alone: bool


class Follower:
    """Follows any endpoint that answers, and passes its frames to the replica's core. `tiers`: endpoints that are tried
    before others; those of the last are the cluster's.

    `changed` is called with the changes of each revision (empty for progress), `replaced` after a snapshot,
    `rights_changed` when who may read has changed, or may have, `placed` when the path to the cluster has changed,
    `fresher` when the data is known to be younger. `below`: reports of the replicas that follow this one. `restored` is
    awaited before the data of a restored cluster replaces that of the one before; if it raises Unavailable, it does
    not. `build` is awaited when the core wants a store, `built` when what is in it is whole; both may raise
    Unavailable. `metadata` is that of the Follow call. Without `reports` the upstream is told of no position.
    `subject`: how lines of the log begin. `site`: how the keys of the site are here, if the replica is of one.
    """

    def __init__(
        self,
        core: ReplicaCore,
        tiers: Sequence[Connection],
        *,
        name: str,
        pool: str,
        changed: Callable[[list[Change]], None],
        replaced: Callable[[Loaded], None],
        build: Callable[[], Awaitable[None]],
        built: Callable[[], Awaitable[None]],
        rights_changed: Callable[[], None] = lambda: None,
        placed: Callable[[], None] = lambda: None,
        fresher: Callable[[], None] = lambda: None,
        below: Callable[[], list[holdfast_pb2.ReplicaReport]] = list,
        restored: Callable[[Lineage], Awaitable[None]] | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
        reports: bool = True,
        subject: str = "",
        site: Callable[[], holdfast_pb2.SiteState | None] = lambda: None,
    ) -> None:
        self._core = core
        self._tiers = tiers
        self._name = name
        self._pool = pool
        self._changed = changed
        self._replaced = replaced
        self._build = build
        self._built = built
        self._rights_changed = rights_changed
        self._placed = placed
        self._fresher = fresher
        self._below = below
        self._restored = restored
        self._metadata = metadata
        self._reports = reports
        self.connected = False
        self._channel: grpc.aio.Channel | None = None  # to the server that is followed
        self._anew = False  # begin again
        self._probes = Probes()
        self._answered = asyncio.Event()  # the newest probe
        self._subject = subject
        self._site = site
        self._reasons = Reasons(log, logging.WARNING)
        self._steady: asyncio.TimerHandle | None = None  # when the upstream will have been followed for long
        self._wanted = asyncio.Event()  # somebody waits for the watermark
        self._answered_at = 0.0  # when a probe was answered, or this upstream was connected
        self._cut_off_at = 0.0  # when to leave the upstream because it was cut off
        self._patience = random.uniform(*SILENCE_SECONDS)  # without an answer, until another upstream is tried
        self._to_parents = False  # leave a member for a parent
        self._parents_factor = 1  # how much longer to wait before that, because parents refused
        self._parents_back = False  # a parent reaches the cluster again

    def want_progress(self) -> None:
        """Ask the upstream at once how far this replica is complete, instead of with the next probe."""
        self._wanted.set()

    @property
    def reaches_cluster(self) -> bool:
        """A server is followed, and it reaches the cluster."""
        return self.connected and not self._core.path.cut_off

    @property
    def fresh_at(self) -> int | None:
        """Every write that was acknowledged before this time (boot_ns) is here; None: unknown."""
        return self._probes.fresh_at

    @property
    def staleness_ms(self) -> int | None:
        """The maximum age of the served data, rounded up; None: unknown (no probe was answered since the start)."""
        fresh_at = self.fresh_at
        return None if fresh_at is None else -((fresh_at - boot_ns()) // 1_000_000)

    def fetch_anew(self) -> None:
        """Something of the prefixes is not here any more: begin again, to be sent it."""
        self._anew = True

    async def ask(self, method: str, body: bytes) -> bytes:
        """Call the server that is followed. Raises RequestError."""
        channel = self._channel
        if channel is None:
            raise RequestError(_FOLLOWS_NOBODY)
        try:
            with channel_may_close():
                answer: bytes = await channel.unary_unary(method)(body, timeout=ASK_SECONDS)
        except Unavailable as error:
            raise RequestError(Refusal(Code.UNAVAILABLE, f"holdfast: {error}")) from error
        except grpc.aio.AioRpcError as error:
            raise RequestError(Refusal(Code(error.code().value[0]), error.details() or "")) from error
        return answer

    def confirm(self, confirmed: Confirmed) -> None:
        """For a replica below: see `Probes.confirm`."""
        self._probes.confirm(confirmed)
        self._wanted.set()

    async def run(self) -> None:
        while True:
            self._to_parents = False
            if not await self._try_all(cut_off=False):
                await self._try_all(cut_off=True)
            if not self._to_parents:
                await asyncio.sleep(random.uniform(*RETRY_SECONDS))

    async def _try_all(self, *, cut_off: bool) -> bool:
        """Follow the endpoints, one after the other: parents first. `cut_off`: also those that do not reach the cluster
        themselves. Returns whether one was followed."""
        followed = False
        for tier, connection in enumerate(self._tiers):
            addresses = await connection.order(stream=True)
            alone = len(addresses) == 1 and len(self._tiers) == 1
            for address in addresses:
                upstream = _Upstream(connection, address, tier, cut_off=cut_off, alone=alone)
                followed |= await self._try(upstream)
                if self._to_parents:
                    return True
        return followed

    async def _try(self, upstream: _Upstream) -> bool:
        address, connection = upstream.address, upstream.connection
        followed = False
        try:
            await self._follow(upstream)
        except _ToParents:
            self._to_parents = True
            self._parents_factor = min(2 * self._parents_factor, LONGEST_PARENTS)  # until one is followed
        except (Unavailable, BrokenUpstream, EarlierEpoch, Loop) as error:
            self._say(f"{address}: {error}")
        except WrongCluster as error:
            self._say(f"{address}: {error}; correct --endpoints, or start with an empty data directory")
        except grpc.aio.AioRpcError as error:
            self._say(f"{address}: {error.details() or error.code().name}")
            if not said_by_server(error.details() or ""):
                await connection.drop(address)
        except TimeoutError:
            self._say(f"{address}: silent for more than {SILENCE_SECONDS[0]:g} s")
            await connection.drop(address)
        finally:
            followed, self.connected = self.connected, False
            if self._steady is not None:
                self._steady.cancel()
            if followed and not upstream.tier:
                self._parents_factor = 1
            self._probes.lost()
            self._core.left()
            self._placed()
        return followed

    def _say(self, line: str) -> None:
        self._reasons.say(f"{self._subject}not following: {line}")

    async def _settled(self) -> None:
        """Wait until the store accepts writes. Until then the replica reads nothing from its stream, the upstream keeps
        the data, and the reported staleness grows."""
        while True:
            if self._core.settle():
                return
            await asyncio.sleep(BUSY_SECONDS)

    async def _follow(self, upstream: _Upstream) -> None:
        await self._settled()
        channel = await upstream.connection.ready(upstream.address, CONNECT_SECONDS)
        call = channel.stream_stream(
            "/holdfast.v1.Edge/Follow",
            request_serializer=holdfast_pb2.FollowRequest.SerializeToString,
            response_deserializer=holdfast_pb2.FollowResponse.FromString,
        )(metadata=self._metadata)
        talking: asyncio.Task[None] | None = None
        looking = asyncio.ensure_future(self._look_for_parents()) if upstream.tier else None
        silence = random.uniform(*SILENCE_SECONDS)
        self._answered_at = time.monotonic()
        self._cut_off_at = 0.0
        self._parents_back = False
        self._anew = False
        self._channel = channel
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
                self._take(upstream, response)
                if response.HasField("hello") and self._core.superseded:
                    await self._superseded(lineage_of(response.hello))
                if self._core.wants_store:
                    await self._build()
                if self._core.built:
                    await self._built()
                self._consider(upstream)
        finally:
            self._channel = None
            for task in (talking, looking):
                if task is not None:
                    task.cancel()
            call.cancel()

    async def _look_for_parents(self) -> None:
        """While a member is followed, look whether a parent reaches the cluster again."""
        while not self._parents_back:
            await asyncio.sleep(self._parents_factor * random.uniform(*PARENTS_SECONDS))
            for address in await self._tiers[0].order(stream=True):
                with contextlib.suppress(Unavailable, grpc.aio.AioRpcError):
                    channel = await self._tiers[0].ready(address, CONNECT_SECONDS)
                    describe = channel.unary_unary(
                        "/holdfast.v1.Node/Describe",
                        request_serializer=holdfast_pb2.DescribeRequest.SerializeToString,
                        response_deserializer=holdfast_pb2.DescribeResponse.FromString,
                    )
                    with channel_may_close():
                        node = await describe(holdfast_pb2.DescribeRequest(), timeout=CONNECT_SECONDS)
                    above = node.connected and not node.path.cut_off and self._core.node not in node.path.nodes
                    self._parents_back |= above

    def _consider(self, upstream: _Upstream) -> None:
        """Leave an upstream if another one may be better. Raises Unavailable or _ToParents."""
        if self._anew:
            raise Unavailable("what was given up is fetched anew")
        if upstream.alone:
            return
        now = time.monotonic()
        if upstream.tier and self._parents_back:
            raise _ToParents
        if not self._core.path.cut_off:
            self._cut_off_at = 0.0
        elif not upstream.cut_off:
            self._cut_off_at = self._cut_off_at or now + random.uniform(0, CUT_OFF_SECONDS)
            if now > self._cut_off_at:
                raise Unavailable(CUT_OFF)
        if now > self._answered_at + self._patience:
            self._patience = min(2 * self._patience, LONGEST_PATIENCE)
            raise Unavailable("it cannot say how old its data is")

    async def _talk(self, call: grpc.aio.StreamStreamCall) -> None:
        """Send probes, which bound the staleness, and reports of the replica's position."""
        reported, report_at = b"", 0.0
        while True:
            self._wanted.clear()
            if self.connected and not self._core.stalled:
                await self._probe(call)
                now = time.monotonic()
                if self._reports and now >= report_at:
                    report_at, report = now + PROBE_SECONDS, self._report()
                    if (data := report.SerializeToString()) != reported:
                        reported = data
                        await call.write(holdfast_pb2.FollowRequest(report=report))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS if self.connected else 0.05):
                    await self._wanted.wait()
                    await self._answered.wait()  # one at a time, however many wait

    async def _probe(self, call: grpc.aio.StreamStreamCall) -> None:
        self._answered.clear()
        probe = holdfast_pb2.Probe(id=self._probes.send(boot_ns()))
        await call.write(holdfast_pb2.FollowRequest(probe=probe))

    def _report(self) -> holdfast_pb2.ReplicaReport:
        p, way = self._core.position, self._core.path.nodes
        return holdfast_pb2.ReplicaReport(
            replica=self._name,
            pool=self._pool,
            watermark=p.watermark if self._core.whole else 0,
            filter_version=self._core.filter_version,
            epoch=p.epoch,
            below=fitting(self._below()),
            volume_id=self._core.node,
            upstream=way[1] if len(way) > 1 else 0,
            bound_seconds=bound_seconds(self.staleness_ms),
            site=self._site(),
        )

    def _take(self, upstream: _Upstream, response: holdfast_pb2.FollowResponse | None) -> None:
        core = self._core
        response = checked(response, greeted=self.connected)
        kind = response.WhichOneof("response")
        if kind == "zstd":
            response = checked(_unpacked(response.zstd), greeted=self.connected)
            kind = response.WhichOneof("response")
        if kind == "hello":
            core.hello(response.hello)
            self._probes.greeted(lineage_of(response.hello))
            if core.path.cut_off and not (upstream.cut_off or upstream.alone):
                raise Unavailable(CUT_OFF)
            self.connected = True
            self._placed()
            self._rights_changed()
            self._say_followed(upstream, response.hello)
        elif kind == "chunk":
            core.chunk(response.chunk)
        elif kind == "trailer":
            loaded = core.trailer(response.trailer)
            if loaded is Loaded.REFUSED:
                raise Unavailable("the snapshot does not match its trailer, or is older than the data here")
            if loaded is not Loaded.KEPT:
                self._replaced(loaded)
        elif kind == "revision":
            changes = core.revision(response.revision)
            if changes:
                self._changed(changes)
        elif kind == "progress":
            if core.progress(response.progress):
                self._changed([])
        elif kind == "probe":
            self._answered_at, self._patience = time.monotonic(), random.uniform(*SILENCE_SECONDS)
            self._probes.answered(response.probe.id, response.probe.revision)
            if not self._probes.outstanding:
                self._answered.set()
        elif kind == "path":
            core.follows(response.path)
            self._placed()
        elif kind == "rights":
            core.take_rights(response.rights)
            self._rights_changed()
        before = self._probes.fresh_at
        self._probes.reached(core.position.watermark, core.position.lineage)
        if self._probes.fresh_at != before:
            self._fresher()

    def _say_followed(self, upstream: _Upstream, hello: holdfast_pb2.FollowHello) -> None:
        how = "" if not hello.snapshot else ", by a snapshot of what is lacking" if hello.partial else ", by a snapshot"
        line = f"{self._subject}following {upstream.address} from revision {self._core.position.watermark}{how}"
        told = self._reasons.say(line, key=f"following {upstream.address}", level=logging.INFO)
        self._steady = asyncio.get_running_loop().call_later(STEADY_SECONDS, self._is_steady, "" if told else line)

    def _is_steady(self, untold: str) -> None:
        """The upstream is no passing one. `untold`: the line that says that it is followed, if it is not in the log."""
        self._reasons.over()
        if untold:
            log.info("%s", untold)

    async def _superseded(self, later: Lineage) -> None:
        """The upstream is of a later history: of the cluster after a restore, or of another writer."""
        if self._restored is not None:
            await self._restored(later)


def _unpacked(packed: bytes) -> holdfast_pb2.FollowResponse:
    """Raises BrokenUpstream."""
    try:
        return holdfast_pb2.FollowResponse.FromString(unpack(packed))
    except (BadFrame, DecodeError) as error:
        raise BrokenUpstream(f"the upstream sent {error}") from None


def fitting(reports: list[holdfast_pb2.ReplicaReport]) -> list[holdfast_pb2.ReplicaReport]:
    """The newest of these that fit a message."""
    size, found = 0, []
    for report in reversed(reports):
        size += report.ByteSize() + 8
        if size > REPORT_BYTES:
            break
        found.append(report)
    return found
