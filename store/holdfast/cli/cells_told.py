"""Says what a courier or a replicator does: what it has done, once a second at most, and each other error."""

from __future__ import annotations

import asyncio

from holdfast.cli.cells_reach import one_line
from holdfast.cli.errors import say
from holdfast.client.errors import ClientError

SECONDS = 1.0  # between two lines about what was done


class Told:
    """`name`: what is at work. `done`: what it does, as in "delivered"."""

    def __init__(self, name: str, done: str) -> None:
        self._name = name
        self._done = done
        self._count = 0
        self._error = ""
        self._next: asyncio.TimerHandle | None = None

    def __call__(self, news: int | ClientError) -> None:
        if isinstance(news, ClientError):
            if one_line(news) != self._error:
                self._error = one_line(news)
                say(f"{self._name}: nothing can be {self._done} now: {self._error}")
            return
        self._error = ""
        self._count += news
        if self._next is None:
            self._say()

    def _say(self) -> None:
        self._next = None
        if self._count:
            say(f"{self._name}: {self._count} {self._done}")
            self._count = 0
            self._next = asyncio.get_running_loop().call_later(SECONDS, self._say)

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
        self._say()
