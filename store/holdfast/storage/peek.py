"""Reads a state without changing its directory.

Opening a RocksDB directory writes to it, and removes every table that its MANIFEST does not name. If the MANIFEST has
lost its end, that is the newest one, and it would be gone before anybody could see that something is missing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from rocksdict import AccessType, Options, Rdict

from holdfast.kv.store import Family, StateDamaged
from holdfast.storage.damage import REPLACE
from holdfast.storage.state import prefix

T = TypeVar("T")


def peek(place: Path, look: Callable[[Rdict], T]) -> T:
    """What `look` sees in the state at `place`. Raises StateDamaged."""
    with tempfile.TemporaryDirectory() as elsewhere:
        # Of links: also to read, RocksDB and rocksdict write small files into the directory that they are given.
        for file in place.iterdir():
            if file.name == "rocksdict-config.json":
                shutil.copy(file, elsewhere)
            elif not file.name.startswith("LO"):  # LOCK and LOG
                (Path(elsewhere) / file.name).symlink_to(file.absolute())
        try:
            db = Rdict(elsewhere, options=Options(raw_mode=True), access_type=AccessType.read_only())
            try:
                return look(db)
            finally:
                db.close()
        except Exception as error:  # RocksDB's errors have no class of their own
            text = str(error).replace(elsewhere, str(place))
            raise StateDamaged(f"{place}: the state is damaged ({text}); {REPLACE}") from error


class Rows:
    """What `applied` needs of a state that is only looked at."""

    def __init__(self, db: Rdict) -> None:
        self._db = db

    def get(self, family: Family, key: bytes) -> bytes | None:
        row: bytes | None = self._db.get(prefix(family) + key)
        return row

    def scan(self, family: Family, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        raise NotImplementedError
