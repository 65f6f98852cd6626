"""Answers put together from the bytes that the store keeps, without decoding what is only passed on."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.kv.rows import DELETE, Change


def varint(value: int) -> bytes:
    """A protobuf varint of a number that is not negative."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(tag: bytes, body: bytes) -> bytes:
    return tag + varint(len(body)) + body


def range_response(header: bytes, kvs: Iterable[bytes], more: bool, count: int) -> bytes:
    """A RangeResponse of serialised KeyValues."""
    parts = [b"\x0a", varint(len(header)), header]
    for kv in kvs:
        parts += (b"\x12", varint(len(kv)), kv)
    if more:
        parts.append(b"\x18\x01")
    if count:
        parts += (b"\x20", varint(count))
    return b"".join(parts)


def event(change: Change, prev_kv: bool) -> bytes:
    """A serialised mvccpb.Event."""
    parts = [b"\x08\x01"] if change.type == DELETE else []
    parts.append(delimited(b"\x12", change.kv))
    if prev_kv and change.previous is not None:
        parts.append(delimited(b"\x1a", change.previous))
    return b"".join(parts)
