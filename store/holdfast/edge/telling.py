"""Delivers what has changed in one key space of a replica, and history to watchers that are behind, a slice a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from holdfast.kv.rows import Change
from holdfast.served.keyspace import ServedSpace
from holdfast.watch.hub import Delivery


class Telling:
    """`deliver` sends deliveries to the streams that they are for."""

    def __init__(self, served: ServedSpace, deliver: Callable[[list[Delivery]], None]) -> None:
        self._served = served
        self._deliver = deliver
        self._scheduled = False  # for the loop's next turn

    def tell(self, revisions: Sequence[list[Change]] = ()) -> None:
        """Deliver these revisions to watchers."""
        deliveries = self._served.publish(revisions)
        if deliveries:
            self._deliver(deliveries)
        if self._served.busy:
            self.soon()

    def soon(self) -> None:
        """Deliver in the loop's next turn what is due. Who begins to watch or to follow asks for it, and first sends
        what comes before the changes: the answer to the request."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        self.tell()
