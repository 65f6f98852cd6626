"""What flags of a member are read from, and with which rights."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from holdfast.api.base import Service
from holdfast.api.shared_flags import Position
from holdfast.auth.store import Principal
from holdfast.flags.selector import Selector
from holdfast.front.calls import Call
from holdfast.kv.space import KeySpace
from holdfast.member.driver import Member
from holdfast.served.scans import Failed, S
from holdfast.watch.hub import Hub


class MemberFlags:
    """Adapts a member to `shared_flags.FlagSource`."""

    def __init__(self, member: Member) -> None:
        self._member = member

    @property
    def hub(self) -> Hub:
        return self._member.hub

    @property
    def space(self) -> KeySpace:
        return self._member.state.space

    def position(self) -> Position:
        return Position(self._member.revision)

    def poke(self) -> None:
        self._member.poke()

    def scan(
        self, begin: Callable[[], S], done: Callable[[S], None], failed: Failed, owner: Hashable
    ) -> Callable[[], None] | None:
        return self._member.in_slices(begin, done, failed, owner=owner)


class MemberReader:
    """Adapts the caller of one call to `flags.FlagReader`. Raises RequestError as `Service.member` does. Flags are read
    as by a serializable Range, which a learner answers, too."""

    def __init__(self, service: Service, call: Call) -> None:
        member = service.member(call, learner=True)
        self.source = MemberFlags(member)
        self._auth = member.state.auth
        self._caller = service.caller(call, member)

    def require_user(self) -> None:
        self._auth.require_current(self._caller.shown())

    def require(self, selector: Selector) -> None:
        self._require(self._caller.shown(), selector)

    def require_further(self, selector: Selector) -> None:
        self._require(self._caller.standing(), selector)

    def _require(self, who: Principal, selector: Selector) -> None:
        self._auth.require_read(who, selector.key, selector.range_end)
