"""What a watch stream of a member reads: its hub, and whether the caller may still read a range."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.api.base import Service
from holdfast.auth.store import Principal
from holdfast.front.calls import Call
from holdfast.proto import rpc_pb2
from holdfast.status import RequestError
from holdfast.watch.hub import Hub


class WatchedMember:
    """Adapts a member to `api.watch.Watchable`, for one watch stream. Raises RequestError as `Service.member` does."""

    def __init__(self, service: Service, call: Call) -> None:
        self._service = service
        self._member = service.member(call)
        self._caller = service.caller(call, self._member)

    def part(self, start: bytes, end: bytes | None) -> WatchedMember:
        return self

    @property
    def hub(self) -> Hub:
        return self._member.hub

    def header(self, revision: int | None) -> rpc_pb2.ResponseHeader:
        return self._service.header(self._member, revision)

    def poke(self) -> None:
        self._member.poke()

    def refuse_watch(self, start: bytes, end: bytes | None) -> str:
        return self._refuse(self._caller.shown, start, end)

    def refuse_further(self, start: bytes, end: bytes | None) -> str:
        return self._refuse(self._caller.standing, start, end)

    def _refuse(self, who: Callable[[], Principal], start: bytes, end: bytes | None) -> str:
        try:
            self._member.state.auth.require_read(who(), start, b"\x00" if end is None else end)
        except RequestError as error:
            return error.refusal.in_go_words()
        return ""
