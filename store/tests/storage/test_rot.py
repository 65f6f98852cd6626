"""Rot in the state is an error wherever it is read, never a shorter answer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from holdfast.kv.store import Family, StateDamaged
from holdfast.storage.state import RocksStore

from .rot import flip, largest_table

ROWS = 4000


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "db"
    store = RocksStore(path)
    for family in (Family.CUR, Family.META):
        store.apply([(family, b"%06d" % n, os.urandom(100)) for n in range(ROWS)])
    store.flush()
    store.close()
    return path


@pytest.fixture
def db(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "db"))


@pytest.mark.parametrize("tenths", range(1, 10))
def test_a_flipped_bit_ends_a_scan_with_an_error(db: Path, tenths: int) -> None:
    table = largest_table(db)
    flip(table, table.stat().st_size * tenths // 10)
    store = RocksStore(db)
    told: list[StateDamaged] = []
    store.on_damage = told.append
    seen: list[bytes] = []

    def read() -> None:
        for family in Family:
            seen.extend(key for key, _ in store.scan(family, b"", None))

    with pytest.raises(StateDamaged, match=f"{table.name}.*remove this member"):
        read()
    assert 0 < len(seen) < 2 * ROWS
    assert len(told) == 1
    store.close()


def test_so_does_a_get_of_what_was_in_it(db: Path) -> None:
    table = largest_table(db)
    flip(table, table.stat().st_size // 4)
    store = RocksStore(db)
    read, damaged = 0, 0
    for n in range(ROWS):
        try:
            assert store.get(Family.CUR, b"%06d" % n) is not None
            read += 1
        except StateDamaged:
            damaged += 1
    assert damaged > 0
    assert read + damaged == ROWS
    store.close()


def test_a_compaction_that_meets_damage_says_so(db: Path) -> None:
    table = largest_table(db)
    flip(table, table.stat().st_size // 2)
    store = RocksStore(db)
    store.apply([(Family.CUR, b"%06d" % n, b"again") for n in range(ROWS)])
    store.flush()
    store.compact()  # RocksDB does not say how it went, and takes no more writes

    def write() -> None:
        store.apply([(Family.CUR, b"x", b"x")])
        store.flush()

    with pytest.raises(StateDamaged, match=table.name):
        write()
    store.close()


@pytest.mark.parametrize("name", ["footer", "table", "MANIFEST", "CURRENT", "everything"])
def test_a_directory_that_lacks_something_is_not_opened(db: Path, name: str) -> None:
    table = largest_table(db)
    if name == "footer":
        flip(table, table.stat().st_size - 20)
    elif name == "table":
        table.unlink()
    elif name == "MANIFEST":
        next(db.glob("MANIFEST-*")).unlink()
    elif name == "CURRENT":
        (db / "CURRENT").unlink()
    else:
        for file in db.iterdir():
            if file.name != "LOG":
                file.unlink()
    with pytest.raises(StateDamaged, match=str(db)):
        RocksStore(db)


def test_a_scan_to_the_end_is_well_whatever_is_there(tmp_path: Path) -> None:
    """Also of a state that an older program made: the row behind all others is put there when it is opened."""
    store = RocksStore(tmp_path / "db")
    assert [list(store.scan(family, b"", None)) for family in Family] == [[], [], [], []]
    store.apply([(Family.META, b"\xff" * 20, b"last")])
    assert list(store.scan(Family.META, b"", None)) == [(b"\xff" * 20, b"last")]
    store.verify()
    store.close()
