"""Dispatches events from the front to the services, and sends the services' answers to the front in batches."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from google.protobuf.message import DecodeError

from holdfast.api.call_record import CallRecord, MethodCounts
from holdfast.api.stream import StreamHandler
from holdfast.front.calls import (
    Action,
    Call,
    Cancelled,
    DescribedReply,
    Event,
    Fail,
    Finish,
    Front,
    HalfClose,
    Kind,
    Message,
    Open,
    Peer,
    Reply,
    Send,
    Unary,
    Writable,
)
from holdfast.kv.store import StateDamaged
from holdfast.status import (
    GO_NAMES,
    INTERNAL_ERROR,
    INVALID_API_VERSION,
    NO_LEADER,
    NOT_OF_SITE,
    SITE_METADATA,
    STATE_DAMAGED,
    STOPPED,
    Code,
    Refusal,
    RequestError,
)

log = logging.getLogger("holdfast.api")

TURN_SECONDS = 0.005  # time after which a turn of the loop takes no more batches of events
TURN_EVENTS = 32  # events polled from the front at once
SHOWN = 63  # characters of the name of a site
SLOW_NS = 300_000_000  # etcd's --warning-unary-request-duration

UnaryHandler = Callable[[Call, bytes], None]
# Called once for each call; returns whether the call has to wait before it is served. If so, the given function must be
# called later, which serves the call.
Hold = Callable[[Call, Callable[[], None]], bool]
# (call, when it ended in monotonic ns, name of the status code)
Ended = Callable[["CallRecord", int, str], None]


class Sink(Protocol):
    """Receives the actions on a call made within this process."""

    def on_action(self, action: Action) -> bool:
        """Returns whether the call is now over its high-water mark."""
        ...


class Router:
    """Registers methods by path and tracks calls by id. Collects actions in `_outbox` until the end of the turn."""

    def __init__(
        self,
        *,
        timed: bool = False,
        site: str = "",
        hold: Hold = lambda call, go_on: False,
        slow_ns: int = SLOW_NS,
        ended: Ended | None = None,
    ) -> None:
        """`timed`: record the duration of the calls of each method. `site`: whose keys this server has. `slow_ns`: log
        calls that take longer. `ended` is called after each unary call."""
        self._timed = timed
        self._site = site
        self._hold = hold
        self._slow_ns = slow_ns
        self._tell_ended = ended
        self.kinds: dict[str, Kind] = {}
        self._unary: dict[str, UnaryHandler] = {}
        self._stream: dict[str, StreamHandler] = {}
        self._records: dict[int, CallRecord] = {}
        self._outbox: list[Action] = []
        self._flush_scheduled = False
        self._front: Front | None = None
        self._local: dict[int, Sink] = {}  # calls made within this process, by their negative ids
        self._local_ids = itertools.count(-1, -1)
        self._held: dict[int, list[Event]] = {}  # calls that wait to be served, with their events so far
        self.counts: dict[str, MethodCounts] = {}
        self.client_versions: Counter[tuple[Kind, str]] = Counter()

    def unary(self, path: str, handler: UnaryHandler) -> None:
        self.kinds[path] = Kind.UNARY
        self._unary[path] = handler
        self.counts[path] = MethodCounts(timed=self._timed)

    def inner(self, path: str, handler: UnaryHandler) -> None:
        """Register a unary method for calls from within this process only: no front knows it."""
        self._unary[path] = handler
        self.counts[path] = MethodCounts(timed=self._timed)

    def stream(self, path: str, kind: Kind, handler: StreamHandler) -> None:
        self.kinds[path] = kind
        self._stream[path] = handler
        self.counts[path] = MethodCounts(timed=self._timed)

    def attach(self, front: Front) -> None:
        """Serve the events of `front`."""
        self._front = front
        asyncio.get_running_loop().add_reader(front.fileno(), self._poll)

    def detach(self) -> None:
        if self._front is not None:
            asyncio.get_running_loop().remove_reader(self._front.fileno())

    # ---- in ------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        assert self._front is not None
        end = time.monotonic() + TURN_SECONDS
        while True:
            for event in self._front.poll(TURN_EVENTS):
                self.on_event(event)
            if not self._front.waiting or time.monotonic() > end:
                return  # remaining events wake the loop again

    def on_event(self, event: Event) -> None:
        """Serve an event of a call, or keep it if the call is held."""
        id = _id(event)
        held = self._held.get(id)
        if held is not None:
            if isinstance(event, Cancelled):
                del self._held[id]
            else:
                held.append(event)
            return
        self._serve(id, event)

    def _serve(self, id: int, event: Event, *, released: bool = False) -> None:
        """`released`: the call was held before, and is not held again."""
        try:
            if not released and isinstance(event, Unary | Open) and self._hold(event.call, lambda: self._release(id)):
                self._held[id] = [event]
                return
            self._handle(event)
        except RequestError as error:
            self.fail(id, error.refusal)
        except DecodeError as error:
            self.fail(id, Refusal(Code.INTERNAL, f"holdfast: the message cannot be decoded: {error}"))
        except StateDamaged:
            self.fail(id, STATE_DAMAGED)
        except Exception:
            log.exception("a request failed inside the server")
            self.fail(id, INTERNAL_ERROR)

    def _release(self, id: int) -> None:
        for event in self._held.pop(id, ()):
            self._serve(id, event, released=True)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Unary):
            record = self._begin(event.call, len(event.body))
            record.counts.received += 1
            self._unary[event.call.method](event.call, event.body)
        elif isinstance(event, Open):
            record = self._begin(event.call)
            record.stream = self._stream[event.call.method](event.call)
        elif isinstance(event, Cancelled):
            self._cancelled(event.id)
        else:
            opened = self._records.get(event.id)
            stream = opened.stream if opened is not None else None
            if opened is None or stream is None:
                return
            if isinstance(event, Message):
                opened.counts.received += 1
                stream.on_message(event.body)
            elif isinstance(event, HalfClose):
                stream.on_half_close()
            elif isinstance(event, Writable):
                stream.on_writable()

    def _begin(self, call: Call, request_bytes: int = 0) -> CallRecord:
        counts = self.counts[call.method]
        counts.started += 1
        record = self._records[call.id] = CallRecord(call, counts, request_bytes)
        site = call.metadata.get(SITE_METADATA, self._site)
        if site != self._site:
            raise RequestError(NOT_OF_SITE.fill(site=site[:SHOWN]))
        version = call.metadata.get("client-api-version")
        if version is not None and call.method in self.kinds:
            if not _is_text(version):
                raise RequestError(INVALID_API_VERSION)
            if (self.kinds[call.method], version) in self.client_versions or len(self.client_versions) < 100:
                self.client_versions[self.kinds[call.method], version] += 1
        return record

    def _cancelled(self, id: int) -> None:
        record = self._records.pop(id, None)
        if record is None:
            return
        self._count(record, "Canceled", time.monotonic_ns())
        if record.cancel is not None:
            record.cancel()
        if record.stream is not None:
            record.stream.on_cancelled()

    def on_cancel(self, call: Call, cancel: Callable[[], object] | None) -> None:
        """Set what to do if the client cancels the call before the answer. None: what was set before stays."""
        record = self._records.get(call.id) if cancel is not None else None
        if record is not None:
            record.cancel = cancel

    def mark(self, call: Call, what: str, name: str = "") -> None:
        """Record that the call has reached the step `what`. `name`: the call's name in the log, if known."""
        record = self._records.get(call.id)
        if record is not None:
            record.mark(what)
            record.name = name or record.name

    # ---- calls of our own ----------------------------------------------------------------------------------

    def open_local(
        self, method: str, sink: Sink, *, peer: Peer, metadata: Mapping[str, str], deadline_ns: int | None = None
    ) -> Call:
        """Open a call from within this process, such as those of the JSON gateway. Its events are passed to `on_event`;
        its actions go to `sink`."""
        call = Call(next(self._local_ids), method, peer, metadata, deadline_ns)
        self._local[call.id] = sink
        return call

    def local_id(self) -> int:
        """An id that no call has, for a stream of the watch hub that belongs to none."""
        return next(self._local_ids)

    def close_local(self, id: int) -> None:
        self._local.pop(id, None)

    # ---- out -----------------------------------------------------------------------------------------------

    def reply(self, id: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        record = self._records.pop(id, None)
        if record is None:
            return  # cancelled meanwhile
        record.counts.sent += 1
        self._ended(record, "OK", len(body))
        self.act(DescribedReply(id, body, headers) if headers else Reply(id, body))

    def fail(self, id: int, error: Refusal) -> None:
        record = self._records.pop(id, None)
        if record is not None:
            self._ended(record, GO_NAMES[error.code], 0)
            if record.stream is not None:
                try:
                    record.stream.on_cancelled()
                except Exception:  # the call ends all the same, and other calls of this turn are not affected
                    log.exception("%s could not be ended as it should", record.call.method)
        self.act(Fail(id, error.code, error.message))

    def finish(self, id: int) -> None:
        """End a stream with status OK."""
        record = self._records.pop(id, None)
        if record is not None:
            self._ended(record, "OK", 0)
            self.act(Finish(id))

    def _ended(self, record: CallRecord, code: str, answer_bytes: int) -> None:
        now = time.monotonic_ns()
        self._count(record, code, now)
        if record.stream is not None:
            return
        if now - record.began_ns > self._slow_ns:
            call = record.call
            log.warning(
                "slow request: %s took %.0f ms and ended with %s (%s); %d bytes asked, %d answered, for %s%s",
                call.method,
                (now - record.began_ns) / 1e6,
                code,
                record.took(now),
                record.request_bytes,
                answer_bytes,
                call.peer.address,
                f", request {record.name}" if record.name else "",
            )
        if self._tell_ended is not None:
            self._tell_ended(record, now, code)

    @staticmethod
    def _count(record: CallRecord, code: str, now_ns: int) -> None:
        counts = record.counts
        counts.handled[code] += 1
        if counts.handling is not None:
            counts.handling.observe((now_ns - record.began_ns) / 1e9)

    def send(self, id: int, body: bytes) -> None:
        record = self._records.get(id)
        if record is not None:
            record.counts.sent += 1
            self.act(Send(id, body))

    def act(self, action: Action) -> None:
        self._outbox.append(action)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        self._flush_scheduled = False
        if not self._outbox:
            return
        actions, self._outbox = self._outbox, []
        over: set[int] = set()
        if self._local:
            over = {a.id for a in actions if a.id < 0 and self._take_local(a)}
            actions = [a for a in actions if a.id > 0]
        if actions and self._front is not None:
            over |= self._front.send(actions)
        for call in over:
            record = self._records.get(call)
            if record is not None and record.stream is not None:
                try:
                    record.stream.on_over()
                except Exception:
                    log.exception("%s failed inside the server", record.call.method)
                    self.fail(call, INTERNAL_ERROR)

    def _take_local(self, action: Action) -> bool:
        """Pass an action to its sink. Returns whether the call is now over its high-water mark."""
        sink = self._local.get(action.id)
        try:
            return sink is not None and sink.on_action(action)
        except Exception:
            log.exception("an answer to a call from within this process cannot be taken")
            if isinstance(action, Fail):
                return False
            return self._take_local(Fail(action.id, INTERNAL_ERROR.code, INTERNAL_ERROR.message))

    def leaderless(self) -> None:
        """End the streams whose clients require a leader, after a long time without one, so that these clients try
        another member, which may know a leader."""
        for id, record in list(self._records.items()):
            if record.stream is not None and record.call.metadata.get("hasleader") == "true":
                self.fail(id, NO_LEADER)

    def end_streams(self, error: Refusal = STOPPED) -> None:
        """End all streams when the server stops. Clients reconnect elsewhere on Unavailable, and only on it."""
        for id, record in list(self._records.items()):
            if record.stream is not None:
                self.fail(id, error)
        self.flush()


def _id(event: Event) -> int:
    return event.call.id if isinstance(event, Unary | Open) else event.id


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
