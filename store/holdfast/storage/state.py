"""The state in RocksDB: the rows of all families, always consistent with some prefix of the log.

On a member RocksDB's write-ahead log is off, since `storage.log` does its work: a crash reverts the state to the last
flush, and the log is kept from there on. All families share one column family and differ in the first byte, because a
flush must include all or none of them: RocksDB's `atomic_flush` does not apply to a manual flush, which covers only the
column family that it is given (measured: rows without their applied index after kill -9). See docs/decisions/0003.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rocksdict import AccessType, Checkpoint, DbClosedError, Options, Rdict, ReadOptions, WriteBatch, WriteOptions

from holdfast.kv.store import Family, StateDamaged, StoreBusy, Write
from holdfast.storage.causes import Cause, cause_of
from holdfast.storage.damage import REPLACE, Damaged
from holdfast.storage.files import MAKE_ROOM, free_bytes, sync_directory, sync_file
from holdfast.storage.mark import Mark
from holdfast.storage.sealed import SealedFile

log = logging.getLogger("holdfast.storage")

REOPEN_BYTES = 4 << 20  # free space that opening needs for manifests and similar files
# Rows in memory until they are flushed. After a full disk RocksDB goes on only once so much is free; its default is
# 64 MiB. A replica has less: devices at the edge are small, and it reads its write-ahead log before it answers.
WRITE_BUFFER_BYTES = 16 << 20
REPLICA_BUFFER_BYTES = 4 << 20
WRITE_BUFFERS = 4
RETRY_SECONDS = 0.25  # between two attempts to write while the disk is full
READAHEAD_BYTES = 1 << 20  # of a scan of all rows of a family
VERIFY_BYTES = 4 << 20  # read by one iterator: an old iterator keeps files from being deleted


def prefix(family: Family) -> bytes:
    """The first byte of the rows of a family."""
    return bytes([0x10 + family])


_PREFIX = tuple(map(prefix, Family))
_AFTER = tuple(bytes([0x11 + family]) for family in Family)
_GENERATION = re.compile(r"\d{8}")
_END = b"\xff"  # a row after all others: an iterator that ends before it has met an error


class StateUnreadable(Exception):
    """RocksDB cannot read or write the directory. The message names it and says what to do."""


class TakesNothing(StateUnreadable):
    """The disk is full, or mounted read-only: what is there can still be read, see `RocksStore`."""


class NoRoom(StoreBusy):
    """The disk is full. Without a write-ahead log, RocksDB accepts writes again by itself some seconds after there is
    room; with one, see `RocksStore.reopen`."""


def _ignore(_: StateDamaged) -> None:
    """The default of `on_damage`."""


def _options(buffer_bytes: int, *, create: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_max_open_files(512)
    options.set_write_buffer_size(buffer_bytes)
    options.set_max_write_buffer_number(WRITE_BUFFERS)
    options.set_keep_log_file_num(2)
    return options


def _whole_family() -> ReadOptions:
    """All rows of a family, which a start reads: a sixth faster with large reads."""
    options = ReadOptions()
    options.set_readahead_size(READAHEAD_BYTES)
    return options


class MemoryUse(NamedTuple):
    """Bytes that RocksDB keeps in memory: unflushed rows, cached blocks, and the indexes of its tables."""

    rows: int
    block_cache: int
    table_indexes: int


class RocksStore:
    """One directory of rows. Calls hold the GIL, except `flush` and `compact`; call these in a thread."""

    def __init__(self, path: Path, *, wal: bool = False, mark: Path | None = None, read_only: bool = False) -> None:
        """`wal`: use RocksDB's write-ahead log, for a replica, which has no other log to recover from. What it has
        applied then survives kill -9, and after `sync` a power cut. `mark`: the file that says how much was synced,
        because RocksDB recovers this log up to the first damage, and does not report that it had more. `read_only`: the
        disk takes nothing; it counts as `full` until `reopen`. Raises TakesNothing if it does not, unless
        `read_only`."""
        self.path = path
        self.on_damage: Callable[[StateDamaged], object] = _ignore  # called on the thread that found the damage
        self.full = False  # the last write or flush found no room; a write-ahead log accepts nothing before `reopen`
        self._retry_at = 0.0
        self._wal = wal
        self._buffer_bytes = REPLICA_BUFFER_BYTES if wal else WRITE_BUFFER_BYTES
        self._mark: Mark | None = None
        self._mark_path = mark
        self._view: tempfile.TemporaryDirectory[str] | None = None
        # If the directory has files but not RocksDB's CURRENT, that was lost; a new database there would hide it.
        self._db = self._open_read_only() if read_only else self._open(create=not path.exists() or not _has_files(path))
        self.full = read_only
        try:
            self._check_mark(read_only=read_only)
        except BaseException:
            self.close()
            raise
        self._writing = WriteOptions()
        self._writing.disable_wal = not wal
        self._writing.no_slowdown = True
        if not read_only and self._db_get(_END) is None:
            end = WriteBatch(raw_mode=True)
            end.put(_END, b"")
            self._write(end)

    def _open(self, *, create: bool) -> Rdict:
        try:
            return Rdict(str(self.path), options=_options(self._buffer_bytes, create=create))
        except Exception as error:  # rocksdict raises plain Exception
            raise self._not_opened(error) from error

    def _not_opened(self, error: Exception) -> Exception:
        """The exception for an error when opening."""
        cause = cause_of(error)
        if cause in (Cause.DAMAGE, Cause.MISSING):
            return self._damaged(error)
        if cause is Cause.NO_ROOM:
            return TakesNothing(f"no room in {self.path} to open the state; {MAKE_ROOM}")
        if cause is Cause.READ_ONLY:
            return TakesNothing(f"{self.path} is on a disk that is mounted read-only")
        return StateUnreadable(
            f"{self.path}: the state cannot be opened ({error}); make the directory readable, or {REPLACE}"
        )

    def _open_read_only(self) -> Rdict:
        """What is there, with what is in the write-ahead log. rocksdict writes a file of its own when it opens a
        database, so on a disk that is mounted read-only it is shown links to RocksDB's files instead."""
        try:
            return self._opened_read_only(self.path)
        except Exception as error:
            if cause_of(error) is not Cause.READ_ONLY:
                raise self._not_opened(error) from error
        self._view = tempfile.TemporaryDirectory(prefix="holdfast-")
        for file in self.path.iterdir():
            if file.name.startswith("rocksdict"):
                shutil.copyfile(file, Path(self._view.name) / file.name)
            elif file.name != "LOCK":
                (Path(self._view.name) / file.name).symlink_to(file.resolve())
        try:
            return self._opened_read_only(Path(self._view.name))
        except Exception as error:
            raise self._not_opened(error) from error

    def _opened_read_only(self, path: Path) -> Rdict:
        return Rdict(str(path), options=_options(self._buffer_bytes, create=False), access_type=AccessType.read_only())

    def _check_mark(self, *, read_only: bool = False) -> None:
        """Raises StateDamaged if rows are lost that were synced. A directory of version 0.1 has no mark yet."""
        if self._mark_path is None:
            return
        if read_only:
            if self._mark_path.exists():
                lost = lost_rows(self._db, Mark(self._mark_path, read_only=True))
                if lost:
                    raise self._damaged(lost)
            return
        if self._mark is None:
            here = self._db.latest_sequence_number()
            self._mark = Mark(self._mark_path) if self._mark_path.exists() else Mark.create(self._mark_path, here)
        lost = lost_rows(self._db, self._mark)
        if lost:
            raise self._damaged(lost)

    def _damaged(self, error: Exception | str) -> StateDamaged:
        damage = StateDamaged(f"{self.path}: the state is damaged ({error}); {REPLACE}")
        self.on_damage(damage)
        return damage

    def _db_get(self, row: bytes) -> bytes | None:
        try:
            value: bytes | None = self._db.get(row)
        except DbClosedError:
            raise
        except Exception as error:
            raise self._damaged(error) from error
        return value

    def get(self, family: Family, key: bytes) -> bytes | None:
        return self._db_get(_PREFIX[family] + key)

    def scan(self, family: Family, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """The rows of [start, end) as of the reading of the first one, regardless of later writes: RocksDB's iterators
        are snapshots. (rocksdict's Snapshot objects are not: their iterators see later writes.)"""
        stop = _AFTER[family] if end is None else _PREFIX[family] + end
        last = _PREFIX[family] + start
        for key, value in self._db.items(from_key=last, read_opt=None if start or end else _whole_family()):
            if key >= stop:
                return
            yield key[1:], value
            last = key
        raise self._damaged(self._why_ended(last))

    def _why_ended(self, last: bytes) -> str:
        """The error after row `last` that made an iterator end before the row _END. `items` does not report it, and
        checking the status of each row would make a scan a third slower."""
        rows = self._db.iter()
        rows.seek(last)
        try:
            while rows.valid():
                rows.next()
            rows.status()
        except Exception as error:
            return str(error)
        return f"rows end behind {last!r}"

    def apply(self, batch: list[Write]) -> None:
        if self.full and (self._wal or time.monotonic() < self._retry_at):
            raise NoRoom(f"{self.path}: the disk was full")
        rows = WriteBatch(raw_mode=True)
        for family, key, value in batch:
            if value is None:
                rows.delete(_PREFIX[family] + key)
            else:
                rows.put(_PREFIX[family] + key, value)
        self._write(rows)

    def _write(self, rows: WriteBatch) -> None:
        try:
            self._db.write(rows, self._writing)
        except Exception as error:
            raise self._refused(error) from None
        self.full = False

    def _refused(self, error: Exception) -> Exception:
        """The exception for a failed write of RocksDB. A write can also fail because of damage: RocksDB reads when it
        compacts, and accepts no writes once it has found damage."""
        cause = cause_of(error)
        if cause is Cause.NO_ROOM:
            self.full, self._retry_at = True, time.monotonic() + RETRY_SECONDS
            return NoRoom(str(error))
        if self.full and cause is Cause.EARLIER:
            return NoRoom(str(error))
        if cause is Cause.BUSY:
            return StoreBusy(str(error))
        if cause is Cause.DAMAGE:
            return self._damaged(error)
        return StateUnreadable(
            f"{self.path}: the state cannot be written ({error}). What was acknowledged is in the log; look after the "
            "disk, then start this member again"
        )

    def flush(self) -> None:
        """Make everything applied so far durable. Releases the GIL. Raises NoRoom, StateDamaged or StateUnreadable."""
        if self.full and self._wal:
            raise NoRoom(f"{self.path}: the disk takes no writes")
        try:
            self._db.flush()
        except Exception as error:
            raise self._refused(error) from None
        self.full = self.full and self._wal

    def verify(self) -> None:
        """Read every row, so that the checksum of every block is verified. Call this in a thread."""
        at: bytes | None = b""
        while at is not None:
            at, _ = self.read_on(at, VERIFY_BYTES)

    def read_on(self, start: bytes, limit: int) -> tuple[bytes | None, int]:
        """Read about `limit` bytes of rows from `start` on, which verifies their blocks, without filling the cache.
        Returns the row to continue at (None at the end) and the bytes read. Call this in a thread."""
        options = ReadOptions()
        options.fill_cache(False)
        size, last = 0, start
        for key, value in self._db.items(from_key=start, read_opt=options):
            if key == _END:
                return None, size
            if size >= limit:
                return key, size
            size += len(key) + len(value)
            last = key
        raise self._damaged(self._why_ended(last))

    def sync(self) -> None:
        """Make the write-ahead log durable, and then the mark. Releases the GIL. Raises NoRoom."""
        written = self._db.latest_sequence_number()
        try:
            self._db.flush_wal(True)
        except Exception as error:
            raise self._refused(error) from None
        if self._mark is not None and not self.full and written > self._mark.position:
            self._mark.move(written)
            self._mark.sync()

    def keep_mark(self, path: Path) -> None:
        """Keep a new mark in this file from now on: all that was applied so far is durable. Raises OSError."""
        written = self._db.latest_sequence_number()
        self._db.flush_wal(True)
        self._mark, self._mark_path = Mark.create(path, written), path

    def has_room(self) -> bool:
        """Whether there is room for `flush`, or with a write-ahead log for `reopen`: both write to tables what is in
        memory, or in that log."""
        if self._wal:
            needed = sum(file.stat().st_size for file in self.path.glob("*.log"))
        else:
            needed = self._property("cur-size-all-mem-tables")
        takes = os.access(self.path, os.W_OK)  # a disk that is mounted read-only does not
        return takes and free_bytes(self.path) >= max(needed, self._buffer_bytes) + REOPEN_BYTES

    def reopen(self) -> None:
        """Accept writes again after the disk was full. Once a write to RocksDB's write-ahead log has failed, it stays
        unusable, even if there is room later. All applied data is in that log and is recovered from it. Iterators keep
        a database open, so none may be in use. If the disk takes no writes after all, it stays `full`. Raises
        StateUnreadable or StateDamaged."""
        self._close_db()
        del self._db
        gc.collect()
        try:
            self._db = self._open(create=False)
        except TakesNothing:
            self._db = self._open_read_only()
            return
        if self._view is not None:
            self._view.cleanup()
            self._view = None
        self._check_mark()
        self.full = False

    def checkpoint(self, path: Path) -> None:
        """Make a consistent copy of the flushed data, by hard links. Call `flush` in a thread first: otherwise the
        checkpoint flushes, and holds the GIL meanwhile."""
        Checkpoint(self._db).create_checkpoint(str(path))

    def compact(self) -> None:
        """Compact all rows, to free disk space. Releases the GIL."""
        self._db.compact_range(None, None)

    def size(self) -> tuple[int, int]:
        """(bytes on disk, bytes of live data), both estimated by RocksDB."""
        rows = self._property("cur-size-all-mem-tables")
        return self._property("total-sst-files-size") + rows, self._property("estimate-live-data-size") + rows

    def memory(self) -> MemoryUse:
        return MemoryUse(
            rows=self._property("cur-size-all-mem-tables"),
            block_cache=self._property("block-cache-usage"),
            table_indexes=self._property("estimate-table-readers-mem"),
        )

    def _property(self, name: str) -> int:
        return self._db.property_int_value(f"rocksdb.{name}") or 0

    def close(self) -> None:
        """The end of this store."""
        self._close_db()
        if self._view is not None:
            self._view.cleanup()
        if self._mark is not None:
            self._mark.close()

    def _close_db(self) -> None:
        try:
            self._db.close()
        except Exception as error:
            log.warning("%s was not flushed at the end (%s); what it lacks is in the log", self.path, error)


def _has_files(path: Path) -> bool:
    return any(path.iterdir())


def lost_rows(db: Rdict, mark: Mark) -> str:
    """What `db` has lost of what was synced; empty if nothing."""
    here = db.latest_sequence_number()
    if here >= mark.position:
        return ""
    return f"it ends with write {here}, and up to write {mark.position} it was durable: its write-ahead log was damaged"


class StateDirectory:
    """A directory of generations of the state; the file `current` names the one in use.

    A snapshot is received into a new generation, made durable, and then put in use by replacing this one small file.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pointer = SealedFile(directory / "current")
        self.installed: int | None = None

    def current(self) -> Path:
        """The generation in use. Changes nothing. Raises Damaged if it is unknown or missing.

        Sets `installed` to the last entry of the snapshot that the generation was received as; 0: it was not received;
        None: not recorded. The state may be ahead of the log only while it is as it was received."""
        lost = f"which state is the one in use is not known; {REPLACE}"
        content = self._pointer.read(lost)
        if content is None:
            raise Damaged(f"{self._pointer.path} is missing: {lost}")
        name = content.get("generation")
        if not isinstance(name, str) or not _GENERATION.fullmatch(name):
            raise Damaged(f"{self._pointer.path} names {name!r}, which is no generation of the state: {lost}")
        installed = content.get("installed")
        self.installed = installed if isinstance(installed, int) else None
        path = self._directory / name
        if not path.is_dir() or not any(path.iterdir()):
            raise Damaged(f"{self._pointer.path} names {path}, which is not there or empty; {REPLACE}")
        return path

    def fresh(self) -> Path:
        """Create an empty directory for a new generation."""
        self._directory.mkdir(parents=True, exist_ok=True)
        taken = [int(p.name) for p in self._directory.iterdir() if p.name.isdigit()]
        path = self._directory / f"{max(taken, default=0) + 1:08d}"
        path.mkdir()
        return path

    def use(self, path: Path, *, installed: int = 0) -> None:
        """Put a complete generation in use, durably. The previous one is removed at the next start. `installed`: the
        last entry of a received snapshot; 0 if the generation was not received."""
        for file in path.iterdir():
            sync_file(file)
        self.point_to(path, installed=installed)

    def point_to(self, path: Path, *, installed: int = 0) -> None:
        """Like `use`, of a generation that is open and flushed: RocksDB has made its files durable itself, and may be
        removing some."""
        sync_directory(path)
        sync_directory(self._directory)
        self._pointer.write({"generation": path.name, "installed": installed})

    def unfinished(self) -> Path | None:
        """A generation that was begun after the one in use."""
        newest = max((p for p in self._directory.iterdir() if _GENERATION.fullmatch(p.name)), key=lambda p: p.name)
        return newest if newest.name > self.current().name else None

    def discard(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)

    def clean(self, unfinished: Path | None = None) -> None:
        """Remove all generations but the one in use and this one. Call this once the one in use has been opened
        successfully."""
        keep = self.current()
        for lack in self._pointer.lacks:
            log.warning("%s; the other one is good, and both are written anew", lack)
        if self._pointer.lacks or self.installed is None:
            self._pointer.write({"generation": keep.name, "installed": self.installed or 0})
        for path in self._directory.iterdir():
            if path.is_dir() and path not in (keep, unfinished):
                shutil.rmtree(path)

    def checkpoint_path(self) -> Path:
        """A path for a checkpoint to be sent; it is not a generation."""
        return self._directory / f"sending-{os.urandom(4).hex()}"
