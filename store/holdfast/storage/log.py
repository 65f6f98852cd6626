"""The durable log: segments of checksummed frames, with one write and one fdatasync per batch of records.

RocksDB's own write-ahead log is not suitable: it cannot tell corruption from a torn tail. The format is described in
`storage.records`.

On opening, an unreadable frame counts as a torn tail, which is cut, only if it can be the write that a crash
interrupted: it is in the last segment, after the mark (`storage.mark`), and no later frame says that it was durable.
Everything else is damage, including a segment that is missing, truncated, renamed, or without its header: a member of a
cluster always has a log of full-length segments up to the mark. (After a power cut, corruption after the mark in the
very last frame, or zeros from there on, cannot be told from a torn write. Under load this concerns at most the last
second of the log.)

The first frame of a segment holds the hard state, so older segments can be removed as soon as the state contains their
entries.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from holdfast.raft.invariant import invariant
from holdfast.raft.types import DurableAppend, HardState
from holdfast.storage.damage import REPLACE, Damaged
from holdfast.storage.files import free_bytes, sync_directory
from holdfast.storage.mark import Mark
from holdfast.storage.records import (
    HEADER_BYTES,
    Frame,
    Header,
    decode,
    encode,
    frame,
    frames,
    pack_header,
    search,
    split,
    unpack_header,
)

SEGMENT_BYTES = 16 << 20
ZEROS_BYTES = 1 << 20

_NAME = re.compile(r"[0-9a-f]{16}\.log")


class LogCorrupt(Damaged):
    """Durable data of the log was damaged. The message names the file, the offset and what is known to be lost."""


def _corrupt(what: str) -> LogCorrupt:
    return LogCorrupt(f"{what}; {REPLACE}")


class _Segment:
    __slots__ = ("fd", "last_index", "path", "size", "start")

    def __init__(self, path: Path, start: int, size: int, fd: int = -1) -> None:
        self.path = path
        self.start = start  # position of the first byte
        self.size = size
        self.fd = fd
        self.last_index = 0  # index of the newest entry


class DurableLog:
    """Appends records and replays them. Used by one thread at a time; in production this is the writer thread.

    Call `create` for a new log or `replay` for an existing one, then `append`."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = directory
        self.segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._end = 0  # position of the next frame
        self._synced = 0
        self._hard_state = HardState()
        self._mark: Mark | None = None
        self._spare = directory / "spare"  # the next segment, filled with zeros in advance
        self._spare_size = 0

    @property
    def mark_path(self) -> Path:
        """Beside the directory, not in it, so that an older copy of the directory does not include its old mark."""
        return self.directory.with_name(self.directory.name + ".synced")

    @property
    def marked(self) -> bool:
        """Whether the mark would be up to date even after a power cut."""
        return self._mark is None or self._mark.synced

    @property
    def marked_at(self) -> int:
        """The position in the mark: the log is known to be durable up to it."""
        return self._mark.position if self._mark is not None else 0

    @property
    def segments(self) -> int:
        return len(self._segments)

    # ---- opening -------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Begin an empty log in an empty directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        invariant(not any(self.directory.iterdir()), f"{self.directory} holds something already")
        self._new_segment(0)
        self._mark = Mark.create(self.mark_path, self._end)
        sync_directory(self.directory.parent)

    def replay(self, *, read_only: bool = False, unmarked: bool = False) -> Iterator[DurableAppend]:
        """Yield every surviving record in order and cut a torn tail; afterwards the log is ready for `append`.

        `read_only`: change nothing; the log is then not ready for `append`. `unmarked`: for a directory of format 1,
        which has no mark: create it. Raises Damaged, and then has changed nothing."""
        marked = 0
        if not unmarked or self.mark_path.exists():
            self._mark = Mark(self.mark_path, read_only=read_only)
            marked = self._mark.position
        paths = sorted(self.directory.glob("*.log"))
        if not paths:
            raise _corrupt(f"{self.directory} holds no segment of the log, and this member had one")
        last = 0  # index of the last entry read
        torn = False
        for path in paths:
            data = path.read_bytes()
            header = self._check_header(path, data, first=path is paths[0])
            segment = _Segment(path, header.start, len(data))
            self._segments.append(segment)
            end = header.bytes
            for found in frames(data, end):
                record = decode(found.payload)
                if record.hard_state is not None:
                    self._hard_state = record.hard_state
                last = _follow(last, record, f"{path}: the record at offset {found.offset}")
                segment.last_index = last if record.entries else segment.last_index
                end = found.end
                yield record
            self._end = header.start + end
            if data[end:].strip(b"\0"):
                self._check_torn(path, data, end, marked, is_last=path is paths[-1])
                torn = True
        if self._end < marked:
            raise _corrupt(
                f"{self._segments[-1].path}: the log ends at offset {self._end - self._segments[-1].start}, "
                f"and {marked - self._end} bytes behind it were durable: its end was cut, zeroed or removed"
            )
        if not read_only:
            self._go_on(torn)

    def _go_on(self, torn: bool) -> None:
        """Prepare for `append`."""
        last = self._segments[-1]
        if torn:
            self._zero(last.path, self._end - last.start, last.size)
        last.fd = os.open(last.path, os.O_RDWR)
        if self._mark is None:
            os.fdatasync(last.fd)
            self._mark = Mark.create(self.mark_path, self._end)
        self._synced = self._end

    def _check_header(self, path: Path, data: bytes, *, first: bool) -> Header:
        header = unpack_header(data)
        if header is None or not _NAME.fullmatch(path.name):
            raise _corrupt(f"{path}: damaged at offset 0, it is no segment of the log")
        if header.start != int(path.name[:16], 16):
            raise _corrupt(f"{path}: holds the segment of position {header.start:016x}: it was renamed, or damaged")
        size = header.size or max(self.segment_bytes, len(data))  # no segment of format 1 is smaller
        if len(data) != size:
            raise _corrupt(f"{path}: is {len(data)} bytes long, and had {size}: it was cut")
        if not first:
            before = self._segments[-1]
            if header.start != before.start + before.size:
                raise _corrupt(f"{path}: begins at position {header.start}; a segment before it is missing")
            if header.before and header.before != self._end:
                raise _corrupt(
                    f"{before.path}: the log ends at offset {self._end - before.start}, and "
                    f"{header.before - self._end} bytes behind it were durable ({path.name} says so)"
                )
        return header

    def _check_torn(self, path: Path, data: bytes, bad: int, marked: int, *, is_last: bool) -> None:
        """Raise unless the damage at offset `bad` can be a write that was never durable."""
        position = self._end
        later = next((found for found in search(data, bad + 8) if found.synced_upto > position), None)
        if later is not None:
            raise _corrupt(f"{path}: damaged at offset {bad}, and it was durable ({_says(path, later)})")
        if not is_last:
            raise _corrupt(f"{path}: damaged at offset {bad}, and it was durable, as there is a later segment")
        if position < marked:
            raise _corrupt(f"{path}: damaged at offset {bad}, and it was durable ({self.mark_path} says so)")

    @staticmethod
    def _zero(path: Path, start: int, end: int) -> None:
        with path.open("r+b") as file:
            file.seek(start)
            file.write(bytes(end - start))
            file.flush()
            os.fsync(file.fileno())

    # ---- writing -------------------------------------------------------------------------------------------

    def append(self, records: list[DurableAppend]) -> None:
        """Write `records` and return when they are durable. After an error the log is unusable: stop, never retry."""
        buffer = bytearray()
        segment = self._segments[-1]
        for record in itertools.chain.from_iterable(map(split, records)):
            payload = encode(record)
            if record.hard_state is not None:
                self._hard_state = record.hard_state
            framed = frame(payload, self._synced)
            if self._end + len(buffer) + len(framed) > segment.start + segment.size:
                self._write(segment, buffer)
                buffer.clear()
                segment = self._new_segment(len(framed))
            buffer += framed
            if record.entries:
                segment.last_index = record.entries[-1].index
        self._write(segment, buffer)
        os.fdatasync(segment.fd)
        self._synced = self._end
        if self._mark is not None:
            self._mark.move(self._end)

    def seal(self) -> None:
        """Sync the mark, so that even after a power cut it says that all written records are durable."""
        if self._mark is not None:
            self._mark.sync()

    def _write(self, segment: _Segment, buffer: bytearray) -> None:
        view = memoryview(bytes(buffer))
        while view:
            written = os.pwrite(segment.fd, view, self._end - segment.start)
            view = view[written:]
            self._end += written

    def _new_segment(self, needed: int) -> _Segment:
        """Start a segment. The previous one is made durable first, so that all positions before the new one are."""
        start = before = 0
        if self._segments:
            old = self._segments[-1]
            os.fdatasync(old.fd)
            os.close(old.fd)
            old.fd = -1
            start, before = old.start + old.size, self._end
        hard = frame(encode(DurableAppend(0, self._hard_state, 0, ())), start)
        size = max(self.segment_bytes, HEADER_BYTES + len(hard) + needed)
        if self._spare_size == 0:
            self._spare.unlink(missing_ok=True)  # left by an earlier run, with unknown content
        while self._spare_size < size:
            self.prepare(size)
        size = self._spare_size
        path = self.directory / f"{start:016x}.log"
        fd = os.open(self._spare, os.O_RDWR)
        os.pwrite(fd, pack_header(start, size, before) + hard, 0)
        os.fsync(fd)
        os.rename(self._spare, path)
        sync_directory(self.directory)
        self._spare_size = 0
        segment = _Segment(path, start, size, fd)
        self._segments.append(segment)
        self._end = self._synced = start + HEADER_BYTES + len(hard)
        return segment

    @property
    def prepared(self) -> bool:
        """Whether the next segment has been allocated, so that a full disk does not affect the next writes."""
        return self._spare_size >= self.segment_bytes

    def prepare(self, size: int = 0) -> None:
        """Allocate the next segment by one more step. Raises OSError (ENOSPC, EDQUOT) if there is no room; nothing is
        lost then, and it can be retried."""
        if self._spare_size == 0:
            self._spare.unlink(missing_ok=True)
        goal = max(size, self.segment_bytes)
        zeros = bytes(min(ZEROS_BYTES, goal - self._spare_size))
        # Write zeros instead of only reserving blocks: fdatasync of a reserved block also has to write metadata.
        fd = os.open(self._spare, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            written = os.pwrite(fd, zeros, self._spare_size)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        self._spare_size += written

    def room(self) -> int:
        """Free bytes for this process on the file system of the log."""
        return free_bytes(self.directory)

    def forget(self, index: int) -> None:
        """Remove the segments that contain only entries up to `index`, which the state contains durably."""
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
        if self._mark is not None:
            self._mark.close()
            self._mark = None


def _follow(last: int, record: DurableAppend, where: str) -> int:
    """The index of the last entry after `record`. Raises LogCorrupt if entries before the record are missing."""
    if record.base is not None:
        last = record.base[0]
    if record.truncate_from:
        last = min(last, record.truncate_from - 1)
    if record.entries:
        first = record.entries[0].index
        if last and first > last + 1:
            raise _corrupt(f"{where} begins with entry {first}, the one before ends with {last}: entries are missing")
        last = record.entries[-1].index
    return last


def _says(path: Path, later: Frame) -> str:
    entries = decode(later.payload).entries
    known = f"; the next readable record begins with entry {entries[0].index}" if entries else ""
    return f"a record at {path.name}:{later.offset} says so{known}"
