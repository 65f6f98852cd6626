"""Notices that the disk takes no writes although it reports no error: a hung device, or a network volume that is gone.

Everything else of such a leader works: it sends heartbeats, and the others commit without it. But it applies only what
is durable here, so reads, renewals and writes of its own clients wait, and no other member takes over by itself.
"""

from __future__ import annotations


class StallWatch:
    """Judges from the numbers of submitted and durable writes whether the disk has stalled. Times are in seconds."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long no write may become durable while one is waiting."""
        self._seconds = seconds
        self._durable = 0
        self._since: float | None = None  # since when writes wait and none has become durable
        self.stalled = False

    def look(self, submitted: int, durable: int, now: float) -> bool:
        """Returns whether writes are waiting, so that this has to be looked at again."""
        waiting = durable < submitted
        if not waiting:
            self._since = None
        elif self._since is None or durable != self._durable:
            self._since = now
        self._durable = durable
        self.stalled = self._since is not None and now - self._since >= self._seconds
        return waiting
