"""All sets of flags that a server serves, by selector: how many there may be, and when one is forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from holdfast.api.flag_parsing import ParsingTurns
from holdfast.api.shared_flags import IDLE_SECONDS, TOO_MANY, FlagSource, SharedSet
from holdfast.flags.selector import Selector
from holdfast.status import Code, Refusal, RequestError
from holdfast.watch.hub import Delivery

FAILED_SECONDS = 5.0  # a set that cannot be served is not read again before
MAX_SETS = 256
MAX_SHARE = 32  # of those in use, so many that one connection was the first to ask for
MAX_BYTES = 64 << 20  # of all sets together

TOO_MANY_OF_ONE = Refusal(
    Code.RESOURCE_EXHAUSTED,
    f"holdfast: this connection has asked for {MAX_SHARE} sets of flags already; open another one",
)


class FlagSets:
    """`new_stream` returns a number for the hub that no other stream has."""

    def __init__(self, new_stream: Callable[[], int]) -> None:
        self._new_stream = new_stream
        self._by_key: dict[bytes, SharedSet] = {}
        self._by_stream: dict[int, SharedSet] = {}
        self._parsing = ParsingTurns()

    @property
    def size(self) -> int:
        """About how many bytes they take in memory."""
        return sum(known.size for known in self._by_key.values())

    def get(self, selector: Selector, source: FlagSource, owner: Hashable) -> SharedSet:
        """The set of a selector; it is read if nobody has asked for it yet. `owner`: the connection that asks. Raises
        RequestError."""
        known = self._by_key.get(selector.key)
        if known is not None:
            failed = known.closed and time.monotonic() > known.idle_since + FAILED_SECONDS
            if known.source.hub is source.hub and not failed:
                return known
            self.drop(known)  # or it is of a member that has ended meanwhile
        self._sweep(IDLE_SECONDS)
        if len(self._by_key) >= MAX_SETS or self.size > MAX_BYTES // 2:
            self._sweep(0.0)
        if len(self._by_key) >= MAX_SETS or self.size > MAX_BYTES:
            raise RequestError(TOO_MANY)
        if sum(known.owner == owner for known in self._by_key.values() if known.users) >= MAX_SHARE:
            raise RequestError(TOO_MANY_OF_ONE)
        made = SharedSet(
            selector,
            source,
            owner,
            self._new_stream(),
            self._parsing,
            crowded=lambda: self.size > MAX_BYTES,
            ended=self._forget_stream,
            drop=self.drop,
        )
        self._by_key[selector.key] = self._by_stream[made.stream] = made
        try:
            made.read()
        except RequestError:
            self.drop(made)
            raise
        return made

    def _sweep(self, idle_seconds: float) -> None:
        latest = time.monotonic() - idle_seconds
        for known in list(self._by_key.values()):
            if not known.users and known.idle_since <= latest:
                self.drop(known)

    def drop(self, dropped: SharedSet) -> None:
        del self._by_key[dropped.selector.key]
        self._forget_stream(dropped)

    def _forget_stream(self, ended: SharedSet) -> None:
        self._by_stream.pop(ended.stream, None)
        ended.close()

    def deliver(self, delivery: Delivery) -> bool:
        """Whether the delivery was for one of the sets."""
        known = self._by_stream.get(delivery.stream)
        if known is not None:
            known.deliver(delivery)
        return known is not None

    def read_again(self) -> None:
        """A snapshot has replaced the key space."""
        for known in list(self._by_stream.values()):
            known.read_again()
