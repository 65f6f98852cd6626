"""holdfast.v1.Edge: the stream of applied revisions of some prefixes, which edge replicas follow.

`edge.upstream` decides what a replica is sent. This module connects it to a call, a clock and the caller's rights.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from holdfast.api.base import Service, Serving
from holdfast.api.node import Reports
from holdfast.auth.store import Principal
from holdfast.edge.upstream import Followers, Upstream, check_start
from holdfast.front.calls import Call, Credit, Kind
from holdfast.kv.space import KeySpace
from holdfast.member.driver import Member
from holdfast.member.interface import Answer
from holdfast.proto import holdfast_pb2
from holdfast.status import Code, Refusal, RequestError
from holdfast.watch.hub import Delivery, Hub

log = logging.getLogger("holdfast.api")

PROGRESS_SECONDS = 0.2
_USERS_CHANGED = Refusal(
    Code.UNAVAILABLE, "holdfast: authentication was enabled or disabled in the cluster; reconnect to learn which"
)
_UNREADABLE = Refusal(Code.INTERNAL, "holdfast: the snapshot cannot be read here; see the server's log")


class EdgeService(Service):
    def __init__(self, serving: Serving, reports: Reports) -> None:
        super().__init__(serving)
        router = self.router
        self.reports = reports
        self.streams: dict[int, FollowStream] = {}
        self.followers = Followers()
        router.stream("/holdfast.v1.Edge/Follow", Kind.BIDI, self.open)

    def open(self, call: Call) -> FollowStream:
        stream = FollowStream(self, call)
        self.streams[call.id] = stream
        return stream

    def rights_changed(self) -> None:
        """Users or roles have changed, or auth was turned on or off."""
        for stream in list(self.streams.values()):
            stream.check_rights()

    def deliver(self, delivery: Delivery) -> bool:
        stream = self.streams.get(delivery.stream)
        if stream is not None:
            stream.deliver(delivery)
        return stream is not None


class _MemberSource:
    """Adapts a member to `edge.upstream.Source`."""

    def __init__(self, cluster_id: int, member: Member) -> None:
        self._cluster_id = cluster_id
        self._member = member

    @property
    def cluster_id(self) -> int:
        return self._cluster_id

    @property
    def epoch(self) -> int:
        return self._member.state.epoch

    @property
    def term(self) -> int:
        return self._member.raft.term

    @property
    def users(self) -> bool:
        return self._member.state.auth.enabled

    @property
    def space(self) -> KeySpace:
        return self._member.state.space

    @property
    def hub(self) -> Hub:
        return self._member.hub

    def poke(self) -> None:
        self._member.poke()


class FollowStream:
    """The Follow call of one replica."""

    def __init__(self, service: EdgeService, call: Call) -> None:
        self._service = service
        self._call = call
        self._member = service.member(call)
        self._caller = service.caller(call, self._member)
        self._member.state.auth.require_current(self._caller.shown())
        self._cluster_id = service.node.data.identity.cluster_id
        source = _MemberSource(self._cluster_id, self._member)
        self._upstream = Upstream(source, call.id, service.followers)
        self._pumping = False  # sending the next snapshot frame is scheduled for the loop's next turn
        self._timer: asyncio.TimerHandle | None = None
        self._name = self._pool = ""

    # ---- requests ------------------------------------------------------------------------------------------

    def on_message(self, body: bytes) -> None:
        self._service.router.act(Credit(self._call.id, 1))
        request = holdfast_pb2.FollowRequest.FromString(body)
        kind = request.WhichOneof("request")
        if kind == "start":
            self._begin(request.start)
        elif kind == "probe":
            self._probe(request.probe.id)
        elif kind == "report" and self._name:
            # A stream may report only on its own replica.
            request.report.replica, request.report.pool = self._name, self._pool
            self._service.reports.put(self._call.id, request.report)

    def _begin(self, start: holdfast_pb2.FollowStart) -> None:
        if self._upstream.start is not None:
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, "holdfast: this stream has been started already"))
        check_start(start, self._cluster_id)
        self._require_read(start, self._caller.shown())
        self._upstream.begin(start)
        self._name, self._pool = start.replica, start.pool
        self._tick()

    def _require_read(self, start: holdfast_pb2.FollowStart, who: Principal) -> None:
        auth = self._member.state.auth
        for part in start.filter:
            auth.require_read(who, part.key, part.range_end)

    def check_rights(self) -> None:
        """End the stream if its caller is no user (any more) or may no longer read the replica's ranges, or if auth was
        turned on or off, which the replica learns when it reconnects."""
        start = self._upstream.start
        try:
            who = self._caller.standing()
            self._member.state.auth.require_current(who)
            if start is not None:
                self._require_read(start, who)
            if self._upstream.users_changed:
                raise RequestError(_USERS_CHANGED)
        except RequestError as error:
            self._service.router.fail(self._call.id, error.refusal)

    def _probe(self, id: int) -> None:
        if self._upstream.start is None:
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, "holdfast: this stream has not been started yet"))

        def confirmed(answer: Answer) -> None:
            if answer.error is None and self._call.id in self._service.streams:
                self._send(lambda: self._upstream.probed(id))

        self._member.read(confirmed)

    def on_half_close(self) -> None:
        """Half-close does not end following."""

    def on_cancelled(self) -> None:
        self._upstream.close()
        self._service.streams.pop(self._call.id, None)
        self._service.reports.gone(self._call.id)
        if self._timer is not None:
            self._timer.cancel()

    def on_over(self) -> None:
        self._upstream.over()

    def on_writable(self) -> None:
        self._upstream.writable()
        self._pump_soon()

    # ---- answers -------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PROGRESS_SECONDS, self._tick)
        self._send(lambda: self._upstream.tick(time.monotonic_ns()))
        self._pump_soon()

    def deliver(self, delivery: Delivery) -> None:
        self._send(lambda: self._upstream.deliver(delivery))

    def _send(self, frames: Callable[[], list[bytes]]) -> None:
        """Send the upstream's frames, or end the stream with its error."""
        router = self._service.router
        try:
            for frame in frames():
                router.send(self._call.id, frame)
        except RequestError as error:
            router.fail(self._call.id, error.refusal)

    def _pump_soon(self) -> None:
        if self._upstream.filling and not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Send the next snapshot frame: one per turn of the loop, while the replica keeps up."""
        self._pumping = False
        try:
            self._send(lambda: self._upstream.fill(time.monotonic_ns()))
        except Exception:
            log.exception("a snapshot for the replica %s cannot be read", self._name)
            self._service.router.fail(self._call.id, _UNREADABLE)
            return
        self._service.router.flush()
        self._pump_soon()
