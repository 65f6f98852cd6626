"""Plain HTTP as the front hands it on: pages, probes and the JSON gateway, whichever version of HTTP carried it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from holdfast.front.calls import Peer


@dataclass(frozen=True, slots=True)
class Request:
    """`target` is the path with its query, as it came; names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    peer: Peer


class Receiver(Protocol):
    """Takes what follows a request's head. Called on the loop."""

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_gone(self) -> None:
        """The client has gone: nothing that is answered reaches anyone."""
        ...

    def on_drained(self) -> None:
        """What was written has left this process, after `write` said that too much waits."""
        ...


class Responder(Protocol):
    """The way to answer one request."""

    def start(self, status: int, headers: Mapping[str, str]) -> None: ...

    def write(self, data: bytes) -> bool:
        """Returns whether too much waits to be sent now."""
        ...

    def end(self) -> None: ...

    def abort(self) -> None:
        """Break the answer off so that the client can tell it is not whole."""
        ...


# Answers when it has seen the end of the request or later, never from within this call.
HttpHandler = Callable[[Request, Responder], Receiver]
