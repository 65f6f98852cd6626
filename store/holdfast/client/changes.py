"""What has changed in a cache since the last time, and how far that is handled."""

from __future__ import annotations

import math
from typing import Protocol

from holdfast.client.values import Event


class Followed(Protocol):
    """A cache."""

    @property
    def known_at(self) -> float: ...

    async def moved(self) -> None: ...


class Changes:
    """Yields what has changed since the last time: of each key the newest change, in the order of revisions."""

    def __init__(self, cache: Followed) -> None:
        self._cache = cache
        self._pending: dict[bytes, Event] = {}
        # What had been acknowledged by these times had arrived before what is pending now, or was yielded last.
        self._pending_after = self._yielded_after = math.inf

    @property
    def handled_to(self) -> float:
        """Every change that was acknowledged before this time (of `now`) is handled. What was yielded is handled once
        the next changes are asked for."""
        return min(self._pending_after, self._yielded_after, self._cache.known_at)

    def tell(self, events: list[Event]) -> None:
        if events and not self._pending:
            self._pending_after = self._cache.known_at
        self._pending.update((event.kv.key, event) for event in events)

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> list[Event]:
        self._yielded_after = math.inf
        while not self._pending:
            await self._cache.moved()
        found = sorted(self._pending.values(), key=lambda event: event.kv.mod_revision)
        self._pending.clear()
        self._yielded_after, self._pending_after = self._pending_after, math.inf
        return found
