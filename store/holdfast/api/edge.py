"""holdfast.v1.Edge: the applied, revisioned stream of some prefixes, for replicas to follow.

A replica says how far it is complete; it gets what it lacks from history, or if that is gone a snapshot, and then every
revision as it is applied. Position, filter and completeness are said in the stream itself, never guessed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

from holdfast.api.base import Service, Serving
from holdfast.api.filling import Filling
from holdfast.api.node import Reports
from holdfast.auth.store import Principal
from holdfast.front.calls import Call, Credit, Kind
from holdfast.keyrange import Range, bounds
from holdfast.kv.rows import DELETE, Change
from holdfast.member.interface import Answer
from holdfast.proto import holdfast_pb2, kv_pb2
from holdfast.status import Code, Refusal, RequestError
from holdfast.watch.hub import Compacted, Delivery, Events, Watcher

log = logging.getLogger("holdfast.api")

PROGRESS_SECONDS = 0.2
MAX_RANGES = 64
MAX_NAME = 253  # characters, of a replica or a pool, as Kubernetes has it
MAX_FILLING = 16  # snapshots that are read at once: each holds on to the files of its moment
STALL_SECONDS = 60.0  # a replica that takes nothing of its snapshot for so long has to ask again
_WATCHER = 0
_USERS_CHANGED = Refusal(
    Code.UNAVAILABLE, "holdfast: whether users count has changed; reconnect to hear what that means for this replica"
)
_UNREADABLE = Refusal(Code.INTERNAL, "holdfast: the snapshot cannot be read here; see the server's log")
_STALLED = Refusal(
    Code.UNAVAILABLE,
    f"holdfast: nothing of the snapshot was taken for {STALL_SECONDS:g} s; reconnect to get another one",
)


class EdgeService(Service):
    def __init__(self, serving: Serving, reports: Reports) -> None:
        super().__init__(serving)
        router = self.router
        self.reports = reports
        self.streams: dict[int, FollowStream] = {}
        self.filling = 0  # snapshots under way
        router.stream("/holdfast.v1.Edge/Follow", Kind.BIDI, self.open)

    def open(self, call: Call) -> FollowStream:
        stream = FollowStream(self, call)
        self.streams[call.id] = stream
        return stream

    def rights_changed(self) -> None:
        """Users or roles are others now, or whether they count is."""
        for stream in list(self.streams.values()):
            stream.check_rights()

    def deliver(self, delivery: Delivery) -> bool:
        stream = self.streams.get(delivery.stream)
        if stream is not None:
            stream.deliver(delivery)
        return stream is not None


class FollowStream:
    """One replica. States: waiting for its start; waiting for us to reach its watermark; following."""

    def __init__(self, service: EdgeService, call: Call) -> None:
        self._service = service
        self._call = call
        self._member = service.member(call)
        self._caller = service.caller(call, self._member)
        self._users = False  # whether they count, as the replica was told
        self._hub = self._member.hub
        self._hub.open(call.id)
        self._start: holdfast_pb2.FollowStart | None = None
        self._ranges: tuple[Range, ...] = ()
        self._told = 0  # revision the replica was last told it is complete to
        self._following = False
        self._frames: Iterator[bytes] | None = None  # of a snapshot still being sent
        self._moved_at = 0.0  # when its last frame was taken
        self._pumping = False  # the next one is due in the loop's next turn
        self._over = False
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
            # A stream reports of its own replica, whatever it says.
            request.report.replica, request.report.pool = self._name, self._pool
            self._service.reports.put(self._call.id, request.report)

    def _begin(self, start: holdfast_pb2.FollowStart) -> None:
        if self._start is not None:
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, "holdfast: this stream has been started already"))
        cluster_id = self._service.node.data.identity.cluster_id
        if start.cluster_id not in (0, cluster_id):
            raise RequestError(
                Refusal(
                    Code.FAILED_PRECONDITION,
                    f"holdfast: the replica {start.replica!r} holds data of cluster {start.cluster_id:x}, this is "
                    f"cluster {cluster_id:x}; correct its --endpoints, or empty its data directory to start anew from "
                    "this cluster",
                )
            )
        if not 0 < len(start.filter) <= MAX_RANGES or any(not r.key for r in start.filter):
            raise RequestError(
                Refusal(Code.INVALID_ARGUMENT, f"holdfast: a filter has 1 to {MAX_RANGES} ranges with keys")
            )
        for name in (start.replica, start.pool):
            if len(name) > MAX_NAME or not name.isprintable():
                raise RequestError(
                    Refusal(
                        Code.INVALID_ARGUMENT,
                        f"holdfast: the name of a replica or a pool has at most {MAX_NAME} characters, all printable",
                    )
                )
        self._require_read(start, self._caller.shown())
        epoch = self._member.state.epoch
        if start.cluster_id and start.epoch > epoch:
            raise RequestError(
                Refusal(
                    Code.FAILED_PRECONDITION, f"holdfast: the replica is in epoch {start.epoch}, this member in {epoch}"
                )
            )
        self._start = start
        self._name, self._pool = start.replica, start.pool
        self._ranges = tuple(bounds(r.key, r.range_end) for r in start.filter)
        self._tick()

    def _require_read(self, start: holdfast_pb2.FollowStart, who: Principal) -> None:
        auth = self._member.state.auth
        for part in start.filter:
            auth.require_read(who, part.key, part.range_end)

    def check_rights(self) -> None:
        """End the stream if what it tells is not for its caller any more, or the replica has to hear anew whether users
        count."""
        if self._start is None:
            return
        try:
            self._require_read(self._start, self._caller.standing())
            if self._following and self._users != self._member.state.auth.enabled:
                raise RequestError(_USERS_CHANGED)
        except RequestError as error:
            self._service.router.fail(self._call.id, error.refusal)

    def _tick(self) -> None:
        """Start once we are as far as the replica is; afterwards tell it of progress on quiet filters."""
        self._timer = asyncio.get_running_loop().call_later(PROGRESS_SECONDS, self._tick)
        start = self._start
        assert start is not None
        if not self._following:
            # Behind the replica we have nothing to say: it waits. Neither "compacted" nor a snapshot of the past.
            state = self._member.state
            reached = self._member.revision >= start.watermark or start.epoch < state.epoch
            if reached and not state.busy and self._service.filling < MAX_FILLING:
                self._following = True
                self._follow(start)
            return
        if self._frames is not None:
            if time.monotonic() > self._moved_at + STALL_SECONDS:
                self._service.router.fail(self._call.id, _STALLED)
            return
        progress = self._hub.progress(self._call.id)
        if progress is not None and progress.revision > self._told:
            self._send_progress(progress.revision)

    def _follow(self, start: holdfast_pb2.FollowStart) -> None:
        state = self._member.state
        space = state.space
        fresh = not start.cluster_id or not start.watermark or start.epoch != state.epoch
        snapshot = fresh or start.watermark + 1 < space.compacted
        hello = holdfast_pb2.FollowHello(
            cluster_id=self._service.node.data.identity.cluster_id,
            epoch=state.epoch,
            term=self._member.core.term,
            filter_version=start.filter_version,
            floor=max(space.compacted, 1),
            snapshot=snapshot,
            users=state.auth.enabled,
        )
        self._users = hello.users
        self._send(holdfast_pb2.FollowResponse(hello=hello))
        self._told = space.revision if snapshot else start.watermark
        self._hub.add(self._call.id, Watcher(_WATCHER, self._ranges, self._told + 1, prev_kv=True))
        if snapshot:
            trailer = holdfast_pb2.FollowTrailer(
                filter=start.filter, filter_version=start.filter_version, revision=space.revision
            )
            self._frames = Filling(self._member.store, self._ranges, trailer).frames()
            self._service.filling += 1
            self._hub.block(self._call.id)
            self._moved_at = time.monotonic()
            self._pump_soon()
        self._member.poke()

    def _pump(self) -> None:
        """Send the next frame of the snapshot, one a turn of the loop, as far as the replica takes them; after the last
        one let what happened meanwhile follow."""
        self._pumping = False
        frames, router = self._frames, self._service.router
        if frames is None or self._over:
            return
        try:
            frame = next(frames, None)
        except Exception:
            log.exception("a snapshot for the replica %s cannot be read", self._name)
            router.fail(self._call.id, _UNREADABLE)
            return
        if frame is None:
            self._end_filling()
            self._hub.unblock(self._call.id)
            self._member.poke()
            return
        self._moved_at = time.monotonic()
        router.send(self._call.id, frame)
        router.flush()
        self._pump_soon()

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _end_filling(self) -> None:
        if self._frames is not None:
            self._frames = None
            self._service.filling -= 1

    def _probe(self, id: int) -> None:
        """What is applied once leadership is confirmed covers every write acknowledged before the probe was sent."""
        member = self._member

        def confirmed(answer: Answer) -> None:
            if answer.error is None and self._call.id in self._service.streams:
                reply = holdfast_pb2.ProbeReply(id=id, revision=member.revision)
                self._send(holdfast_pb2.FollowResponse(probe=reply))

        member.read(confirmed)

    def on_half_close(self) -> None:
        """Following goes on."""

    def on_cancelled(self) -> None:
        self._hub.close(self._call.id)
        self._service.streams.pop(self._call.id, None)
        self._service.reports.gone(self._call.id)
        self._end_filling()
        if self._timer is not None:
            self._timer.cancel()

    def on_over(self) -> None:
        self._over = True
        self._hub.block(self._call.id)

    def on_writable(self) -> None:
        self._over = False
        if self._frames is not None:
            self._pump_soon()
        else:
            self._hub.unblock(self._call.id)
            self._member.poke()

    # ---- answers -------------------------------------------------------------------------------------------

    def _send(self, response: holdfast_pb2.FollowResponse) -> None:
        self._service.router.send(self._call.id, response.SerializeToString())

    def _send_progress(self, revision: int) -> None:
        self._told = revision
        progress = holdfast_pb2.FollowProgress(revision=revision, term=self._member.core.term)
        self._send(holdfast_pb2.FollowResponse(progress=progress))

    def deliver(self, delivery: Delivery) -> None:
        if isinstance(delivery, Compacted):
            # The history it needs was compacted while it read too slowly: it starts again, with a snapshot.
            self._service.router.fail(
                self._call.id, Refusal(Code.UNAVAILABLE, "holdfast: fell behind the compacted history; reconnect")
            )
        elif isinstance(delivery, Events):
            self._send_events(delivery.changes)

    def _send_events(self, changes: list[Change]) -> None:
        term = self._member.core.term
        at = 0
        while at < len(changes):
            revision = changes[at].revision
            message = holdfast_pb2.FollowRevision(revision=revision, term=term)
            while at < len(changes) and changes[at].revision == revision:
                change = changes[at]
                type_ = kv_pb2.Event.DELETE if change.type == DELETE else kv_pb2.Event.PUT
                event = message.events.add(type=type_)
                event.kv.ParseFromString(change.kv)
                if change.previous is not None:
                    event.prev_kv.ParseFromString(change.previous)
                at += 1
            self._told = max(self._told, revision)
            self._send(holdfast_pb2.FollowResponse(revision=message))
