"""Builds responses from the serialised bytes in the store, without decoding and encoding them again."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.kv.fields import delimited, varint
from holdfast.kv.rows import DELETE, Change


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
