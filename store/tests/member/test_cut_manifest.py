"""A state whose MANIFEST has lost its end: what is on the disk is still there after a start that refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from holdfast.kv.store import Family
from holdfast.member.disk import make_log, make_state, open_disk
from holdfast.storage.log import LogCorrupt


def test_a_start_that_refuses_removes_no_table(tmp_path: Path) -> None:
    """RocksDB removed the newest table, which a cut MANIFEST did not name, before the log was found to begin later."""
    store, states = make_state(tmp_path)
    for index in (5, 10):
        store.apply([(Family.META, b"applied", index.to_bytes(8, "big") + (1).to_bytes(8, "big"))])
        store.flush()
    store.close()
    states.use(store.path)
    make_log(tmp_path, (10, 1), 1)
    (manifest,) = store.path.glob("MANIFEST-*")
    os.truncate(manifest, manifest.stat().st_size - 60)
    tables = sorted(store.path.glob("*.sst"))
    with pytest.raises(LogCorrupt, match=r"the log begins after entry 10, but the state in .* ends at 5"):
        open_disk(tmp_path)
    assert sorted(store.path.glob("*.sst")) == tables
