"""The mark: the position up to which the log is known to be durable, kept in a file outside the log.

Data lost at the end of the log leaves no trace in the log: if the end is cut, zeroed, removed or replaced by an older
copy, it looks as if it had never been written. So after each sync of the log, its end is written to the mark. The mark
itself is synced when the log is idle, about every second while it is busy, and when the process stops. After kill -9
the mark is exact; after a power cut it may lag by that second. It is never ahead of the log, because it is written
after the log's sync.

A replica has no log of its own; its mark says up to which write (RocksDB's sequence number) its state was synced. It is
moved after each sync, so never ahead of the state either.

The file has two slots, 4 KiB apart, written in turn, so that a torn write leaves the other slot intact.

    slot   32 bytes: "HFMARK" and 2 zero bytes, count of writes (8), position (8), CRC-32C of these (4), 4 zero bytes
"""

from __future__ import annotations

import os
from pathlib import Path
from struct import Struct

import google_crc32c

from holdfast.storage.damage import REPLACE, Damaged
from holdfast.storage.files import write_atomically

_MAGIC = b"HFMARK\0\0"
_SLOT = Struct("<8sQQII")
_CHECKED = 24
_APART = 4096
_BYTES = 2 * _APART


class Mark:
    """An opened mark. `position` only grows."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Raises Damaged."""
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY if read_only else os.O_RDWR)
        except FileNotFoundError as error:
            raise Damaged(
                f"{path} is missing: how far the log was durable is not known, so it may have lost its end; {REPLACE}"
            ) from error
        data = os.pread(self._fd, _BYTES, 0)
        slots = [_read(data[at : at + _SLOT.size]) for at in (0, _APART)]
        newest = max((slot for slot in slots if slot is not None), default=None)
        if newest is None:
            os.close(self._fd)
            raise Damaged(
                f"{path} is damaged in both of its places: how far the log was durable is not known; {REPLACE}"
            )
        self._count, self.position = newest
        self.synced = True

    @staticmethod
    def create(path: Path, position: int) -> Mark:
        slots = (_slot(count, position).ljust(_APART, b"\0") for count in (0, 1))
        write_atomically(path, b"".join(slots))
        return Mark(path)

    def move(self, position: int) -> None:
        """Note that the log is durable up to `position`. This survives the end of the process, and after `sync` a power
        cut."""
        self._count += 1
        self.position = position
        self.synced = False
        os.pwrite(self._fd, _slot(self._count, position), self._count % 2 * _APART)

    def sync(self) -> None:
        if not self.synced:
            os.fdatasync(self._fd)
            self.synced = True

    def close(self) -> None:
        self.sync()
        os.close(self._fd)


def _slot(count: int, position: int) -> bytes:
    checked = _SLOT.pack(_MAGIC, count, position, 0, 0)[:_CHECKED]
    return _SLOT.pack(_MAGIC, count, position, google_crc32c.value(checked), 0)


def _read(slot: bytes) -> tuple[int, int] | None:
    if len(slot) != _SLOT.size:
        return None
    _, count, position, _, _ = _SLOT.unpack(slot)
    return (count, position) if slot == _slot(count, position) else None
