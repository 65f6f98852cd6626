"""The thread that makes log records durable, so that the loop never waits for a disk.

Records are handed over with `submit`; when they are durable, a file descriptor becomes readable and `completed` tells
the newest sequence number. Whatever queued up during one fdatasync goes out in the next one: that is group commit.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque

from holdfast.raft.types import DurableAppend
from holdfast.storage.log import DurableLog


class LogWriter:
    """Owns a DurableLog. After an error nothing more is written and `error` says why; the process has to stop."""

    def __init__(self, log: DurableLog) -> None:
        self._log = log
        self._queue: deque[DurableAppend] = deque()
        self._forget = 0
        self._wake = threading.Condition()
        self._stopping = False
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._done = 0
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
        """Drop segments up to `index` when there is nothing better to do."""
        with self._wake:
            self._forget = max(self._forget, index)
            self._wake.notify()

    def completed(self) -> int:
        """Clear the descriptor; everything up to the returned sequence number is durable."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        if self.error is not None:
            raise SystemExit(f"holdfast: cannot write the log, stopping: {self.error}")
        return self._done

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    while not (self._queue or self._stopping or self._forget):
                        self._wake.wait()
                    batch = list(self._queue)
                    self._queue.clear()
                    forget, self._forget = self._forget, 0
                    if not batch and self._stopping:
                        return
                if batch:
                    self._log.append(batch)
                    self._done = batch[-1].seq
                    os.eventfd_write(self._event, 1)
                if forget:
                    self._log.forget(forget)
        except BaseException as error:
            self.error = error
            os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """Write what is queued and stop."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        self._log.close()
        os.close(self._event)
