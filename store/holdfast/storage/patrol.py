"""Reads all of the state again and again, slowly, so that rot is found while others still have what it took.

A block is checked against its sum only when it is read, and most of the past is read by nobody. All of it is read
within a week; a slice is small, so that neither the disk nor the loop notices.
"""

from __future__ import annotations

from holdfast.storage.state import RocksStore

SLICE_SECONDS = 5.0
ROUND_SECONDS = 7 * 24 * 3600.0
MIN_SLICE_BYTES = 64 << 10


class Patrol:
    """Of one store. What it finds goes the way of every other read: `RocksStore.on_damage`."""

    def __init__(self, store: RocksStore) -> None:
        self.store = store
        self.read_bytes = 0
        self.rounds = 0
        self._at = b""

    def step(self) -> None:
        """Read one slice. Belongs in a thread, every SLICE_SECONDS. Raises StateDamaged."""
        share = int(self.store.size()[0] * SLICE_SECONDS / ROUND_SECONDS)
        following, size = self.store.read_on(self._at, max(MIN_SLICE_BYTES, share))
        self.read_bytes += size
        if following is None:
            self.rounds += 1
        self._at = following or b""
