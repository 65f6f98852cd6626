"""The thread that makes log records durable, so that the loop never waits for a disk.

Records are passed to `submit`. When they are durable, a file descriptor becomes readable and `completed` returns the
newest sequence number. All records that queue up during one fdatasync are written by the next one (group commit).

The log's mark is synced when no records come, and every second while they do: see `storage.mark`.

Between records the thread allocates the next segment. While there is no room for it, `full` is true: the member then
accepts no new entries, and those already in progress fit into the current segment. While there is no file descriptor
for it, `postponed` is true: it is tried again, and the current segment goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque

from holdfast.histogram import DISK, Histogram
from holdfast.raft.types import DurableAppend
from holdfast.storage.files import NO_DESCRIPTOR, NO_ROOM
from holdfast.storage.log import DurableLog

log = logging.getLogger("holdfast.storage")

LEAVE_BYTES = 4 << 20  # not used for the next segment: the small files and RocksDB's need some room, too
CHECK_SECONDS = 1.0  # between two checks of the free space
IDLE_SECONDS = 0.1  # time without records after which the log's mark is synced
SEAL_SECONDS = 1.0  # longest time between syncs of the mark while records come


class LogWriter:
    """Owns a DurableLog. After an error, kept in `error`, nothing more is written and the process has to stop."""

    def __init__(self, log: DurableLog) -> None:
        self._log = log
        self._queue: deque[DurableAppend] = deque()
        self._forget = 0
        self._wake = threading.Condition()
        self._stopping = False
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._done = 0
        self.full = False
        self.postponed = False
        self._checked_at = 0.0
        self._sealed_at = 0.0
        self.syncs = Histogram(DISK)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._event

    def submit(self, record: DurableAppend) -> None:
        with self._wake:
            self._queue.append(record)
            self._wake.notify()

    def forget(self, index: int) -> None:
        """Remove the segments that contain only entries up to `index`, after the queued records."""
        with self._wake:
            self._forget = max(self._forget, index)
            self._wake.notify()

    @property
    def durable(self) -> int:
        """Everything up to this sequence number is durable."""
        return self._done

    def completed(self) -> int:
        """Clear the descriptor. Everything up to the returned sequence number is durable."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        if self.error is not None:
            raise SystemExit(f"holdfast: cannot write the log, stopping: {self.error}")
        return self._done

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    while not (self._queue or self._stopping or self._forget) and self._rested():
                        if not self._wake.wait(self._patience()) and not self._log.marked:
                            break
                    batch = list(self._queue)
                    self._queue.clear()
                    forget, self._forget = self._forget, 0
                    if not batch and self._stopping:
                        return
                if batch:
                    began = time.monotonic()
                    self._log.append(batch)
                    self.syncs.observe(time.monotonic() - began)
                    self._done = batch[-1].seq
                    os.eventfd_write(self._event, 1)
                if not batch or began > self._sealed_at + SEAL_SECONDS:
                    self._log.seal()
                    self._sealed_at = time.monotonic()
                if forget:
                    self._log.forget(forget)
                if not self._rested():
                    self._look_ahead()
        except BaseException as error:
            self.error = error
            os.eventfd_write(self._event, 1)

    def _patience(self) -> float | None:
        """How many seconds to wait for records before other work is due; None: for ever."""
        if not self._log.marked:
            return IDLE_SECONDS
        return CHECK_SECONDS if self.full or self.postponed else None

    def _rested(self) -> bool:
        """Whether no allocation of the next segment or check of free space is due."""
        recently = time.monotonic() < self._checked_at + CHECK_SECONDS
        return recently if self.full or self.postponed else self._log.prepared and (recently or not self._queue)

    def _look_ahead(self) -> None:
        """Allocate a step of the next segment, and check the space left after it, which the state needs too."""
        full, postponed = self.full, False
        try:
            if not self._log.prepared and self._log.room() >= LEAVE_BYTES:
                self._log.prepare()
            if not self._log.prepared and self._log.room() < LEAVE_BYTES:
                self._checked_at = time.monotonic()
                full = True
            elif self.full or time.monotonic() >= self._checked_at + CHECK_SECONDS:
                self._checked_at = time.monotonic()
                full = self._log.room() < self._log.segment_bytes
        except OSError as error:
            if error.errno not in NO_ROOM + NO_DESCRIPTOR:
                raise
            self._checked_at = time.monotonic()
            full, postponed = full or error.errno in NO_ROOM, error.errno in NO_DESCRIPTOR
            if postponed and not self.postponed:
                log.warning("the next segment of the log cannot be allocated yet; it is tried again: %s", error)
        self.postponed = postponed
        if full != self.full:
            self.full = full
            os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """Write the queued records and stop."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        self._log.close()
        os.close(self._event)
