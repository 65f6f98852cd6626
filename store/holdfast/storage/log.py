"""The durable log: segments of checksummed frames, one write and one fdatasync a turn.

RocksDB's own write-ahead log cannot serve: it does not tell rot from a torn tail. Format, all numbers little-endian:

    segment file `<first position, 16 hex digits>.log`, zero-filled to its full size when it is made
    header  16 bytes: "HFLOG", format (1 byte), 2 zero bytes, position of its first byte (8)
    frame   16 bytes: payload length (4), CRC-32C of what follows (4), synced_upto (8); then the payload
            (a LogRecord), padded with zeros to a multiple of 8

A position counts bytes over all segments. `synced_upto` says: when this frame was written, everything before that
position was durable. So on opening, a bad frame at p is *corruption* if any later valid frame says synced_upto > p,
and we refuse to start; otherwise it is a torn tail, which is cut. (Rot in the very last frame looks like a tear.)
The first frame of a segment holds the hard state, so that older segments can go as soon as the state has them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import google_crc32c

from holdfast.member.codec import decode_entries, encode_entry
from holdfast.proto import raft_pb2
from holdfast.raft.log import Entry
from holdfast.raft.types import DurableAppend, HardState
from holdfast.storage.damage import REPLACE, Damaged
from holdfast.storage.files import sync_directory

FORMAT = 1
SEGMENT_BYTES = 16 << 20
MAX_FRAME_BYTES = 64 << 20
SPLIT_BYTES = 8 << 20
ZEROS_BYTES = 1 << 20

_MAGIC = b"HFLOG" + bytes([FORMAT]) + b"\0\0"
_HEADER = Struct("<8sQ")
_FRAME = Struct("<IIQ")
_SYNCED = Struct("<Q")


class LogCorrupt(Damaged):
    """The log was damaged after it was durable. Its message names the file, the offset and what is known to be lost."""


class _Frame(NamedTuple):
    offset: int
    end: int  # offset of what follows, aligned
    synced_upto: int
    payload: bytes


class _Segment:
    __slots__ = ("fd", "last_index", "path", "size", "start")

    def __init__(self, path: Path, start: int, size: int, fd: int = -1) -> None:
        self.path = path
        self.start = start  # position of its first byte
        self.size = size
        self.fd = fd
        self.last_index = 0  # newest entry index in it


class DurableLog:
    """Appends records and finds them again. Used by one thread at a time; the writer thread in production."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = directory
        self.segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._end = 0  # position where the next frame goes
        self._synced = 0
        self._hard_state = HardState()
        self._spare = directory / "spare"  # the next segment, being filled with zeros ahead of its time
        self._spare_size = 0
        directory.mkdir(parents=True, exist_ok=True)

    # ---- opening -------------------------------------------------------------------------------------------

    def replay(self) -> Iterator[DurableAppend]:
        """Every record that survived, in order; afterwards the log is ready for `append`. Cuts a torn tail.

        Raises LogCorrupt if something that was durable is damaged.
        """
        paths = sorted(self.directory.glob("*.log"))
        cut = False
        for number, path in enumerate(paths):
            data = path.read_bytes()
            if len(data) < _HEADER.size or data[:8] != _MAGIC:
                if number == len(paths) - 1 and not data.strip(b"\0"):
                    path.unlink()  # a crash while it was being made
                    break
                raise LogCorrupt(f"{path}: not a segment of log format {FORMAT} (its header is {data[:8]!r})")
            start = _HEADER.unpack_from(data)[1]
            segment = _Segment(path, start, len(data))
            if cut:
                path.unlink()
                continue
            if self._segments and start != self._segments[-1].start + self._segments[-1].size:
                raise LogCorrupt(f"{path}: begins at position {start}; a segment before it is missing")
            self._segments.append(segment)
            end = _HEADER.size
            for frame in _frames(data):
                record = self._decode(path, frame)
                if record.entries:
                    segment.last_index = record.entries[-1].index
                end = frame.end
                yield record
            self._end = start + end
            if data[end:].strip(b"\0"):
                self._check_torn(path, data, end, start, paths[number + 1 :])
                self._zero(path, end, len(data))
                cut = True
        if cut:
            sync_directory(self.directory)
        if not self._segments:
            self._new_segment(0)
        else:
            last = self._segments[-1]
            last.fd = os.open(last.path, os.O_RDWR)
        self._synced = self._end

    def _decode(self, path: Path, frame: _Frame) -> DurableAppend:
        wire = raft_pb2.LogRecord.FromString(frame.payload)
        hard = None
        if wire.HasField("hard_state"):
            hard = HardState(wire.hard_state.term, wire.hard_state.vote, wire.hard_state.commit)
            self._hard_state = hard
        base = (wire.base.index, wire.base.term) if wire.HasField("base") else None
        return DurableAppend(0, hard, wire.truncate_from, tuple(decode_entries(wire.entries)), base)

    def _check_torn(self, path: Path, data: bytes, bad: int, start: int, later: list[Path]) -> None:
        """Refuse unless the damage at `bad` can be a write that never was durable."""
        position = start + bad
        for frame in _search(data, bad + 8):
            self._refuse_if_synced(path, bad, position, frame, path)
        for other in later:
            for frame in _search(other.read_bytes(), _HEADER.size):
                self._refuse_if_synced(path, bad, position, frame, other)

    @staticmethod
    def _refuse_if_synced(path: Path, bad: int, position: int, frame: _Frame, where: Path) -> None:
        if frame.synced_upto <= position:
            return
        wire = raft_pb2.LogRecord.FromString(frame.payload)
        known = f"; the next readable record begins with entry {wire.entries[0].index}" if wire.entries else ""
        raise LogCorrupt(
            f"{path}: damaged at offset {bad}, and it was durable (a record at {where.name}:{frame.offset} says so)"
            f"{known}; {REPLACE}"
        )

    @staticmethod
    def _zero(path: Path, start: int, end: int) -> None:
        with path.open("r+b") as file:
            file.seek(start)
            file.write(bytes(end - start))
            file.flush()
            os.fsync(file.fileno())

    # ---- writing -------------------------------------------------------------------------------------------

    def append(self, records: list[DurableAppend]) -> None:
        """Write `records` and return when they are durable. An error leaves the log unusable: stop, never retry."""
        buffer = bytearray()
        segment = self._segments[-1]
        for record in itertools.chain.from_iterable(map(_split, records)):
            payload = _encode(record)
            if record.hard_state is not None:
                self._hard_state = record.hard_state
            frame = _frame(payload, self._synced)
            if self._end + len(buffer) + len(frame) > segment.start + segment.size:
                self._write(segment, buffer)
                buffer.clear()
                segment = self._new_segment(len(frame))
            buffer += frame
            if record.entries:
                segment.last_index = record.entries[-1].index
        self._write(segment, buffer)
        os.fdatasync(segment.fd)
        self._synced = self._end

    def _write(self, segment: _Segment, buffer: bytearray) -> None:
        view = memoryview(bytes(buffer))
        while view:
            written = os.pwrite(segment.fd, view, self._end - segment.start)
            view = view[written:]
            self._end += written

    def _new_segment(self, needed: int) -> _Segment:
        """Start a segment; the one before is made durable first, so that positions before it are."""
        start = 0
        if self._segments:
            old = self._segments[-1]
            os.fdatasync(old.fd)
            os.close(old.fd)
            old.fd = -1
            start = old.start + old.size
        hard = _frame(_encode(DurableAppend(0, self._hard_state, 0, ())), start)
        size = max(self.segment_bytes, _HEADER.size + len(hard) + needed)
        if self._spare_size == 0:
            self._spare.unlink(missing_ok=True)  # of an earlier run: what is in it is not known
        while self._spare_size < size:
            self.prepare(size)
        size = self._spare_size
        path = self.directory / f"{start:016x}.log"
        fd = os.open(self._spare, os.O_RDWR)
        os.pwrite(fd, _HEADER.pack(_MAGIC, start) + hard, 0)
        os.fsync(fd)
        os.rename(self._spare, path)
        sync_directory(self.directory)
        self._spare_size = 0
        segment = _Segment(path, start, size, fd)
        self._segments.append(segment)
        self._end = self._synced = start + _HEADER.size + len(hard)
        return segment

    @property
    def prepared(self) -> bool:
        """Whether the next segment is there already, so that a full disk cannot harm what is being written."""
        return self._spare_size >= self.segment_bytes

    def prepare(self, size: int = 0) -> None:
        """Make one more step towards the next segment. Raises OSError (ENOSPC, EDQUOT) if there is no room; then
        nothing is lost, and it can be tried again."""
        if self._spare_size == 0:
            self._spare.unlink(missing_ok=True)
        goal = max(size, self.segment_bytes)
        zeros = bytes(min(ZEROS_BYTES, goal - self._spare_size))
        # Written, not only reserved: fdatasync of a reserved block has to write metadata, too.
        fd = os.open(self._spare, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            written = os.pwrite(fd, zeros, self._spare_size)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        self._spare_size += written

    def room(self) -> int:
        """Bytes that this process may still write on the disk of the log."""
        stat = os.statvfs(self.directory)
        return stat.f_bavail * stat.f_frsize

    def forget(self, index: int) -> None:
        """Remove the segments that hold only entries up to `index`, which the state has durably."""
        removed = False
        while len(self._segments) > 1 and self._segments[0].last_index <= index:
            self._segments.pop(0).path.unlink()
            removed = True
        if removed:
            sync_directory(self.directory)

    def close(self) -> None:
        if self._segments and self._segments[-1].fd >= 0:
            os.close(self._segments[-1].fd)
            self._segments[-1].fd = -1


def _split(record: DurableAppend) -> Iterator[DurableAppend]:
    """`record` in frames of bounded size. A crash that keeps only the first of them keeps a shorter log, as if the rest
    had been written later; nothing is acknowledged before all are durable."""
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


def _encode(record: DurableAppend) -> bytes:
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


def _frame(payload: bytes, synced_upto: int) -> bytes:
    assert len(payload) <= MAX_FRAME_BYTES, f"a record of {len(payload)} bytes"
    checked = _SYNCED.pack(synced_upto) + payload
    head = _FRAME.pack(len(payload), google_crc32c.value(checked), synced_upto)
    return head + payload + bytes(-len(payload) % 8)


def _read_frame(data: bytes, offset: int) -> _Frame | None:
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
    return _Frame(offset, end + (-length % 8), synced_upto, data[offset + _FRAME.size : end])


def _frames(data: bytes) -> Iterator[_Frame]:
    offset = _HEADER.size
    while (frame := _read_frame(data, offset)) is not None:
        yield frame
        offset = frame.end


def _search(data: bytes, offset: int) -> Iterator[_Frame]:
    """Valid frames anywhere after `offset`; they are aligned to 8 bytes."""
    offset += -offset % 8
    while offset + _FRAME.size <= len(data):
        frame = _read_frame(data, offset)
        if frame is not None:
            yield frame
            offset = frame.end
        else:
            offset += 8
