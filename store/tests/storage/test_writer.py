"""The log's thread: what it reports as durable is durable, and a full disk is noticed before it harms the log.

Full disks are simulated here (by the errno of the failing call); the crash tester fills real disks.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from holdfast.raft.log import Entry
from holdfast.raft.types import DurableAppend, HardState
from holdfast.storage import writer as writer_module
from holdfast.storage.log import DurableLog
from holdfast.storage.writer import LogWriter


class Disk(DurableLog):
    """A log whose disk has as much room as the test says."""

    free = 1 << 40
    lacking = errno.ENOSPC
    sealed: threading.Event

    def seal(self) -> None:
        super().seal()
        self.sealed.set()

    def room(self) -> int:
        return self.free

    def prepare(self, size: int = 0) -> None:
        if self.free <= 0:
            raise OSError(self.lacking, os.strerror(self.lacking))
        super().prepare(size)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    log = Disk(tmp_path, segment_bytes=1 << 16)
    log.sealed = threading.Event()
    log.create()
    return log


@pytest.fixture
def writer(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[LogWriter]:
    monkeypatch.setattr(writer_module, "CHECK_SECONDS", 0.01)
    running = LogWriter(disk)
    yield running
    running.close()


def _wait(writer: LogWriter, seq: int = 0, full: bool | None = None) -> None:
    while True:
        done = writer.completed()
        if done >= seq and full in (None, writer.full):
            return
        assert select.select([writer.fileno()], [], [], 10)[0], "the writer reports nothing"


def record(seq: int, size: int = 20) -> DurableAppend:
    return DurableAppend(seq, HardState(term=1), 0, (Entry(seq, 1, bytes(size)),))


def test_what_is_reported_is_on_the_disk(writer: LogWriter, tmp_path: Path) -> None:
    for seq in range(1, 50):
        writer.submit(record(seq))
    _wait(writer, 49)
    found = DurableLog(tmp_path, segment_bytes=1 << 16)
    assert [e.index for r in found.replay() for e in r.entries] == list(range(1, 50))
    found.close()


def test_when_nothing_comes_the_mark_is_synced(disk: Disk, writer: LogWriter) -> None:
    writer.submit(record(1))
    _wait(writer, 1)
    disk.sealed.clear()
    assert disk.sealed.wait(10)
    assert disk.marked


def test_a_disk_without_room_is_noticed_and_so_is_room(disk: Disk, writer: LogWriter) -> None:
    disk.free = 100
    seq = 1
    while not writer.full:
        writer.submit(record(seq))
        _wait(writer, seq)
        seq += 1
    writer.submit(record(seq))  # what was on its way is written all the same
    _wait(writer, seq)
    disk.free = 1 << 40
    _wait(writer, seq, full=False)


@pytest.mark.parametrize("lacking", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_for_the_next_segment_is_no_failure(
    lacking: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "CHECK_SECONDS", 0.01)
    log = Disk(tmp_path, segment_bytes=1 << 16)
    log.sealed = threading.Event()
    log.create()
    log.free = 0
    log.lacking = lacking
    monkeypatch.setattr(writer_module, "LEAVE_BYTES", 0)  # the allocation itself fails
    running = LogWriter(log)
    try:
        _wait(running, full=True)
        running.submit(record(1))
        _wait(running, 1)
        log.free = 1 << 40
        _wait(running, 1, full=False)
    finally:
        running.close()


@pytest.mark.parametrize("lacking", [errno.EMFILE, errno.ENFILE])
def test_the_next_segment_waits_for_a_file_descriptor(
    lacking: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(writer_module, "LEAVE_BYTES", 0)  # there is room: the allocation itself fails
    log = Disk(tmp_path, segment_bytes=1 << 16)
    log.sealed = threading.Event()
    log.create()
    log.free, log.lacking = 0, lacking
    running = LogWriter(log)
    try:
        for seq in range(1, 20):
            running.submit(record(seq))
            _wait(running, seq, full=False)
        assert running.postponed
        log.free = 1 << 40
        seq = 20
        while running.postponed or not log.prepared:
            running.submit(record(seq))
            _wait(running, seq, full=False)
            seq += 1
    finally:
        running.close()


def test_any_other_failure_stops_the_process(disk: Disk, writer: LogWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """ATC'20: after a failed fsync pages are marked clean; trying again would report what is lost as durable."""

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", broken)
    writer.submit(record(1))
    with pytest.raises(SystemExit, match="cannot write the log, stopping"):
        _wait(writer, 1)
