"""Each proposal is applied once, however often it reaches the log.

A proposal is named by (origin member, its incarnation, sequence number). An origin proposes again when it cannot know
whether its proposal survived a change of leader. `low` is the first number that it still waits for: numbers below are
forgotten, and refused if they arrive late.
"""

from __future__ import annotations

from struct import Struct

_HEAD = Struct(">QQ")


class _Window:
    __slots__ = ("incarnation", "low", "seen")

    def __init__(self, incarnation: int, low: int, seen: set[int]) -> None:
        self.incarnation = incarnation
        self.low = low
        self.seen = seen


class ProposalDedup:
    """The applied numbers of each origin, from its `low` on. Part of the state and of every snapshot."""

    def __init__(self) -> None:
        self._windows: dict[int, _Window] = {}
        self._changed: set[int] = set()

    def admit(self, origin: int, incarnation: int, seq: int, low: int) -> bool:
        """Record this proposal as applied. False: do not apply it; it was applied before, or its origin gave it up."""
        window = self._windows.get(origin)
        if window is None or incarnation > window.incarnation:
            window = self._windows[origin] = _Window(incarnation, low, set())
        elif incarnation < window.incarnation:
            return False
        if low > window.low:
            window.low = low
            window.seen = {n for n in window.seen if n >= low}
            self._changed.add(origin)
        if seq < window.low or seq in window.seen:
            return False
        window.seen.add(seq)
        self._changed.add(origin)
        return True

    def applied(self, origin: int, incarnation: int, seq: int) -> bool:
        """Whether this proposal has been applied (or is too old to be)."""
        window = self._windows.get(origin)
        if window is None or incarnation != window.incarnation:
            return window is not None and incarnation < window.incarnation
        return seq < window.low or seq in window.seen

    def newest(self, origin: int) -> int:
        """The newest incarnation of `origin` of which a proposal was applied; 0 if there is none."""
        window = self._windows.get(origin)
        return window.incarnation if window is not None else 0

    def take_changed(self) -> list[tuple[int, bytes]]:
        """Rows of the origins that changed since the last call, in a fixed order."""
        changed = [(origin, self._row(self._windows[origin])) for origin in sorted(self._changed)]
        self._changed.clear()
        return changed

    @staticmethod
    def _row(window: _Window) -> bytes:
        return _HEAD.pack(window.incarnation, window.low) + b"".join(
            seq.to_bytes(8, "big") for seq in sorted(window.seen)
        )

    def load(self, origin: int, row: bytes) -> None:
        incarnation, low = _HEAD.unpack_from(row)
        seen = {int.from_bytes(row[i : i + 8], "big") for i in range(_HEAD.size, len(row), 8)}
        self._windows[origin] = _Window(incarnation, low, seen)
