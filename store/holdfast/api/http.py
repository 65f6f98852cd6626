"""The plain port for probes and metrics: /livez, /readyz, /health, /version, /metrics. GET only."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable

log = logging.getLogger("holdfast.http")

MAX_HEAD_BYTES = 8192
TIMEOUT_SECONDS = 5.0
LIVE_SECONDS = 10.0

Page = Callable[[], tuple[int, str]]
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class HttpServer:
    """A few pages, each a function of the moment."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, body = self._answer(head)
                kind = "application/json" if body.startswith("{") else "text/plain; charset=utf-8"
                data = body.encode()
                writer.write(
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {kind}\r\n"
                    f"content-length: {len(data)}\r\nconnection: close\r\n\r\n".encode()
                    + data
                )
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("a request ended early: %s", error)
        finally:
            writer.close()

    def _answer(self, head: bytes) -> tuple[int, str]:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3:
            return 400, "not HTTP\n"
        if words[0] != b"GET":
            return 405, "only GET\n"
        page = self._pages.get(words[1].split(b"?", 1)[0].decode("latin-1"))
        return page() if page is not None else (404, "no such page: try /livez, /readyz, /health, /version, /metrics\n")

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()


def alive(turned_at: Callable[[], float]) -> Page:
    """Live = the loop turns."""

    def page() -> tuple[int, str]:
        idle = time.monotonic() - turned_at()
        return (200, "ok\n") if idle < LIVE_SECONDS else (503, f"the loop has not turned for {idle:.1f} s\n")

    return page


def as_json(values: dict[str, str]) -> str:
    return json.dumps(values)


def metrics_text(values: dict[str, float]) -> str:
    """Prometheus' text format of plain gauges and counters."""
    return "".join(f"# TYPE {name} {_kind(name)}\n{name} {value:g}\n" for name, value in values.items())


def _kind(name: str) -> str:
    return "counter" if name.endswith("_total") else "gauge"
