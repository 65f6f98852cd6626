"""The state machine's rows in the META family: their names, and how numbers are encoded in them.

These encodings are on disk and in every snapshot, and members compare them, so they must not change.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from holdfast.kv.store import Family, Reader

APPLIED = b"applied"
CONF = b"conf"
DIGEST = b"digest"
EPOCH = b"epoch"
LINEAGE = b"lineage"  # of a restored cluster: the id of the first one, and the revision of the snapshot
WALL = b"wall"
VERSION = b"version"
MEMBER = b"member/"
REMOVED = b"removed/"
LEASE = b"lease/"
REMAINING = b"left/"
DELAY = b"delay/"
DELAYED = b"delayed/"
PROPOSALS = b"session/"
WALL_AT = b"wall/"
ALARM = b"alarm/"
CACHABLE = b"cachable/"


def applied(store: Reader) -> tuple[int, int]:
    """(index, term) of the last entry applied to a store; (0, 0) for an empty one."""
    row = store.get(Family.META, APPLIED)
    return unpair(row) if row else (0, 0)


def scan(store: Reader, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All rows whose key is `prefix` followed by one or two numbers, in order: (encoded numbers, value)."""
    for key, value in store.scan(Family.META, prefix, prefix + b"\xff" * 17):
        yield key[len(prefix) :], value


def pack(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def number(value: int) -> bytes:
    """8 bytes, big-endian. A negative number (a lease id) is written as the unsigned number of the same 64 bits."""
    return (value & ((1 << 64) - 1)).to_bytes(8, "big")


def unnumber(row: bytes) -> int:
    return int.from_bytes(row, "big")


def signed(row: bytes) -> int:
    return int.from_bytes(row, "big", signed=True)


def pair(a: int, b: int) -> bytes:
    return a.to_bytes(8, "big") + b.to_bytes(8, "big")


def unpair(row: bytes) -> tuple[int, int]:
    return int.from_bytes(row[:8], "big"), int.from_bytes(row[8:], "big")
