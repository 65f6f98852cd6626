"""Events on keep-alive (Chubby, section 2.7): a session that follows a prefix lives only while it handles its changes.

In Chubby the answer to a keep-alive brings events, and the next keep-alive acknowledges them; so nobody holds a session
and is deaf at the same time. Here the watch brings the events. The renewal, which the client sends, is held back while
a change waits for too long to be handled, or while it is not known that all changes have arrived.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from holdfast.client.cache import Cache
from holdfast.client.keepalive import now
from holdfast.client.values import Event

HANDLED_SHARE = 2 / 3  # of the TTL
CONFIRMATIONS = 9  # in each TTL: how often the cluster is asked whether all changes have arrived


class Events:
    """The changes of a prefix, to iterate over: of each key the newest. Made by `Session.follow`.

    What was yielded is handled once the next changes are asked for. The session is renewed only if every change is
    handled that was acknowledged two thirds of a TTL before. So while it is safe, every change is handled that was
    acknowledged two TTLs ago or earlier; also when it is safe again after a jeopardy.
    """

    def __init__(self, cache: Cache, within: float, closed: Callable[[Events], None]) -> None:
        self.cache = cache  # the whole prefix, as it is now
        self._changes = cache.changes()
        self._within = within
        self._closed = closed

    def handled_in_time(self) -> bool:
        return now() - self._changes.handled_to <= self._within

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> list[Event]:
        return await anext(self._changes)

    async def close(self) -> None:
        """Follow no more; the session does not depend on it any more."""
        self._closed(self)
        await self.cache.close()

    async def __aenter__(self) -> Events:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
