"""Interface for plain HTTP requests (pages, probes, the JSON gateway), the same for HTTP/1.1 and HTTP/2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from holdfast.front.calls import Peer


@dataclass(frozen=True, slots=True)
class Request:
    """One request without its body. `target` is the undecoded path with its query; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    peer: Peer


class Receiver(Protocol):
    """Gets the events of a request after its head. Called on the loop."""

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_gone(self) -> None:
        """The client has disconnected; a response would not reach it."""
        ...

    def on_drained(self) -> None:
        """The written data has been sent, after `write` returned True."""
        ...


class Responder(Protocol):
    """Sends the response to one request."""

    def start(self, status: int, headers: Mapping[str, str]) -> None: ...

    def write(self, data: bytes) -> bool:
        """Returns whether too much data is waiting to be sent: pause until `on_drained`."""
        ...

    def end(self) -> None: ...

    def abort(self) -> None:
        """Break off the response in such a way that the client can tell it is incomplete."""
        ...


# Answers at the end of the request or later, never from within this call.
HttpHandler = Callable[[Request, Responder], Receiver]
