"""How much history a replica keeps: so many bytes of its own changes.

The revisions of the cluster are no measure: others write them, and a quiet prefix would lose its history because
another one is busy.
"""

from __future__ import annotations

from collections import deque

KEPT_BYTES = 64 << 20
PARTS = 16  # history is forgotten in parts of this share
CHANGE_BYTES = 100  # that a change takes besides its key and value


class History:
    """Which part of the history to forget. `bytes` and `upto` describe what is kept at the start."""

    def __init__(self, bytes: int = 0, upto: int = 0, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._parts: deque[tuple[int, int]] = deque()  # (last revision, bytes), the oldest first
        self.bytes = 0  # kept
        if bytes:
            self.add(upto, bytes)

    def add(self, revision: int, size: int) -> None:
        """A revision with `size` bytes of changes was applied."""
        self.bytes += size
        if self._parts and self._parts[-1][1] < self._most // PARTS:
            size += self._parts.pop()[1]
        self._parts.append((revision, size))

    def forget(self) -> int:
        """Forget what is too much. Returns the revision before which nothing is kept; 0: nothing was forgotten."""
        floor = 0
        while self.bytes > self._most and len(self._parts) > 1:
            floor, size = self._parts.popleft()
            self.bytes -= size
        return floor
