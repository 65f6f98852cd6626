"""Access of web browsers to the client port: etcd's --cors and --host-whitelist.

A page of any site can make a browser send requests to servers in the browser's network. With a list of origins, a
request from a page of another origin is refused before it is executed; CORS headers alone would only hide the response.
With a list of hosts, requests by other host names are refused, which prevents DNS rebinding. Neither restricts gRPC,
which a page cannot use without a CORS preflight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.front.http import HttpHandler, Receiver, Request, Responder

EVERYONE = "*"
_ALLOWED = {
    "access-control-allow-methods": "POST, GET, OPTIONS, PUT, DELETE",
    "access-control-allow-headers": "accept, content-type, authorization",
}
_UNKNOWN_HOST = """\
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. holdfast serve --host-whitelist {host!r}

This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).
"""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Allowed origins of pages, and allowed Host headers of requests without TLS. Empty or with a `*`: any."""

    origins: frozenset[str] = frozenset((EVERYONE,))
    hosts: frozenset[str] = frozenset((EVERYONE,))

    @classmethod
    def of(cls, origins: Iterable[str], hosts: Iterable[str]) -> Allowed:
        return cls(frozenset(origins), frozenset(hosts))

    @property
    def any_origin(self) -> bool:
        return not self.origins or EVERYONE in self.origins

    def host(self, host: str) -> bool:
        return not self.hosts or EVERYONE in self.hosts or host in self.hosts


class Access:
    """Checks requests before `handler`. Implements `front.http.HttpHandler`."""

    def __init__(self, handler: HttpHandler, allowed: Allowed) -> None:
        self._handler = handler
        self._allowed = allowed

    def __call__(self, request: Request, responder: Responder) -> Receiver:
        allowed, origin = self._allowed, request.headers.get("origin")
        host = _name(request.headers.get("host", ""))
        if not request.peer.tls and not allowed.host(host):
            return _Answer(421, _UNKNOWN_HOST.format(host=host), request, responder)
        if allowed.any_origin:
            responder = _Cors(responder, EVERYONE)
        elif origin in allowed.origins:
            responder = _Cors(responder, origin)
        elif origin is not None and request.method != "OPTIONS":
            return _Answer(403, f"pages of {origin} may not use this server; see --cors\n", request, responder)
        if request.method == "OPTIONS":
            return _Answer(200, "", request, responder)
        return self._handler(request, responder)


def _name(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return name.removeprefix("[").removesuffix("]") if colon and port.isdigit() else host


class _Cors:
    """A `Responder` that adds CORS headers, so that the page may read the response."""

    def __init__(self, responder: Responder, origin: str) -> None:
        self._responder = responder
        self._headers = {**_ALLOWED, "access-control-allow-origin": origin}
        if origin != EVERYONE:
            self._headers["vary"] = "Origin"
        self.write = responder.write
        self.end = responder.end
        self.abort = responder.abort

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        self._responder.start(status, {**headers, **self._headers})


class _Answer:
    """Answers a request with a fixed text."""

    def __init__(self, status: int, text: str, request: Request, responder: Responder) -> None:
        self._status = status
        self._data = text.encode("utf-8", "replace")
        self._head = request.method == "HEAD"
        self._responder = responder

    def on_body(self, data: bytes) -> None:
        """The body is ignored."""

    def on_end(self) -> None:
        headers = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(self._data))}
        self._responder.start(self._status, {**headers, "x-content-type-options": "nosniff"})
        if not self._head:
            self._responder.write(self._data)
        self._responder.end()

    def on_gone(self) -> None:
        """Nothing to cancel."""

    def on_drained(self) -> None:
        """Nothing to do: the text is written at once."""
