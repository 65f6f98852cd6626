"""flagd.sync.v1: flags for OpenFeature's in-process providers, read from the keys that this server has.

A provider needs the right to read the range of its selector, as for a Range request, and its stream ends when it loses
that right. Each answer carries the position of this server, so that an application can tell how old its flags are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from google.protobuf.struct_pb2 import Struct

from holdfast.api.flag_sets import FlagSets
from holdfast.api.router import Router
from holdfast.api.shared_flags import FlagSource, Position, SharedSet
from holdfast.flags.selector import Selector
from holdfast.front.calls import Call, Kind
from holdfast.kv.fields import delimited
from holdfast.proto import flagd_sync_pb2
from holdfast.status import Refusal, RequestError
from holdfast.watch.hub import Delivery

SERVICE = "/flagd.sync.v1.FlagSyncService/"
SELECTOR = "flagd-selector"  # metadata that newer providers send
DEFAULT_PREFIX = "/flags/"
SENT_PER_TURN = 1 << 20  # bytes; one document may exceed it


class FlagReader(Protocol):
    """Whoever asks for flags: where they are read from, and with which rights."""

    @property
    def source(self) -> FlagSource: ...

    def require_user(self) -> None:
        """Raise RequestError unless the position of this server may be told."""
        ...

    def require(self, selector: Selector) -> None:
        """Raise RequestError unless this range can be read here by the call's credentials."""
        ...

    def require_further(self, selector: Selector) -> None:
        """Raise RequestError unless an open stream of this range may continue."""
        ...


class FlagsService:
    """All flag streams of this server. `reader` returns who a call is, or raises RequestError."""

    def __init__(self, router: Router, reader: Callable[[Call], FlagReader], default: str = DEFAULT_PREFIX) -> None:
        self.router = router
        self._reader = reader
        self.default = default
        self.sets = FlagSets(router.local_id)
        self._streams: dict[int, SyncStream] = {}
        self._to_send: dict[int, SyncStream] = {}
        self._pumping = False
        router.stream(SERVICE + "SyncFlags", Kind.SERVER_STREAM, self._open)
        router.unary(SERVICE + "FetchAllFlags", self.fetch_all)
        router.unary(SERVICE + "GetMetadata", self.metadata)

    def selector(self, call: Call, text: str) -> Selector:
        """Raises RequestError."""
        return Selector.parse(text or call.metadata.get(SELECTOR, ""), self.default)

    def find(self, call: Call, selector: Selector) -> SharedSet:
        """The flags that a call asks for. Raises RequestError, also if its caller may not read them."""
        reader = self._reader(call)
        reader.require(selector)
        return self.sets.get(selector, reader.source, call.peer.address)

    def _open(self, call: Call) -> SyncStream:
        stream = SyncStream(self, call, self._reader(call))
        self._streams[call.id] = stream
        return stream

    def fetch_all(self, call: Call, body: bytes) -> None:
        request = flagd_sync_pb2.FetchAllFlagsRequest.FromString(body)
        found = self.find(call, self.selector(call, request.selector))

        def ready() -> None:
            assert found.document is not None
            self.router.reply(call.id, delimited(b"\x0a", found.document.text))

        once = Once(found, ready, lambda refusal: self.router.fail(call.id, refusal))
        self.router.on_cancel(call, once.cancel)

    def metadata(self, call: Call, body: bytes) -> None:
        flagd_sync_pb2.GetMetadataRequest.FromString(body)
        reader = self._reader(call)
        reader.require_user()  # providers send no selector with this, so a right to a range cannot be asked for
        response = flagd_sync_pb2.GetMetadataResponse(metadata=_context(reader.source.position()))
        self.router.reply(call.id, response.SerializeToString())

    # ---- streams -------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> bool:
        """Whether the hub's delivery was for a set of flags."""
        return self.sets.deliver(delivery)

    def rights_changed(self) -> None:
        """Users or roles have changed: end the streams of callers that may no longer read their flags."""
        for stream in list(self._streams.values()):
            stream.check_rights()

    def closed(self, id: int) -> None:
        self._streams.pop(id, None)
        self._to_send.pop(id, None)

    def send_soon(self, stream: SyncStream) -> None:
        """Send its flags to this stream when it is its turn: a large document to many streams takes many turns."""
        self._to_send[stream.id] = stream
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        sent = 0
        messages: dict[int, bytes] = {}  # what several streams get in this turn is the same bytes
        while self._to_send and sent < SENT_PER_TURN:
            stream = self._to_send.pop(next(iter(self._to_send)))
            sent += stream.send(messages)
        self.router.flush()
        if self._to_send:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)


class SyncStream:
    """One SyncFlags call. Implements `stream.Stream` and `shared_flags.User`. A client that does not keep up gets the
    newest flags when it does, and none of those in between."""

    def __init__(self, service: FlagsService, call: Call, reader: FlagReader) -> None:
        self.id = call.id
        self._service = service
        self._call = call
        self._reader = reader
        self._selector: Selector | None = None
        self._set: SharedSet | None = None
        self._sent = 0  # number of the last document sent
        self._over = False

    def on_message(self, body: bytes) -> None:
        if self._selector is not None:
            return
        request = flagd_sync_pb2.SyncFlagsRequest.FromString(body)
        self._selector = self._service.selector(self._call, request.selector)
        self._reader.require(self._selector)
        self._set = self._service.sets.get(self._selector, self._reader.source, self._call.peer.address)
        self._set.use(self)

    def check_rights(self) -> None:
        try:
            if self._selector is not None:
                self._reader.require_further(self._selector)
        except RequestError as error:
            self._service.router.fail(self.id, error.refusal)

    def on_half_close(self) -> None:
        """Nothing to do: clients half-close after their one request."""

    def on_cancelled(self) -> None:
        if self._set is not None:
            self._set.leave(self)
        self._service.closed(self.id)

    def on_over(self) -> None:
        self._over = True

    def on_writable(self) -> None:
        self._over = False
        self.flags_changed()

    def flags_changed(self) -> None:
        if not self._over:
            self._service.send_soon(self)

    def flags_failed(self, refusal: Refusal) -> None:
        self._set = None
        self._service.router.fail(self.id, refusal)

    def send(self, messages: dict[int, bytes]) -> int:
        """Send the newest document, unless the client has it already. Returns the number of bytes."""
        document = self._set.document if self._set is not None else None
        if self._set is None or document is None or document.number == self._sent or self._over:
            return 0
        message = messages.get(id(self._set))
        if message is None:
            context = _context(self._set.position, document.left_out).SerializeToString()
            message = messages[id(self._set)] = delimited(b"\x0a", document.text) + delimited(b"\x12", context)
        self._sent = document.number
        self._service.router.send(self.id, message)
        return len(message)


class Once:
    """Waits for the first document of a set. Implements `shared_flags.User`."""

    def __init__(self, found: SharedSet, ready: Callable[[], None], failed: Callable[[Refusal], None]) -> None:
        self._found = found
        self._ready = ready
        self._failed = failed
        self._over = False
        found.use(self)

    def flags_changed(self) -> None:
        if not self._over:
            self.cancel()
            self._ready()

    def flags_failed(self, refusal: Refusal) -> None:
        if not self._over:
            self._over = True
            self._failed(refusal)

    @property
    def waiting(self) -> bool:
        return not self._over

    def cancel(self) -> None:
        self._over = True
        self._found.leave(self)


def _context(position: Position, left_out: int = 0) -> Struct:
    """What a provider adds to each evaluation context. Flat, with scalars only: some providers take nothing else."""
    context = Struct()
    context["holdfast_source"] = "replica" if position.replica else "member"
    context["holdfast_revision"] = position.revision
    if position.staleness is not None:
        context["holdfast_staleness_seconds"] = position.staleness
    if left_out:
        context["holdfast_left_out"] = left_out
    return context
