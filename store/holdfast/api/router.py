"""Takes batches of events from the front to the services, and what they answer back in batches."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from google.protobuf.message import DecodeError

from holdfast.front.calls import (
    Action,
    Call,
    Cancelled,
    Event,
    Fail,
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
from holdfast.status import NO_LEADER, STOPPED, Code, RequestError

log = logging.getLogger("holdfast.api")

MAX_EVENTS = 512  # a turn

UnaryHandler = Callable[[Call, bytes], None]


class Stream(Protocol):
    """One open streaming call, served by callbacks."""

    def on_message(self, body: bytes) -> None: ...

    def on_half_close(self) -> None: ...

    def on_cancelled(self) -> None: ...

    def on_over(self) -> None:
        """The client does not keep up: send nothing more until on_writable."""
        ...

    def on_writable(self) -> None: ...


StreamHandler = Callable[[Call], Stream]


class Sink(Protocol):
    """Takes the actions on a call that was made within this process."""

    def take(self, action: Action) -> bool:
        """Returns whether the call is over its high water now."""
        ...


class Router:
    """Methods by path, streams by call. Actions gather in `outbox` until the turn's end."""

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}
        self._unary: dict[str, UnaryHandler] = {}
        self._stream: dict[str, StreamHandler] = {}
        self._open: dict[int, Stream] = {}
        self._need_leader: set[int] = set()  # streams of clients that want to hear if there is no leader
        self._running: dict[int, Callable[[], None] | None] = {}  # unary calls: how to cancel
        self._outbox: list[Action] = []
        self._flush_scheduled = False
        self._front: Front | None = None
        self._local: dict[int, Sink] = {}  # calls made within this process, by their negative ids
        self._local_ids = itertools.count(-1, -1)
        self._held: dict[int, list[Event]] = {}  # calls that wait until they may be served, and what came for them
        # Whether a call has to wait before it is served; then the function is called when it need not any more.
        self.hold: Callable[[Call, Callable[[], None]], bool] = lambda call, go_on: False

    def unary(self, path: str, handler: UnaryHandler) -> None:
        self.kinds[path] = Kind.UNARY
        self._unary[path] = handler

    def stream(self, path: str, kind: Kind, handler: StreamHandler) -> None:
        self.kinds[path] = kind
        self._stream[path] = handler

    def attach(self, front: Front) -> None:
        """Serve what comes in at `front`."""
        self._front = front
        asyncio.get_running_loop().add_reader(front.fileno(), self._poll)

    def detach(self) -> None:
        if self._front is not None:
            asyncio.get_running_loop().remove_reader(self._front.fileno())

    # ---- in ------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        assert self._front is not None
        for event in self._front.poll(MAX_EVENTS):
            self.take(event)

    def take(self, event: Event) -> None:
        """Serve what came in for a call."""
        id = _id(event)
        held = self._held.get(id)
        if held is not None:
            if isinstance(event, Cancelled):
                del self._held[id]
            else:
                held.append(event)
            return
        if isinstance(event, Unary | Open) and self.hold(event.call, lambda: self._release(id)):
            self._held[id] = [event]
            return
        try:
            self._handle(event)
        except RequestError as error:
            self.fail(id, error.caught())
        except DecodeError as error:
            self.fail(id, RequestError(Code.INTERNAL, f"holdfast: the message cannot be decoded: {error}"))
        except Exception:
            log.exception("a request failed inside the server")
            self.fail(id, RequestError(Code.INTERNAL, "holdfast: internal error; see the server's log"))

    def _release(self, id: int) -> None:
        for event in self._held.pop(id, ()):
            self.take(event)

    # ---- calls of our own ----------------------------------------------------------------------------------

    def open_local(
        self, method: str, sink: Sink, *, peer: Peer, metadata: Mapping[str, str], deadline_ns: int | None = None
    ) -> Call:
        """A call from within this process, as the JSON gateway makes them. What is asked comes by `take`, what is
        answered goes to `sink`."""
        call = Call(next(self._local_ids), method, peer, metadata, deadline_ns)
        self._local[call.id] = sink
        return call

    def close_local(self, id: int) -> None:
        self._local.pop(id, None)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Unary):
            self._running[event.call.id] = None
            self._unary[event.call.method](event.call, event.body)
        elif isinstance(event, Open):
            self._open[event.call.id] = self._stream[event.call.method](event.call)
            if event.call.metadata.get("hasleader") == "true":
                self._need_leader.add(event.call.id)
        elif isinstance(event, Cancelled):
            cancel = self._running.pop(event.id, None)
            if cancel is not None:
                cancel()
            stream = self._open.pop(event.id, None)
            if stream is not None:
                self._need_leader.discard(event.id)
                stream.on_cancelled()
        else:
            stream = self._open.get(event.id)
            if stream is None:
                return
            if isinstance(event, Message):
                stream.on_message(event.body)
            elif isinstance(event, HalfClose):
                stream.on_half_close()
            elif isinstance(event, Writable):
                stream.on_writable()

    def on_cancel(self, call: Call, cancel: Callable[[], None]) -> None:
        """What to do if the client gives up before the answer."""
        if call.id in self._running:
            self._running[call.id] = cancel

    # ---- out -----------------------------------------------------------------------------------------------

    def reply(self, id: int, body: bytes) -> None:
        self._running.pop(id, None)
        self.act(Reply(id, body))

    def fail(self, id: int, error: RequestError) -> None:
        self._running.pop(id, None)
        stream = self._open.pop(id, None)
        if stream is not None:
            self._need_leader.discard(id)
            stream.on_cancelled()
        self.act(Fail(id, error.code, error.message))

    def send(self, id: int, body: bytes) -> None:
        self.act(Send(id, body))

    def act(self, action: Action) -> None:
        self._outbox.append(action)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)

    def forget(self, id: int) -> None:
        """This stream is finished by us."""
        self._open.pop(id, None)
        self._need_leader.discard(id)

    def flush(self) -> None:
        self._flush_scheduled = False
        if not self._outbox:
            return
        actions, self._outbox = self._outbox, []
        over: set[int] = set()
        if self._local:
            over = {a.id for a in actions if a.id < 0 and a.id in self._local and self._local[a.id].take(a)}
            actions = [a for a in actions if a.id > 0]
        if actions and self._front is not None:
            over |= self._front.send(actions)
        for call in over:
            stream = self._open.get(call)
            if stream is not None:
                stream.on_over()

    def leaderless(self) -> None:
        """There has been no leader for long: end the streams of those who asked to be told, so that they go to another
        member, which may hear of one."""
        for id in list(self._need_leader):
            self.fail(id, NO_LEADER)

    def end_streams(self, error: RequestError = STOPPED) -> None:
        """The server stops: clients reconnect elsewhere on Unavailable, and only on it."""
        for id in list(self._open):
            self.fail(id, error)
        self.flush()


def _id(event: Event) -> int:
    return event.call.id if isinstance(event, Unary | Open) else event.id
