"""What a connection has been sent and has not read. Whoever makes large answers asks here before it makes the next one.

An answer is made as soon as its rows are read, and kept until the client reads it. A client that asks for a thousand
large answers, and reads none, would otherwise have all of them made.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable


class Outbox:
    """One connection's. Its front says whether it is full."""

    __slots__ = ("_following", "_waiting", "full")

    def __init__(self) -> None:
        self.full = False
        self._waiting: dict[Hashable, Callable[[], None]] = {}
        self._following: dict[Hashable, Callable[[], None]] = {}

    def when_room(self, who: Hashable, call: Callable[[], None]) -> None:
        """Call this once when it is not full any more; one such wish of each."""
        self._waiting[who] = call

    def follow(self, who: Hashable, changed: Callable[[], None]) -> None:
        """Call this whenever it is full, or not full any more."""
        self._following[who] = changed

    def forget(self, who: Hashable) -> None:
        self._following.pop(who, None)

    def set(self, full: bool) -> None:
        self.full = full
        for changed in self._following.values():
            changed()
        if not full:
            waiting, self._waiting = self._waiting, {}
            for call in waiting.values():
                call()
