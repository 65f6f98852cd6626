"""What flags of a replica are read from: its own data, also while it is cut off."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from holdfast.api.shared_flags import Position
from holdfast.edge.service import EdgeApi
from holdfast.flags.selector import Selector
from holdfast.front.calls import Call
from holdfast.kv.space import KeySpace
from holdfast.served.keyspace import ServedSpace
from holdfast.served.scans import Failed, S
from holdfast.watch.hub import Hub


class ReplicaFlags:
    """Adapts a replica to `shared_flags.FlagSource`. `staleness_ms` returns its bound; None: unknown."""

    def __init__(self, served: ServedSpace, staleness_ms: Callable[[], int | None], poke: Callable[[], None]) -> None:
        self._served = served
        self._staleness_ms = staleness_ms
        self.poke = poke

    @property
    def hub(self) -> Hub:
        return self._served.hub

    @property
    def space(self) -> KeySpace:
        return self._served.space

    def position(self) -> Position:
        staleness = self._staleness_ms()
        return Position(self.space.revision, True, None if staleness is None else staleness / 1000)

    def scan(
        self, begin: Callable[[], S], done: Callable[[S], None], failed: Failed, owner: Hashable
    ) -> Callable[[], None] | None:
        return self._served.scans.run(begin, done, failed, owner=owner)


class ReplicaReader:
    """Adapts the caller of one call to `flags.FlagReader`: its reads are checked as other reads of this replica."""

    def __init__(self, api: EdgeApi, source: ReplicaFlags, call: Call) -> None:
        self.source = source
        self._api = api
        self._caller = api.access.caller(call)

    def require_user(self) -> None:
        self._caller.require_user()
        self._api.check_here()

    def require(self, selector: Selector) -> None:
        self._require(selector, again=False)

    def require_further(self, selector: Selector) -> None:
        self._require(selector, again=True)

    def _require(self, selector: Selector, *, again: bool) -> None:
        self._caller.require_read(selector.bounds, again=again)
        self._api.check_served(selector.bounds)
