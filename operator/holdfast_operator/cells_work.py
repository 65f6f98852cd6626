"""One step of a set of cells, carried out beside the passes: a change of the set may take minutes, and the status goes
on.

| State | |
|---|---|
| idle | no step is under way; `failed` says why the last one failed, if it did |
| at work | one step is under way, and no other one begins |

A step that is cut short may be begun again, by anybody: `holdfast.cells` sees to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from holdfast.client.errors import ClientError

from holdfast_operator.plan.cells import Act

log = logging.getLogger("holdfast.operator")


class CellsWork:
    def __init__(self, done: Callable[[], None]) -> None:
        """`done` is called after a step that succeeded."""
        self._done = done
        self._task: asyncio.Task[None] | None = None
        self.step: Act | None = None  # the one that is under way, or the last one
        self.failed = ""

    @property
    def busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def begin(self, step: Act, work: Coroutine[Any, Any, None]) -> None:
        """Carry out the step. What it raises becomes `failed`."""
        assert not self.busy
        if step != self.step:
            self.failed = ""
        self.step = step
        self._task = asyncio.ensure_future(self._run(work))

    def forget(self) -> None:
        """No step is due: why an earlier one failed does not matter any more."""
        self.step, self.failed = None, ""

    async def cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (ClientError, ValueError) as error:
            self.failed = str(error)
        except Exception as error:
            log.exception("%s failed", self.step)
            self.failed = repr(error)
        else:
            self.failed = ""
            self._done()
