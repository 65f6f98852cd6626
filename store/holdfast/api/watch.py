"""etcdserverpb.Watch: turns the deliveries of the watch hub into messages of watch streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from holdfast.api.router import Router
from holdfast.api.wire import event
from holdfast.front.calls import Call, Credit, Kind
from holdfast.keyrange import bounds
from holdfast.kv.fields import delimited, varint
from holdfast.kv.rows import Change
from holdfast.proto import rpc_pb2
from holdfast.status import COMPACTED, RequestError
from holdfast.watch.hub import Compacted, Delivery, Events, Hub, Progress
from holdfast.watch.watcher import Watcher

FRAGMENT_BYTES = 2 << 20
PROGRESS_SECONDS = 600.0
_CREATE = rpc_pb2.WatchCreateRequest
_MASK = (1 << 64) - 1
_ANOTHER_SPACE = (
    "holdfast: keys of the site and keys of the cluster have revisions of their own: watch them on streams of their own"
)


class Watchable(Protocol):
    """A key space that can be watched: that of a member, or one of an edge replica."""

    def part(self, start: bytes, end: bytes | None) -> Watchable:
        """The key space that this range is of: this one, but at a replica that has keys of a site, too."""
        ...

    @property
    def hub(self) -> Hub: ...

    def header(self, revision: int | None) -> rpc_pb2.ResponseHeader: ...

    def poke(self) -> None:
        """Wake the driver: the hub has work to do."""
        ...

    def refuse_watch(self, start: bytes, end: bytes | None) -> str:
        """The reason why this range cannot be watched here; empty if it can. Raises RequestError to end the stream."""
        ...

    def refuse_further(self, start: bytes, end: bytes | None) -> str:
        """The reason to cancel an existing watch of this range; empty if it may continue. Raises RequestError to end
        the stream."""
        ...


class WatchService:
    """All watch streams of this server. `host` returns what a call watches, or raises RequestError."""

    def __init__(
        self, router: Router, host: Callable[[Call], Watchable], progress_seconds: float = PROGRESS_SECONDS
    ) -> None:
        self.router = router
        self._host = host
        self._hubs: set[Hub] = set()
        self._progress_seconds = progress_seconds
        self.streams: dict[int, WatchStream] = {}
        router.stream("/etcdserverpb.Watch/Watch", Kind.BIDI, self.open)
        asyncio.get_running_loop().call_later(progress_seconds, self._tick)

    def open(self, call: Call) -> WatchStream:
        host = self._host(call)
        self.watched(host.hub)
        stream = WatchStream(self, call, host)
        self.streams[call.id] = stream
        return stream

    def watched(self, hub: Hub) -> None:
        """Tell watchers of this hub that nothing has changed, from time to time."""
        self._hubs.add(hub)

    def deliver(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Send the hub's deliveries to their streams. Returns those for streams of other services."""
        others: list[Delivery] = []
        encoded = Encoded()
        for delivery in deliveries:
            stream = self.streams.get(delivery.stream)
            if stream is None:
                others.append(delivery)
            else:
                stream.deliver(delivery, encoded)
        return others

    def rights_changed(self) -> None:
        """Users or roles have changed: cancel the watches of ranges that their clients may no longer read."""
        for stream in list(self.streams.values()):
            stream.check_rights()

    def _tick(self) -> None:
        asyncio.get_running_loop().call_later(self._progress_seconds, self._tick)
        for hub in self._hubs:
            self.deliver(hub.tick())


class WatchStream:
    """One stream with its watches. Requests are answered in their order."""

    def __init__(self, service: WatchService, call: Call, host: Watchable) -> None:
        self._service = service
        self._call = call
        self._spaces = host
        self._host = host
        self._hub = host.hub
        self._over = False  # the client does not read this stream
        self._hub.open(call.id)
        call.peer.outbox.follow(call.id, self._regulate)
        if call.peer.outbox.full:
            self._regulate()

    # ---- requests ------------------------------------------------------------------------------------------

    def on_message(self, body: bytes) -> None:
        self._service.router.act(Credit(self._call.id, 1))
        request = rpc_pb2.WatchRequest.FromString(body)
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            self._create(request.create_request)
        elif kind == "cancel_request":
            if self._hub.cancel(self._call.id, request.cancel_request.watch_id):
                self._send(rpc_pb2.WatchResponse(watch_id=request.cancel_request.watch_id, canceled=True))
        elif kind == "progress_request":
            progress = self._hub.progress(self._call.id)
            if progress is not None:
                self._send_progress(progress)

    def _create(self, request: rpc_pb2.WatchCreateRequest) -> None:
        id = request.watch_id
        key = request.key or b"\x00"
        start, end = bounds(key, request.range_end)
        reason = self._turn_to(self._spaces.part(start, end))
        if not reason:
            reason = COMPACTED.message if request.start_revision < 0 else self._host.refuse_watch(start, end)
        if not reason and end is not None and end <= start:
            reason = "mvcc: watcher range is empty"
        if not reason and id and self._hub.has(self._call.id, id):
            reason = "mvcc: duplicate watch ID provided on the WatchStream"
        if reason:
            self._send(rpc_pb2.WatchResponse(watch_id=-1, created=True, canceled=True, cancel_reason=reason))
            return
        watcher = Watcher(
            id or self._hub.new_id(self._call.id),
            ((start, end),),
            request.start_revision,
            prev_kv=request.prev_kv,
            no_put=_CREATE.NOPUT in request.filters,
            no_delete=_CREATE.NODELETE in request.filters,
            fragment=request.fragment,
            progress=request.progress_notify,
        )
        self._hub.add(self._call.id, watcher)
        self._send(rpc_pb2.WatchResponse(watch_id=watcher.id, created=True))
        self._host.poke()

    def _turn_to(self, host: Watchable) -> str:
        """A stream is of one key space, that of its first watch: progress is told for all of its watches together.
        Returns the reason if this is another one."""
        if host.hub is self._hub:
            return ""
        if self._hub.watchers_of(self._call.id):
            return _ANOTHER_SPACE
        self._hub.close(self._call.id)
        self._host, self._hub = host, host.hub
        self._service.watched(self._hub)
        self._hub.open(self._call.id)
        self._regulate()
        return ""

    def check_rights(self) -> None:
        for watcher in self._hub.watchers_of(self._call.id):
            start, end = watcher.ranges[0]
            try:
                reason = self._host.refuse_further(start, end)
            except RequestError as error:
                self._service.router.fail(self._call.id, error.refusal)
                return
            if reason:
                self._hub.cancel(self._call.id, watcher.id)
                self._send(rpc_pb2.WatchResponse(watch_id=watcher.id, canceled=True, cancel_reason=reason))

    def on_half_close(self) -> None:
        """Half-close does not end a watch."""

    def on_cancelled(self) -> None:
        self._call.peer.outbox.forget(self._call.id)
        self._hub.close(self._call.id)
        self._service.streams.pop(self._call.id, None)

    def on_over(self) -> None:
        self._over = True
        self._regulate()

    def on_writable(self) -> None:
        self._over = False
        self._regulate()

    def _regulate(self) -> None:
        """Send nothing while the client does not read this stream, or has much to read of others."""
        if self._over or self._call.peer.outbox.full:
            self._hub.block(self._call.id)
        else:
            self._hub.unblock(self._call.id)
            self._host.poke()

    # ---- answers -------------------------------------------------------------------------------------------

    def _send(self, response: rpc_pb2.WatchResponse, revision: int | None = None) -> None:
        response.header.CopyFrom(self._host.header(revision))
        self._service.router.send(self._call.id, response.SerializeToString())

    def deliver(self, delivery: Delivery, encoded: Encoded) -> None:
        if isinstance(delivery, Events):
            self._send_events(delivery, encoded)
        elif isinstance(delivery, Compacted):
            response = rpc_pb2.WatchResponse(
                watch_id=delivery.watcher.id, canceled=True, compact_revision=delivery.compacted
            )
            self._send(response, 0)
        else:
            self._send_progress(delivery)

    def _send_progress(self, delivery: Progress) -> None:
        id = -1 if delivery.watcher is None else delivery.watcher.id
        self._send(rpc_pb2.WatchResponse(watch_id=id), delivery.revision)

    def _send_events(self, delivery: Events, encoded: Encoded) -> None:
        watcher = delivery.watcher
        head = encoded.header(self._host, delivery.revision) + b"\x10" + varint(watcher.id & _MASK)
        parts, size = [head], 0
        for number, change in enumerate(delivery.changes):
            told = encoded.event(change, watcher.prev_kv)
            # The fragments of one response are sent without anything in between.
            if watcher.fragment and number and size + len(told) > FRAGMENT_BYTES:
                self._service.router.send(self._call.id, b"".join(parts) + b"\x38\x01")
                parts, size = [head], 0
            parts.append(told)
            size += len(told)
        self._service.router.send(self._call.id, b"".join(parts))


class Encoded:
    """A cache for one turn, so that what several watchers receive is encoded once."""

    def __init__(self) -> None:
        self._headers: dict[tuple[int, int], bytes] = {}
        self._events: dict[tuple[int, bool], tuple[Change, bytes]] = {}

    def header(self, host: Watchable, revision: int) -> bytes:
        known = self._headers.get((id(host.hub), revision))
        if known is None:
            known = delimited(b"\x0a", host.header(revision).SerializeToString())
            self._headers[id(host.hub), revision] = known
        return known

    def event(self, change: Change, prev_kv: bool) -> bytes:
        known = self._events.get((id(change), prev_kv))
        if known is None:
            # Keep a reference to the change, so that its id is not reused.
            known = self._events[id(change), prev_kv] = (change, delimited(b"\x5a", event(change, prev_kv)))
        return known[1]
