"""Background tasks: referenced until they are done, cancelled at the end, and their errors are never lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger("holdfast")


class Tasks:
    """Runs coroutines that are not awaited. `failed` is called with an error of one; by default it is logged."""

    def __init__(self, failed: Callable[[BaseException], None] | None = None) -> None:
        self._failed = failed
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if self._failed is not None:
            self._failed(error)
        else:
            log.error("a background task failed", exc_info=error)

    def cancel(self) -> None:
        for task in list(self._running):
            task.cancel()
