"""holdfast.v1.Edge: the applied, revisioned stream of some prefixes, for replicas to follow.

A replica says how far it is complete; it gets what it lacks from history, or if that is gone a snapshot, and then every
revision as it is applied. Position, filter and completeness are said in the stream itself, never guessed.
"""

from __future__ import annotations

import asyncio

import google_crc32c

from holdfast.api.base import Service, Serving
from holdfast.api.node import Reports
from holdfast.front.calls import Call, Credit, Kind
from holdfast.kv.ranges import bounds
from holdfast.kv.rows import DELETE, Change, unpack_current
from holdfast.kv.store import Family
from holdfast.member.interface import Answer
from holdfast.proto import holdfast_pb2, kv_pb2
from holdfast.status import Code, RequestError
from holdfast.watch.hub import Compacted, Delivery, Events, Watcher

PROGRESS_SECONDS = 0.2
CHUNK_BYTES = 512 << 10
MAX_RANGES = 64
_WATCHER = 0


class EdgeService(Service):
    def __init__(self, serving: Serving, reports: Reports) -> None:
        super().__init__(serving)
        router = self.router
        self.reports = reports
        self.streams: dict[int, FollowStream] = {}
        router.stream("/holdfast.v1.Edge/Follow", Kind.BIDI, self.open)

    def open(self, call: Call) -> FollowStream:
        stream = FollowStream(self, call)
        self.streams[call.id] = stream
        return stream

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
        self._hub = self._member.hub
        self._hub.open(call.id)
        self._start: holdfast_pb2.FollowStart | None = None
        self._ranges: tuple[tuple[bytes, bytes | None], ...] = ()
        self._told = 0  # revision the replica was last told it is complete to
        self._following = False
        self._chunks: list[bytes] = []  # of a snapshot still being sent
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._name = ""

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
            self._service.reports.put(request.report)

    def _begin(self, start: holdfast_pb2.FollowStart) -> None:
        if self._start is not None:
            raise RequestError(Code.INVALID_ARGUMENT, "holdfast: this stream has been started already")
        cluster_id = self._service.node.data.identity.cluster_id
        if start.cluster_id not in (0, cluster_id):
            raise RequestError(
                Code.FAILED_PRECONDITION,
                f"holdfast: the replica {start.replica!r} holds data of cluster {start.cluster_id:x}, this is cluster "
                f"{cluster_id:x}; correct its --endpoints, or empty its data directory to start anew from this cluster",
            )
        if not 0 < len(start.filter) <= MAX_RANGES or any(not r.key for r in start.filter):
            raise RequestError(Code.INVALID_ARGUMENT, f"holdfast: a filter has 1 to {MAX_RANGES} ranges with keys")
        auth = self._member.core.machine.auth
        if auth.enabled:
            who = self._service.principal(self._call, self._member)
            for part in start.filter:
                auth.require_read(who, part.key, part.range_end)
        epoch = self._member.core.machine.epoch
        if start.cluster_id and start.epoch > epoch:
            raise RequestError(
                Code.FAILED_PRECONDITION, f"holdfast: the replica is in epoch {start.epoch}, this member in {epoch}"
            )
        self._start = start
        self._name = start.replica
        self._ranges = tuple(bounds(r.key, r.range_end) for r in start.filter)
        self._tick()

    def _tick(self) -> None:
        """Start once we are as far as the replica is; afterwards tell it of progress on quiet filters."""
        self._timer = asyncio.get_running_loop().call_later(PROGRESS_SECONDS, self._tick)
        start = self._start
        assert start is not None
        if not self._following:
            # Behind the replica we have nothing to say: it waits. Neither "compacted" nor a snapshot of the past.
            if self._member.revision >= start.watermark or start.epoch < self._member.core.machine.epoch:
                self._following = True
                self._follow(start)
            return
        progress = self._hub.progress(self._call.id)
        if progress is not None and progress.revision > self._told and not self._chunks:
            self._send_progress(progress.revision)

    def _follow(self, start: holdfast_pb2.FollowStart) -> None:
        machine = self._member.core.machine
        space = machine.space
        fresh = not start.cluster_id or not start.watermark or start.epoch != machine.epoch
        snapshot = fresh or start.watermark + 1 < space.compacted
        hello = holdfast_pb2.FollowHello(
            cluster_id=self._service.node.data.identity.cluster_id,
            epoch=machine.epoch,
            term=self._member.core.term,
            filter_version=start.filter_version,
            floor=max(space.compacted, 1),
            snapshot=snapshot,
        )
        self._send(holdfast_pb2.FollowResponse(hello=hello))
        if snapshot:
            self._snapshot(start, space.revision)
        self._told = space.revision if snapshot else start.watermark
        self._hub.add(self._call.id, Watcher(_WATCHER, self._ranges, self._told + 1, prev_kv=True))
        if self._chunks:
            self._hub.block(self._call.id)
            self._pump()
        self._member.poke()

    def _snapshot(self, start: holdfast_pb2.FollowStart, revision: int) -> None:
        """Everything in the filter as it is now, closed by a trailer that says how much that was."""
        store = self._member.store
        crc, count = 0, 0
        chunk = holdfast_pb2.FollowChunk()
        size = 0
        for low, high in self._ranges:
            for _, value in store.scan(Family.CUR, low, high):
                kv = unpack_current(value).kv
                crc = google_crc32c.extend(crc, kv)
                count += 1
                size += len(kv)
                chunk.kvs.add().ParseFromString(kv)
                if size > CHUNK_BYTES:
                    self._chunks.append(holdfast_pb2.FollowResponse(chunk=chunk).SerializeToString())
                    chunk, size = holdfast_pb2.FollowChunk(), 0
        if chunk.kvs:
            self._chunks.append(holdfast_pb2.FollowResponse(chunk=chunk).SerializeToString())
        trailer = holdfast_pb2.FollowTrailer(
            filter=start.filter, filter_version=start.filter_version, revision=revision, count=count, hash=crc
        )
        self._chunks.append(holdfast_pb2.FollowResponse(trailer=trailer).SerializeToString())

    def _pump(self) -> None:
        """Send the snapshot as fast as the client takes it, then let what happened meanwhile follow."""
        router = self._service.router
        while self._chunks and not self._over:
            router.send(self._call.id, self._chunks.pop(0))
            router.flush()
        if not self._chunks and not self._over:
            self._hub.unblock(self._call.id)
            self._member.poke()

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
        if self._name:
            self._service.reports.gone(self._name)
        if self._timer is not None:
            self._timer.cancel()

    def on_over(self) -> None:
        self._over = True
        self._hub.block(self._call.id)

    def on_writable(self) -> None:
        self._over = False
        self._pump()

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
                self._call.id, RequestError(Code.UNAVAILABLE, "holdfast: fell behind the compacted history; reconnect")
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
