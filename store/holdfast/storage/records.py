"""The format of a segment of the log: a header, then records in frames with checksums.

All numbers are little-endian.

    segment file `<first position, 16 hex digits>.log`, zero-filled to its full size when it is created
    header  40 bytes: "HFLOG", format 2 (1 byte), 2 zero bytes, position of the first byte (8), size of the file (8),
            position where the frames of the previous segment end (8), CRC-32C of these (4), 4 zero bytes
            (format 1: 16 bytes, only up to the position of the first byte)
    frame   16 bytes: payload length (4), CRC-32C of what follows (4), synced_upto (8); then the payload
            (a LogRecord), padded with zeros to a multiple of 8

A position counts bytes over all segments. `synced_upto`: everything before this position was durable when the frame was
written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from struct import Struct
from typing import NamedTuple

import google_crc32c

from holdfast.member.codec import decode_entries, encode_entry
from holdfast.proto import raft_pb2
from holdfast.raft.invariant import invariant
from holdfast.raft.log import Entry
from holdfast.raft.types import DurableAppend, HardState

FORMAT = 2
MAX_FRAME_BYTES = 80 << 20  # more than any message between members, so every received entry fits
SPLIT_BYTES = 8 << 20

_MAGIC = b"HFLOG"
_FIRST = Struct("<5sBxxQ")
_HEADER = Struct("<5sBxxQQQII")
_CHECKED = 32  # bytes of the header that its checksum covers
_FRAME = Struct("<IIQ")
_SYNCED = Struct("<Q")


class Header(NamedTuple):
    format: int
    start: int  # position of the segment's first byte
    size: int = 0  # of the file; not in format 1
    before: int = 0  # position where the frames of the previous segment end; not in format 1

    @property
    def bytes(self) -> int:
        return _HEADER.size if self.format == FORMAT else _FIRST.size


HEADER_BYTES = _HEADER.size


class Frame(NamedTuple):
    offset: int
    end: int  # offset of the next frame, aligned
    synced_upto: int
    payload: bytes


def pack_header(start: int, size: int, before: int) -> bytes:
    checked = _HEADER.pack(_MAGIC, FORMAT, start, size, before, 0, 0)[:_CHECKED]
    return _HEADER.pack(_MAGIC, FORMAT, start, size, before, google_crc32c.value(checked), 0)


def unpack_header(data: bytes) -> Header | None:
    """The header that `data` begins with; None if it is not valid."""
    if len(data) < _FIRST.size:
        return None
    magic, form, start = _FIRST.unpack_from(data)
    if magic == _MAGIC and form == 1:
        return Header(1, start)
    if magic != _MAGIC or len(data) < _HEADER.size:
        return None
    _, _, start, size, before, _, _ = _HEADER.unpack_from(data)
    return Header(FORMAT, start, size, before) if data[: _HEADER.size] == pack_header(start, size, before) else None


def split(record: DurableAppend) -> Iterator[DurableAppend]:
    """Split `record` for frames of bounded size. If a crash keeps only the first parts, the log is shorter, as if the
    rest had been written later. Nothing is acknowledged before all parts are durable."""
    entries: list[Entry] = []
    size = 0
    for entry in record.entries:
        if entries and size + len(entry.data) > SPLIT_BYTES:
            yield replace(record, entries=tuple(entries))
            record = DurableAppend(record.seq, None, 0, ())
            entries, size = [], 0
        entries.append(entry)
        size += len(entry.data)
    yield replace(record, entries=tuple(entries))


def encode(record: DurableAppend) -> bytes:
    wire = raft_pb2.LogRecord(truncate_from=record.truncate_from)
    if record.hard_state is not None:
        hard = record.hard_state
        wire.hard_state.CopyFrom(raft_pb2.HardState(term=hard.term, vote=hard.vote, commit=hard.commit))
        wire.hard_state.SetInParent()
    if record.base is not None:
        wire.base.index, wire.base.term = record.base
        wire.base.SetInParent()
    wire.entries.extend(encode_entry(e) for e in record.entries)
    return wire.SerializeToString()


def decode(payload: bytes) -> DurableAppend:
    wire = raft_pb2.LogRecord.FromString(payload)
    hard = None
    if wire.HasField("hard_state"):
        hard = HardState(wire.hard_state.term, wire.hard_state.vote, wire.hard_state.commit)
    base = (wire.base.index, wire.base.term) if wire.HasField("base") else None
    return DurableAppend(0, hard, wire.truncate_from, tuple(decode_entries(wire.entries)), base)


def frame(payload: bytes, synced_upto: int) -> bytes:
    invariant(len(payload) <= MAX_FRAME_BYTES, f"a record of {len(payload)} bytes is more than may arrive")
    checked = _SYNCED.pack(synced_upto) + payload
    head = _FRAME.pack(len(payload), google_crc32c.value(checked), synced_upto)
    return head + payload + bytes(-len(payload) % 8)


def _read_frame(data: bytes, offset: int) -> Frame | None:
    """The frame at `offset`, or None if there is no valid one. An empty payload is never written."""
    if offset + _FRAME.size > len(data):
        return None
    length, crc, synced_upto = _FRAME.unpack_from(data, offset)
    if not 0 < length <= MAX_FRAME_BYTES or offset + _FRAME.size + length > len(data):
        return None
    checked = data[offset + 8 : offset + _FRAME.size + length]
    if google_crc32c.value(checked) != crc:
        return None
    end = offset + _FRAME.size + length
    return Frame(offset, end + (-length % 8), synced_upto, data[offset + _FRAME.size : end])


def frames(data: bytes, offset: int) -> Iterator[Frame]:
    """The valid frames from `offset` on, up to the first invalid one."""
    while (found := _read_frame(data, offset)) is not None:
        yield found
        offset = found.end


def search(data: bytes, offset: int) -> Iterator[Frame]:
    """Valid frames anywhere after `offset`. Frames are aligned to 8 bytes, and none begins in the zeros at the end."""
    offset += -offset % 8
    used = len(data.rstrip(b"\0"))
    while offset < used:
        found = _read_frame(data, offset)
        if found is not None:
            yield found
            offset = found.end
        else:
            offset += 8
