"""Damage as disks and people do it: a bit flipped, a file cut, a part of it zeroed."""

from __future__ import annotations

from pathlib import Path
from random import Random


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


KINDS = ("missing", "empty", "truncated", "zeroed", "part zeroed", "flipped", "overwritten")


def damage_file(file: Path, kind: str, chance: Random) -> None:
    """One of KINDS, at a place of chance."""
    size = file.stat().st_size
    start = chance.randrange(size) if size else 0
    if kind == "missing":
        file.unlink()
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "truncated":
        with file.open("r+b") as target:
            target.truncate(start)
    elif kind == "zeroed":
        zero(file, 0, size)
    elif kind == "part zeroed":
        zero(file, start, min(size, start + chance.choice((1, 8, 512, 4096))))
    elif kind == "overwritten":
        with file.open("r+b") as target:
            target.seek(start)
            target.write(chance.randbytes(min(chance.choice((1, 16, 512)), size - start)))
    elif size:
        used_ = used(file) or size  # of a segment of the log, most is zeros
        flip(file, chance.randrange(used_), chance.randrange(8))
