"""Plain HTTP as in etcd: GET pages for probes, versions and metrics. What is below some paths has handlers of its own:
the JSON gateway, the evaluation of flags."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qs, quote

from holdfast.front.http import HttpHandler, Receiver, Request, Responder
from holdfast.status import INTERNAL_ERROR, for_people

log = logging.getLogger("holdfast.http")

LIVE_SECONDS = 10.0

_IN_PATHS = "/%:@!$&'()*+,;=~"  # not escaped in paths, besides letters, digits and _.-

Query = Mapping[str, list[str]]
Say = Callable[[int, str], None]  # status, body
Page = Callable[[Query, Say], None]  # may call Say later


class Pages:
    """Serves `pages` by path, and passes what is below a path of `below` (which ends in `/`) to that handler.
    Implements `front.http.HttpHandler`."""

    def __init__(self, pages: Mapping[str, Page], below: Mapping[str, HttpHandler] | None = None) -> None:
        self._pages = dict(pages)
        self._below = dict(below or {})

    def add(self, path: str, page: Page) -> None:
        self._pages[path] = page

    def __call__(self, request: Request, responder: Responder) -> Receiver:
        path, query = split_target(request.target)
        clean = clean_path(path)
        if path != clean:
            location = quote(clean, safe=_IN_PATHS)  # else browsers may take x in "/\x" for a host
            return _Get(None, "", request, responder, location=f"{location}?{query}" if query else location)
        for start, handler in self._below.items():
            if path.startswith(start):
                return handler(request, responder)
        return _Get(self._pages.get(path), query, request, responder)


def split_target(target: str) -> tuple[str, str]:
    """(path, query) of a request target, which may be an absolute URL."""
    path, _, query = target.partition("?")
    if path.startswith(("http://", "https://")):
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path, query


def clean_path(path: str) -> str:
    """`path` without empty parts, `.` and `..`."""
    if not path.startswith("/"):
        return path  # such as * in OPTIONS *
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    clean = "/" + "/".join(parts)
    return clean + "/" if parts and path.endswith("/") else clean


class _Get:
    """One request for a page. If its path is not clean, the client is redirected to `location`, as in etcd."""

    def __init__(
        self, page: Page | None, query: str, request: Request, responder: Responder, *, location: str = ""
    ) -> None:
        self._location = location
        self._page = page
        self._query = query
        self._request = request
        self._responder = responder
        self._gone = False

    def on_body(self, data: bytes) -> None:
        """The body is ignored."""

    def on_end(self) -> None:
        if self._location:
            self._say(307, "")
        elif self._page is None:
            self._say(404, "404 page not found\n")
        elif self._request.method not in ("GET", "HEAD"):
            self._say(405, "only GET\n")
        else:
            try:
                self._page(parse_qs(self._query, keep_blank_values=True), self._say)
            except Exception:
                log.exception("the page %s failed", self._request.target)
                self._say(500, for_people(INTERNAL_ERROR.message) + "\n")

    def _say(self, status: int, body: str) -> None:
        if self._gone:
            return
        self._gone = True
        data = body.encode()
        kind = "application/json" if body.startswith("{") else "text/plain; charset=utf-8"
        headers = {"content-type": kind, "content-length": str(len(data)), "x-content-type-options": "nosniff"}
        if status == 405:
            headers["allow"] = "GET, HEAD"
        if status == 307:
            headers["location"] = self._location
        self._responder.start(status, headers)
        if self._request.method != "HEAD":
            self._responder.write(data)
        self._responder.end()

    def on_gone(self) -> None:
        self._gone = True

    def on_drained(self) -> None:
        """Nothing to do: a page is written at once."""


def fixed(text: Callable[[], tuple[int, str]]) -> Page:
    """A page whose (status, body) is available at once."""
    return lambda query, say: say(*text())


def stuck(turned_at: float) -> str:
    """The problem of a loop whose last turn was at `turned_at`; empty if there is none."""
    idle = time.monotonic() - turned_at
    return f"the loop has not turned for {idle:.1f} s" if idle > LIVE_SECONDS else ""


def say_checks(name: str, found: Mapping[str, str], say: Say, *, verbose: bool, notes: Sequence[str] = ()) -> None:
    """Write the results of all checks of a page: the problem that each found; empty if none. `notes`: warnings that do
    not make the page fail."""
    failed = any(found.values())
    warnings = [f"[!]{note}" for note in notes]
    if not failed and not verbose:
        say(200, "\n".join(["ok", *warnings, ""]))
        return
    lines = [f"[-]{check} failed: {wrong}" if wrong else f"[+]{check} ok" for check, wrong in found.items()]
    say(503 if failed else 200, "\n".join([*lines, *warnings, f"{name} check failed" if failed else "ok", ""]))


def as_json(values: Mapping[str, object]) -> str:
    return json.dumps(values)
