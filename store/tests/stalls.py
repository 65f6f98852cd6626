"""Write stalls of a real RocksDB, when a test wants them."""

from __future__ import annotations

from holdfast.storage.state import RocksStore

_USUAL = {"level0_file_num_compaction_trigger": "4", "level0_slowdown_writes_trigger": "20"}
_STOPPED = {"level0_file_num_compaction_trigger": "1000", "level0_slowdown_writes_trigger": "1"}


def stall(store: RocksStore) -> None:
    """From now on the store takes no writes: one table of level 0 is already too many."""
    store.flush()
    store._db.set_options({**_STOPPED, "level0_stop_writes_trigger": "1"})


def unstall(store: RocksStore) -> None:
    store._db.set_options({**_USUAL, "level0_stop_writes_trigger": "36"})
