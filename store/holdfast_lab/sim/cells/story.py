"""What happened in a run: its end, for people, and a hash of all of it."""

from __future__ import annotations

import hashlib
from collections import deque


class Story:
    """`now`: nanoseconds since the beginning. `keep`: lines; 0: all."""

    def __init__(self, keep: int) -> None:
        self.now = 0
        self.tail: deque[str] = deque(maxlen=keep or None)
        self._hash = hashlib.sha256()

    def note(self, what: str, seconds: float | None = None) -> None:
        """`seconds`: since the beginning; None: as for the line before."""
        if seconds is not None:
            self.now = int(seconds * 1e9)
        line = f"{self.now / 1e9:10.6f} {what}"
        self.tail.append(line)
        self._hash.update(line.encode())

    def trace(self) -> str:
        return self._hash.hexdigest()[:16]
