"""Damage as disks and people do it: a bit flipped, a file cut, a part of it zeroed."""

from __future__ import annotations

from pathlib import Path


def flip(file: Path, offset: int, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1 << bit
    file.write_bytes(data)


def zero(file: Path, start: int, end: int) -> None:
    with file.open("r+b") as target:
        target.seek(start)
        target.write(bytes(end - start))


def used(file: Path) -> int:
    """Where the zeros at its end begin."""
    return len(file.read_bytes().rstrip(b"\0"))


def largest_table(state: Path) -> Path:
    """The largest table of a RocksDB directory, or of the one below."""
    return max(state.rglob("*.sst"), key=lambda file: file.stat().st_size)
