"""HTTP/1.1 for a connection that does not speak HTTP/2: one request after the other, read by h11."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import h11

from holdfast.front.calls import Peer
from holdfast.front.http import HttpHandler, Receiver, Request

log = logging.getLogger("holdfast.http")

MAX_HEAD_BYTES = 64 << 10
MAX_AHEAD_BYTES = 64 << 10  # of requests that were sent before the one under way is answered


class Http1:
    """Implements `http.Responder` for the request under way."""

    def __init__(self, transport: Any, handler: HttpHandler, peer: Peer) -> None:
        self._transport = transport
        self._handler = handler
        self._peer = peer
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._receiver: Receiver | None = None
        self._paused = False

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self._receiver is None

    def time_out(self) -> None:
        """Nothing has come for long: if it is the client's turn, that is the end."""
        if self.idle:
            self._transport.close()
        elif self._connection.their_state is h11.SEND_BODY and self._connection.our_state is h11.SEND_RESPONSE:
            self._refuse(408, "the rest of the request did not come")

    # ---- in ------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        self._connection.receive_data(data)
        self._go_on()

    def _go_on(self) -> None:
        try:
            while True:
                event = self._connection.next_event()
                if event is h11.NEED_DATA:
                    if self._connection.they_are_waiting_for_100_continue:
                        self._send(h11.InformationalResponse(status_code=100, headers=[]))
                    return
                if event is h11.PAUSED:  # the next request, before this one is answered: it has to wait
                    if len(self._connection.trailing_data[0]) > MAX_AHEAD_BYTES:
                        self._refuse(429, "too much was sent before an answer to what was asked first")
                    return
                if isinstance(event, h11.ConnectionClosed):
                    self._transport.close()
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            log.debug("%s: %s", self._peer.address, error)
            self._refuse(error.error_status_hint, f"not HTTP as it should be: {error}")

    def _refuse(self, status: int, why: str) -> None:
        """End the connection, with an answer if none has begun."""
        self.lost()
        if self._connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = f"{why}\n".encode()
            headers = [("content-length", str(len(body))), ("connection", "close")]
            self._send(h11.Response(status_code=status, headers=headers))
            self._send(h11.Data(data=body))
        self._transport.close()

    def _take(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            method, target = event.method.decode("latin-1"), event.target.decode("latin-1")
            self._receiver = self._handler(Request(method, target, headers, self._peer), self)
        elif isinstance(event, h11.Data) and self._receiver is not None:
            self._receiver.on_body(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage) and self._receiver is not None:
            self._receiver.on_end()

    def ended(self) -> None:
        """The client sends nothing more, so it has gone (as for etcd): a watch, or waiting for a lock, would never
        end, if it were taken for one that still listens."""
        self._connection.receive_data(b"")
        if self._connection.their_state is not h11.DONE:
            self._go_on()  # within a request: it is told so
        self.lost()

    def lost(self) -> None:
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            receiver.on_gone()

    # ---- out -----------------------------------------------------------------------------------------------

    def _send(self, event: Any) -> None:
        data = self._connection.send(event)
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        if self._receiver is not None or self._connection.our_state is h11.SEND_RESPONSE:
            self._send(h11.Response(status_code=status, headers=list(headers.items())))

    def write(self, data: bytes) -> bool:
        if data and self._connection.our_state is h11.SEND_BODY:
            self._send(h11.Data(data=data))
        return self._paused

    def end(self) -> None:
        if self._connection.our_state is not h11.SEND_BODY:
            return
        self._receiver = None
        self._send(h11.EndOfMessage())
        states = self._connection.states
        if states[h11.SERVER] is h11.MUST_CLOSE or states[h11.CLIENT] is not h11.DONE:
            self._transport.close()
            return
        self._connection.start_next_cycle()
        self._go_on()

    def abort(self) -> None:
        self._receiver = None
        self._transport.close()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._receiver is not None:
            self._receiver.on_drained()
