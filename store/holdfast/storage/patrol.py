"""The patrol reads the whole state again and again, slowly, to find corruption while other members have the data.

The checksum of a block is verified only when it is read, and most of history is never read. The patrol reads everything
within a week, in slices so small that they burden neither the disk nor the loop.
"""

from __future__ import annotations

from holdfast.storage.state import RocksStore

SLICE_SECONDS = 5.0
ROUND_SECONDS = 7 * 24 * 3600.0
MIN_SLICE_BYTES = 64 << 10


class Patrol:
    """The patrol of one store. Damage is reported as by every other read: through `RocksStore.on_damage`."""

    def __init__(self, store: RocksStore) -> None:
        self.store = store
        self.read_bytes = 0
        self.rounds = 0
        self._at = b""

    def step(self) -> None:
        """Read one slice. Call this in a thread, every SLICE_SECONDS. Raises StateDamaged."""
        share = int(self.store.size()[0] * SLICE_SECONDS / ROUND_SECONDS)
        following, size = self.store.read_on(self._at, max(MIN_SLICE_BYTES, share))
        self.read_bytes += size
        if following is None:
            self.rounds += 1
        self._at = following or b""
