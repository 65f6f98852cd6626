"""Resolves the names of endpoints to addresses, each of which gets a channel of its own.

The newest addresses are kept on disk: a disconnected node has no DNS, but can reach its replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import time
from pathlib import Path

RESOLVE_SECONDS = 3.0
RETRY_SECONDS = 2.0  # after a name could not be resolved
UNKNOWN_SECONDS = 0.5  # the same, if no address of it is known
RESOLVED_SECONDS = 30.0  # after which a name is resolved again in the background, give or take a quarter


class Addresses:
    """The addresses of `endpoints` (HOST:PORT): HOST:PORT again, with an IP address as the host."""

    def __init__(self, endpoints: list[str], cache_dir: Path | None) -> None:
        self._endpoints = endpoints
        self._file = cache_dir / "addresses.json" if cache_dir else None
        self._known: dict[str, list[str]] = {}
        self._due: dict[str, float] = {}
        self._resolving: dict[str, asyncio.Task[list[str]]] = {}
        self._answers = 0  # of name servers, so far
        self._all: dict[str, str] = {}
        self._all_until = -math.inf  # until then `_all` holds
        if self._file is not None and self._file.exists():
            with contextlib.suppress(ValueError, OSError):  # an unreadable cache is ignored
                self._known = json.loads(self._file.read_text())

    def stale(self, endpoint: str) -> None:
        """An address of this endpoint failed: resolve the name again, in the background."""
        if _host(endpoint) in self._due:
            self._due[_host(endpoint)] = self._all_until = -math.inf

    async def of(self, endpoint: str) -> list[str]:
        """The addresses of one endpoint; the last known ones if its name cannot be resolved now."""
        host = _host(endpoint)
        due = self._due.get(host)
        if due is None:
            await asyncio.shield(self._resolve(host))
        elif time.monotonic() > due:
            self._resolve(host)  # the known ones do for now
        port = endpoint.rpartition(":")[2]
        return [f"[{a}]:{port}" if ":" in a else f"{a}:{port}" for a in self._known.get(host, [])]

    async def all(self) -> dict[str, str]:
        """All addresses, and the endpoint of each. Several endpoints may have one address."""
        if time.monotonic() < self._all_until:
            return self._all
        found: dict[str, str] = {}
        answers = self._answers
        for endpoint, addresses in zip(
            self._endpoints, await asyncio.gather(*(self.of(e) for e in self._endpoints)), strict=True
        ):
            for address in addresses:
                found.setdefault(address, endpoint)
        dues = [self._due.get(_host(endpoint), -math.inf) for endpoint in self._endpoints]
        self._all, self._all_until = found, min(dues) if answers == self._answers else -math.inf
        return found

    def _resolve(self, host: str) -> asyncio.Task[list[str]]:
        task = self._resolving.get(host)
        if task is None:
            task = self._resolving[host] = asyncio.ensure_future(self._ask(host))
            task.add_done_callback(lambda _: self._resolving.pop(host, None))
        return task

    async def _ask(self, host: str) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await loop.getaddrinfo(host, None, type=1)
        except (OSError, TimeoutError):
            # Not at the next call: a name server that does not answer must not delay calls to other endpoints.
            known = self._known.get(host, [])
            self._due[host] = time.monotonic() + (RETRY_SECONDS if known else UNKNOWN_SECONDS)
            return known
        addresses = sorted({str(entry[4][0]) for entry in found})
        self._answers += 1
        self._all_until = -math.inf
        self._due[host] = time.monotonic() + RESOLVED_SECONDS * random.uniform(0.75, 1.25)
        if self._known.get(host) != addresses:
            self._known[host] = addresses
            if self._file is not None:
                with contextlib.suppress(OSError):  # it is only for a start without DNS
                    await loop.run_in_executor(None, self._store)
        return addresses

    def _store(self) -> None:
        assert self._file is not None
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(self._known))
        fresh.replace(self._file)

    def close(self) -> None:
        for task in self._resolving.values():
            task.cancel()


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0].strip("[]")
