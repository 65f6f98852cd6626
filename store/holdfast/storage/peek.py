"""Reads a state without changing its directory.

Opening a RocksDB directory writes to it, and deletes every table that its MANIFEST does not name. If the MANIFEST has
lost its end, that includes the newest table, which would be deleted before the loss could be noticed.
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
    """Call `look` on the state at `place` and return its result. Raises StateDamaged."""
    with tempfile.TemporaryDirectory() as elsewhere:
        # Use a directory of links: RocksDB and rocksdict write small files to their directory even when only reading.
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
        except Exception as error:  # rocksdict raises plain Exception
            text = str(error).replace(elsewhere, str(place))
            raise StateDamaged(f"{place}: the state is damaged ({text}); {REPLACE}") from error


class Rows:
    """The part of a store that `applied` needs, on a read-only state."""

    def __init__(self, db: Rdict) -> None:
        self._db = db

    def get(self, family: Family, key: bytes) -> bytes | None:
        row: bytes | None = self._db.get(prefix(family) + key)
        return row

    def scan(self, family: Family, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        raise NotImplementedError
