"""The file of one cache: written when its state has changed, and stamped while the state is still the newest one.

Programs may refuse to start from a state that is too old. A state that nobody changes is not old as long as a server
has confirmed it, so that is recorded from time to time, without writing the state again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from pathlib import Path

from holdfast.client import last_good
from holdfast.client.keepalive import now
from holdfast.proto import rpc_pb2

log = logging.getLogger("holdfast.client")

STAMP_SECONDS = 30.0


class StateFile:
    """`last_good`, for the state of one cache, off the event loop."""

    def __init__(self, path: Path, prefix: bytes) -> None:
        self.path = path
        self._prefix = prefix
        self._digest = b""  # of what is in the file; empty: not known
        self._stamped = -math.inf

    async def load(self) -> last_good.LastGood | None:
        """Raises NotThatPrefix."""
        kept = await asyncio.to_thread(last_good.load, self.path, self._prefix)
        if kept is not None:
            self._digest = kept.digest
        return kept

    async def write(self, found: rpc_pb2.RangeResponse, age: float) -> None:
        """`age`: of the state, in seconds."""
        try:
            self._digest = await asyncio.to_thread(last_good.save, self.path, self._prefix, found, age)
            self._stamped = now()
        except OSError as error:
            self._digest = b""
            log.warning(
                "%s cannot be written: %s; a start without a server would find an older state", self.path, error
            )

    @property
    def stamp_due(self) -> bool:
        return now() > self._stamped + STAMP_SECONDS

    async def stamp(self, age: float) -> None:
        """Record that the state in the file is still the newest one, and how old it is."""
        self._stamped = now()
        if self._digest:
            with contextlib.suppress(OSError):  # the state then counts as older than it is
                await asyncio.to_thread(last_good.confirm, self.path, self._digest, age)
