"""What every server process needs, member or replica: where it listens, how many clients it takes, and how it ends.

It imports nothing of either, so a replica starts without loading what only members run.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from holdfast.api.pages import Pages
from holdfast.front.calls import AddressInUse
from holdfast.front.http2.front import Http2Front
from holdfast.storage.files import PRIVATE_UMASK
from holdfast.tls import TlsFiles, server_context

GRACE_SECONDS = 3.0
OWN_FILES = 768  # file descriptors reserved for the state's tables, the log, peers and probes
MAX_PROBES = 64  # connections to the port for probes and metrics
MIN_CONNECTIONS = 64
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGE_PIECE_BYTES = 1 << 16
PROBE_IDLE_SECONDS = 60.0  # an HTTP/2 probe connection idle for longer is pinged; HTTP/1.1 is closed sooner


class StartError(Exception):
    """The process cannot start or continue. The message is one line that says why and what to do."""

    def __init__(self, line: str, code: int = 1) -> None:
        super().__init__(line)
        self.code = code  # the process's exit code


def file_limit() -> int:
    """How many files and sockets this process may open. Raises the soft limit to the hard limit, as Go does: the usual
    1,024 is meant for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def room_for_clients() -> int:
    """The maximum number of client connections."""
    return max(MIN_CONNECTIONS, file_limit() - OWN_FILES)


def host_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        if parts.scheme in ("http", "https") and parts.hostname and parts.port and parts.path in ("", "/"):
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise StartError(f"{url!r} is not a URL to listen on or be reached at: give http(s)://HOST:PORT")


async def listen(front: Http2Front, urls: tuple[str, ...], files: TlsFiles | None = None) -> None:
    """Listen on `urls`, with TLS for https URLs. Raises StartError."""
    tls = server_context(files, alpn=("h2", "http/1.1")) if files is not None and files.given else None
    for url in urls:
        host, port = host_port(url)
        if url.startswith("https") and tls is None:
            raise StartError(f"{url} needs TLS; give --cert-file and --key-file")
        try:
            await front.listen(host, port, tls if url.startswith("https") else None)
        except AddressInUse as error:
            raise StartError(str(error)) from error


def front_for_probes(pages: Pages) -> Http2Front:
    """The front for probes and metrics. It uses few file descriptors, and a new connection replaces the one idle
    longest, so that open connections cannot lock out a probe: a failing probe would restart the member."""
    return Http2Front({}, pages, max_connections=MAX_PROBES, newest_first=True, keepalive_seconds=PROBE_IDLE_SECONDS)


def share_one_arena() -> None:
    """Let all threads allocate from one arena, and return what is freed in large pieces at once. glibc has an arena for
    each thread, and keeps what was freed: the chunks of a snapshot that a replica has taken, for ever. It costs
    threads that allocate at the same time some waiting, which those of a replica do not notice. Other C libraries do
    not need this."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, LARGE_PIECE_BYTES)
        mallopt(_M_MMAP_THRESHOLD, LARGE_PIECE_BYTES)


def run_until_signal(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `main` on uvloop until SIGTERM or SIGINT sets its event."""
    import uvloop

    os.umask(PRIVATE_UMASK)
    # A thread that finishes an fsync must get the GIL at once, not after 5 ms (measured: docs/decisions/0004).
    sys.setswitchinterval(1e-4)

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    uvloop.run(run())
