"""HTTP/1.1 for connections that do not speak HTTP/2: one request after the other, parsed by h11.

The work done for one connection in one turn of the loop is bounded, in requests and in pieces of a body. After a
response that precedes the end of its request, the rest of the request is read and discarded, up to a bound: closing at
once would reset the connection, and the client would lose the response.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any

import h11

from holdfast.front.calls import Peer
from holdfast.front.http import HttpHandler, Receiver, Request
from holdfast.status import INTERNAL_ERROR, for_people

log = logging.getLogger("holdfast.http")

MAX_HEAD_BYTES = 64 << 10
MAX_AHEAD_BYTES = 64 << 10  # of pipelined requests, received before the current one is answered
EVENTS_PER_TURN = 128  # request heads and pieces of bodies, which a client can make arbitrarily small
LINGER_BYTES = 64 << 20
LINGER_SECONDS = 10.0

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # not allowed in header values; h11 accepts some of them


class BadRequest(Exception):
    """A request that h11 accepts but that must be refused."""


class Http1:
    """Implements `http.Responder` for the request under way."""

    def __init__(self, transport: Any, handler: HttpHandler, peer: Peer) -> None:
        self._transport = transport
        self._handler = handler
        self._peer = peer
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._receiver: Receiver | None = None
        self._paused = False
        self._going_on_later = False
        self._lingering: asyncio.TimerHandle | None = None
        self._discarded = 0

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self._receiver is None

    def time_out(self) -> None:
        """Close the connection after a long silence, if the client has to send next."""
        if self.idle:
            self._transport.close()
        elif self._connection.their_state is h11.SEND_BODY and self._connection.our_state is h11.SEND_RESPONSE:
            self._answer_last(408, "the rest of the request did not come")
            self._transport.close()

    # ---- in ------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        if self._lingering is not None:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self._transport.close()
            return
        self._connection.receive_data(data)
        if not self._going_on_later:
            self._go_on()

    def _go_on(self) -> None:
        try:
            for _ in range(EVENTS_PER_TURN):
                event = self._connection.next_event()
                if event is h11.NEED_DATA:
                    if self._connection.they_are_waiting_for_100_continue:
                        self._send(h11.InformationalResponse(status_code=100, headers=[]))
                    return
                if event is h11.PAUSED:  # a pipelined request; it waits until the current one is answered
                    if len(self._connection.trailing_data[0]) > MAX_AHEAD_BYTES:
                        self._refuse(429, "too much data was sent before the first request was answered")
                    return
                if isinstance(event, h11.ConnectionClosed):
                    self._transport.close()
                    return
                self._take(event)
                if self._going_on_later or self._lingering is not None or self._transport.is_closing():
                    return
            self._go_on_later()
        except h11.RemoteProtocolError as error:
            log.debug("%s: %s", self._peer.address, error)
            self._refuse(error.error_status_hint, f"malformed HTTP request: {error}")
        except (BadRequest, ValueError) as error:  # ValueError: a content-length of thousands of digits
            self._refuse(400, f"malformed HTTP request: {error}")
        except Exception:
            log.exception("a request failed inside the server")
            self._refuse(500, for_people(INTERNAL_ERROR.message))

    def _go_on_later(self) -> None:
        """Process the rest of the received data in the loop's next turn, and read nothing until then."""
        if not self._going_on_later and not self._transport.is_closing():
            self._going_on_later = True
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        self._going_on_later = False
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._go_on()

    def _refuse(self, status: int, why: str) -> None:
        """End the connection, with a response if none has begun."""
        if self._answer_last(status, why):
            self._linger()
        else:
            self._transport.close()

    def _answer_last(self, status: int, why: str) -> bool:
        """Abandon the current request. Returns whether a response could still be sent."""
        self.lost()
        room = self._connection.our_state in (h11.IDLE, h11.SEND_RESPONSE)
        if room:
            body = f"{why}\n".encode()
            headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))]
            self._send(h11.Response(status_code=status, headers=[*headers, ("connection", "close")]))
            self._send(h11.Data(data=body))
        return room

    def _linger(self) -> None:
        """Close once the client has read the response: when it closes its side, or after LINGER_SECONDS or
        LINGER_BYTES."""
        if self._lingering is None and not self._transport.is_closing():
            self._lingering = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.close)
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def _take(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            if event.http_version not in (b"1.0", b"1.1"):
                raise BadRequest(f"HTTP/{event.http_version.decode()} is not supported in this form")
            headers: dict[str, str] = {}
            for name, value in event.headers:
                if _CONTROL.search(value):
                    raise BadRequest(f"the header {name.decode('latin-1')} contains control characters")
                headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))  # the first of several, as in etcd
            if "content-length" in headers and "transfer-encoding" in headers:
                raise BadRequest("both content-length and transfer-encoding")
            method, target = event.method.decode("latin-1"), event.target.decode("latin-1")
            self._receiver = self._handler(Request(method, target, headers, self._peer), self)
        elif isinstance(event, h11.Data) and self._receiver is not None:
            self._receiver.on_body(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage) and self._receiver is not None:
            self._receiver.on_end()

    def ended(self) -> None:
        """Handle the end of the client's data. As in etcd, the client counts as gone: otherwise its watch, or its wait
        for a lock, would never end."""
        if self._lingering is None:
            self._connection.receive_data(b"")
            if self._connection.their_state is not h11.DONE:
                self._go_on()  # h11 reports an incomplete request, which is answered with an error
        self.lost()

    def lost(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            receiver.on_gone()

    # ---- out -----------------------------------------------------------------------------------------------

    def _send(self, event: Any) -> None:
        data = self._connection.send(event)
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        if self._connection.our_state is h11.SEND_RESPONSE:
            more = [("connection", "close")] if status >= 400 and self._unfinished else []
            self._send(h11.Response(status_code=status, headers=[*headers.items(), *more]))

    @property
    def _unfinished(self) -> bool:
        """Whether the request has not been received in full."""
        return self._connection.their_state is h11.SEND_BODY

    def write(self, data: bytes) -> bool:
        if data and self._connection.our_state is h11.SEND_BODY:
            self._send(h11.Data(data=data))
        return self._paused

    def end(self) -> None:
        if self._connection.our_state is not h11.SEND_BODY:
            return
        self._receiver = None
        self._send(h11.EndOfMessage())
        if self._unfinished:
            self._linger()
            return
        states = self._connection.states
        if states[h11.SERVER] is h11.DONE and states[h11.CLIENT] is h11.DONE:
            self._connection.start_next_cycle()
            if self._connection.trailing_data[0]:
                self._go_on_later()
        else:
            self._transport.close()

    def abort(self) -> None:
        self._receiver = None
        self._transport.close()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._receiver is not None:
            self._receiver.on_drained()
