"""Ranges of keys as half-open intervals, and their representation in etcd as a key and a range_end."""

from __future__ import annotations

Range = tuple[bytes, bytes | None]  # [start, end); None = no end


def bounds(key: bytes, range_end: bytes) -> Range:
    """The range given by `key` and `range_end`. An empty range_end means the single key."""
    if not range_end:
        return key, key + b"\x00"
    if range_end == b"\x00":
        return key, None
    return key, range_end


def prefix_end(prefix: bytes) -> bytes:
    """The range_end for the range of all keys that begin with `prefix`."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\x00"


def within(key: bytes, start: bytes, end: bytes | None) -> bool:
    return key >= start and (end is None or key < end)
