"""Adapts a key space of a replica to `api.watch.Watchable`, for one watch stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from holdfast.edge.access import ReplicaCaller
from holdfast.keyrange import Range
from holdfast.proto import rpc_pb2
from holdfast.status import Code, RequestError
from holdfast.watch.hub import Hub


class Space(Protocol):
    """A key space that is served here."""

    poke: Callable[[], None]

    @property
    def hub(self) -> Hub: ...

    def header(self, revision: int | None) -> rpc_pb2.ResponseHeader: ...

    def check_served(self, range: Range) -> None:
        """Raise RequestError unless this range is here, and may be served now."""
        ...


class Watched:
    """One key space, for one caller."""

    def __init__(self, space: Space, caller: ReplicaCaller) -> None:
        self._space = space
        self._caller = caller
        self.header = space.header
        self.poke = space.poke

    def part(self, start: bytes, end: bytes | None) -> Watched:
        return self

    @property
    def hub(self) -> Hub:
        return self._space.hub

    def refuse_watch(self, start: bytes, end: bytes | None) -> str:
        return self._refuse((start, end), again=False)

    def refuse_further(self, start: bytes, end: bytes | None) -> str:
        return self._refuse((start, end), again=True)

    def _refuse(self, range: Range, *, again: bool) -> str:
        try:
            self._caller.require_read(range, again=again)
            self._space.check_served(range)
        except RequestError as error:
            if error.refusal.code is Code.UNAVAILABLE:
                raise  # it ends the stream: clients try again, here or elsewhere, and would give up a cancelled watch
            return error.refusal.in_go_words()
        return ""
