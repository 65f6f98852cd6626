"""A state that cannot be written any more, for another reason than a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from holdfast.kv.store import Family
from holdfast.storage.state import RocksStore, StateUnreadable


def test_a_flush_that_the_disk_refuses_says_what_to_do(tmp_path: Path) -> None:
    place = tmp_path / "state"
    store = RocksStore(place)
    store.apply([(Family.CUR, b"k", b"v")])
    newest = max(int(file.stem) for file in place.iterdir() if file.stem.isdigit())
    for number in range(newest, newest + 40):  # directories in the way of the next table
        (place / f"{number:06d}.sst").mkdir(exist_ok=True)
    with pytest.raises(StateUnreadable, match=r"cannot be written .* start this member again"):
        store.flush()
    assert store.get(Family.CUR, b"k") == b"v"
    store.close()  # does not raise: what is not flushed is in the log
