"""Builds protobuf fields from parts that are already serialised, without decoding them."""

from __future__ import annotations


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
