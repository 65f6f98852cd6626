"""The whole state is read, slice by slice, and rot in rows that no client reads is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from holdfast.kv.store import Family, StateDamaged
from holdfast.storage.patrol import MIN_SLICE_BYTES, Patrol
from holdfast.storage.state import RocksStore

from .rot import flip, largest_table

ROWS, SIZE = 2000, 1000


def filled(path: Path) -> RocksStore:
    store = RocksStore(path)
    store.apply([(Family.REV, b"%06d" % n, os.urandom(SIZE)) for n in range(ROWS)])
    store.flush()
    return store


def test_a_round_reads_everything_in_slices(tmp_path: Path) -> None:
    store = filled(tmp_path)
    patrol = Patrol(store)
    steps = 0
    while not patrol.rounds:
        before = patrol.read_bytes
        patrol.step()
        assert patrol.read_bytes - before < MIN_SLICE_BYTES + 2 * SIZE
        steps += 1
    assert ROWS * SIZE <= patrol.read_bytes < ROWS * (SIZE + 20)
    assert steps >= ROWS * SIZE // MIN_SLICE_BYTES
    patrol.step()
    assert patrol.rounds == 1
    store.close()


def test_rot_that_nobody_reads_is_found(tmp_path: Path) -> None:
    filled(tmp_path).close()
    table = largest_table(tmp_path)
    flip(table, table.stat().st_size * 2 // 3)
    store = RocksStore(tmp_path)
    told: list[StateDamaged] = []
    store.on_damage = told.append
    patrol = Patrol(store)

    def round_() -> None:
        while not patrol.rounds:
            patrol.step()

    with pytest.raises(StateDamaged, match=table.name):
        round_()
    assert told
    store.close()


def test_reading_it_leaves_the_cache_to_others(tmp_path: Path) -> None:
    filled(tmp_path).close()
    store = RocksStore(tmp_path)
    before = store.memory().block_cache
    store.verify()
    assert store.memory().block_cache == before
    store.close()
