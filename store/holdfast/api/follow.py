"""holdfast.v1.Edge/Follow: the stream of applied revisions of some prefixes, served by members and by replicas.

`edge.upstream` decides what a follower is sent. This module connects it to a call and a clock. Whose data it is, and
who may follow it, a `Host` says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from holdfast.api.read_modes import REVISIONS
from holdfast.api.reports import Reports
from holdfast.api.router import Router
from holdfast.edge.compression import Compressor
from holdfast.edge.upstream import Followers, Source, Upstream, check_below, check_start
from holdfast.front.calls import Call, Credit, Kind
from holdfast.keyrange import bounds
from holdfast.kv.hashing import RangeHash
from holdfast.proto import holdfast_pb2
from holdfast.status import Code, Refusal, RequestError
from holdfast.watch.hub import Delivery

log = logging.getLogger("holdfast.api")

VERIFY = "/holdfast.v1.Edge/Verify"
PROGRESS_SECONDS = 0.2
PAUSE_SECONDS = 0.001  # between two frames of snapshots, so that they take half of the loop's time at most
MAX_PROBES = 32  # of a stream, not answered
_USERS_CHANGED = Refusal(
    Code.UNAVAILABLE,
    "holdfast: authentication was enabled or disabled in the cluster, or what this replica may know of its users has "
    "changed; reconnect to learn that",
)
_NO_REVISION = Refusal(Code.INVALID_ARGUMENT, "holdfast: what is to be compared has a revision that there is not")
_ANOTHER_HISTORY = Refusal(
    Code.FAILED_PRECONDITION, "holdfast: what is here is of another cluster or epoch than what is to be compared"
)
_UNREADABLE = Refusal(Code.INTERNAL, "holdfast: the snapshot cannot be read here; see the server's log")


class Host(Protocol):
    """Serves one stream."""

    @property
    def source(self) -> Source: ...

    def check(self, start: holdfast_pb2.FollowStart | None, *, again: bool = False) -> None:
        """Raise RequestError unless the caller may follow these ranges; without `start`, unless it may follow at all.
        `again`: the stream is open already, and its credentials were checked."""
        ...

    def shares_rights(self) -> bool:
        """Whether the caller may know users and roles."""
        ...

    def scan(self, begin: Callable[[], RangeHash], done: Callable[[RangeHash], None]) -> None:
        """Do this work in turns with that of others, then call `done`. The call fails if the work does, or `done`."""
        ...

    def confirm(self, confirmed: Callable[[int | None], None]) -> None:
        """Call `confirmed` with a revision that includes every write acknowledged before now; with None if that cannot
        be found."""
        ...


class FollowService:
    """All followers of a server. `host` makes the host of a stream; it raises RequestError if there is none."""

    def __init__(self, router: Router, reports: Reports, host: Callable[[Call], Host]) -> None:
        self.router = router
        self.reports = reports
        self.streams: dict[int, FollowStream] = {}
        self.followers = Followers()
        self.compressor = Compressor()
        self._host = host
        self._filling: deque[FollowStream] = deque()  # have more of a snapshot to send, the next one first
        router.stream("/holdfast.v1.Edge/Follow", Kind.BIDI, self.open)
        router.unary(VERIFY, self.verify)

    def open(self, call: Call) -> FollowStream:
        stream = FollowStream(self, call, self._host(call))
        self.streams[call.id] = stream
        return stream

    def verify(self, call: Call, body: bytes) -> None:
        """Answer with the hashes of some ranges, which the caller has to be allowed to follow."""
        request = holdfast_pb2.VerifyRequest.FromString(body)
        host = self._host(call)
        start = holdfast_pb2.FollowStart(filter=request.ranges)
        check_start(start)
        host.check(start)
        if not 0 <= request.revision < REVISIONS:
            raise RequestError(_NO_REVISION)
        lineage = host.source.lineage
        if (request.cluster_id, request.epoch) != (lineage.cluster_id, lineage.epoch):
            raise RequestError(_ANOTHER_HISTORY)
        response = holdfast_pb2.VerifyResponse()

        def next_range(done: RangeHash | None) -> None:
            if done is not None:
                crc, keys = done.result()
                response.hashes.add(crc=crc, keys=keys)
            number = len(response.hashes)
            if number == len(request.ranges):
                self.router.reply(call.id, response.SerializeToString())
                return
            part = request.ranges[number]
            low, high = bounds(part.key, part.range_end)
            host.scan(lambda: host.source.space.hash_range(low, high, request.revision), next_range)

        next_range(None)

    def rights_changed(self) -> None:
        """Users or roles have changed, or auth was turned on or off."""
        for stream in list(self.streams.values()):
            stream.check_rights()

    def moved(self) -> None:
        """The path to the cluster has changed."""
        for stream in list(self.streams.values()):
            stream.tell()

    def fill_soon(self, stream: FollowStream) -> None:
        """Send the next frame of this stream's snapshot when it is its turn. One frame is sent at a time for all, with
        a pause after it: however many replicas join at once, others wait for one frame only."""
        if stream not in self._filling:
            self._filling.append(stream)
            if len(self._filling) == 1:
                asyncio.get_running_loop().call_soon(self._fill)

    def _fill(self) -> None:
        stream = self._filling[0]
        stream.fill()
        self._filling.popleft()
        if stream.filling:
            self._filling.append(stream)
        if self._filling:
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._fill)

    def deliver(self, delivery: Delivery) -> bool:
        stream = self.streams.get(delivery.stream)
        if stream is not None:
            stream.deliver(delivery)
        return stream is not None


class FollowStream:
    """The Follow call of one replica."""

    def __init__(self, service: FollowService, call: Call, host: Host) -> None:
        self._service = service
        self._call = call
        self._host = host
        host.check(None)
        self._upstream = Upstream(host.source, call.id, service.followers)
        self._timer: asyncio.TimerHandle | None = None
        self._name = self._pool = ""
        self._compressed = False  # the follower reads compressed frames
        self._over = False  # the follower does not read what it is sent
        self._owed = 0  # messages that it may send once it does
        self._probes = 0  # not answered yet

    # ---- requests ------------------------------------------------------------------------------------------

    def on_message(self, body: bytes) -> None:
        if self._over:
            self._owed += 1  # it may send more once it has read what it was sent
        else:
            self._service.router.act(Credit(self._call.id, 1))
        self._service.reports.heard(self._call.id)
        request = holdfast_pb2.FollowRequest.FromString(body)
        kind = request.WhichOneof("request")
        if kind == "start":
            self._begin(request.start)
        elif kind == "probe":
            self._probe(request.probe.id)
        elif kind == "report" and self._name:
            # A stream may report only on its own replica, and on those that follow it.
            request.report.replica, request.report.pool = self._name, self._pool
            request.report.upstream = self._host.source.path.nodes[0]  # this server
            check_below(request.report)
            self._service.reports.put(self._call.id, request.report)

    def _begin(self, start: holdfast_pb2.FollowStart) -> None:
        if self._upstream.start is not None:
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, "holdfast: this stream has been started already"))
        check_start(start)
        self._host.check(start)
        self._upstream.begin(start, shares_rights=self._host.shares_rights())
        self._name, self._pool = start.replica, start.pool
        self._compressed = start.zstd
        self._tick()

    def check_rights(self) -> None:
        """End the stream if its caller may no longer follow the replica's ranges, or if auth was turned on or off,
        which the replica learns when it reconnects."""
        try:
            self._host.check(self._upstream.start, again=True)
            start = self._upstream.start
            shares = start is not None and start.rights and self._host.shares_rights()
            if self._upstream.users_changed or shares != self._upstream.shares_rights:
                raise RequestError(_USERS_CHANGED)
            self.tell()
        except RequestError as error:
            self._service.router.fail(self._call.id, error.refusal)

    def _probe(self, id: int) -> None:
        if self._upstream.start is None:
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, "holdfast: this stream has not been started yet"))

        if self._over or self._probes >= MAX_PROBES:
            return  # it has enough to read; the next one will do

        def confirmed(revision: int | None) -> None:
            self._probes -= 1
            if revision is not None and self._call.id in self._service.streams and not self._over:
                self._send(lambda: self._upstream.probed(id, revision))

        self._probes += 1
        self._host.confirm(confirmed)

    def on_half_close(self) -> None:
        """Half-close does not end following."""

    def on_cancelled(self) -> None:
        self._upstream.close()
        self._service.streams.pop(self._call.id, None)
        self._service.reports.gone(self._call.id)
        if self._timer is not None:
            self._timer.cancel()

    def on_over(self) -> None:
        self._over = True
        self._upstream.over()

    def on_writable(self) -> None:
        self._over = False
        if self._owed:
            self._service.router.act(Credit(self._call.id, self._owed))
            self._owed = 0
        self._upstream.writable()
        self._fill_soon()

    # ---- answers -------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PROGRESS_SECONDS, self._tick)
        self.tell()

    def tell(self) -> None:
        """Tell the follower what it has to know besides changes."""
        if self._upstream.start is not None:
            self._send(lambda: self._upstream.tick(time.monotonic_ns()))
            self._fill_soon()

    def deliver(self, delivery: Delivery) -> None:
        self._send(lambda: self._upstream.deliver(delivery))

    def _send(self, frames: Callable[[], list[bytes]]) -> None:
        """Send the upstream's frames, or end the stream with its error."""
        router = self._service.router
        try:
            for frame in frames():
                router.send(self._call.id, self._service.compressor.pack(frame) if self._compressed else frame)
        except RequestError as error:
            router.fail(self._call.id, error.refusal)

    @property
    def filling(self) -> bool:
        """Whether there is more of a snapshot to send, and the replica keeps up."""
        return self._call.id in self._service.streams and self._upstream.filling

    def _fill_soon(self) -> None:
        if self.filling:
            self._service.fill_soon(self)

    def fill(self) -> None:
        """Send the next frame of the snapshot, if there is one."""
        if not self.filling:
            return
        try:
            self._send(lambda: self._upstream.fill(time.monotonic_ns()))
        except Exception:
            log.exception("a snapshot for the replica %s cannot be read", self._name)
            self._service.router.fail(self._call.id, _UNREADABLE)
            return
        self._service.router.flush()
