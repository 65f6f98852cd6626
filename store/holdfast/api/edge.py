"""What a member lets edge replicas follow: its state, as far as the replica's user may read it."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.api.base import Service, Serving
from holdfast.api.follow import FollowService
from holdfast.api.reports import Reports
from holdfast.auth.followed import RightsFrame
from holdfast.auth.store import REPLICA_ROLE
from holdfast.edge.lineage import Lineage
from holdfast.front.calls import Call
from holdfast.kv.hashing import RangeHash
from holdfast.kv.space import KeySpace
from holdfast.member.driver import Member
from holdfast.member.interface import Answer
from holdfast.proto import holdfast_pb2
from holdfast.watch.hub import Hub


class EdgeService(Service):
    def __init__(self, serving: Serving, reports: Reports) -> None:
        super().__init__(serving)
        self.rights = RightsFrame()
        self.follow = FollowService(self.router, reports, lambda call: _MemberHost(self, call))


class _MemberSource:
    """Adapts a member to `edge.upstream.Source`."""

    def __init__(self, cluster_id: int, volume: int, member: Member, rights: RightsFrame) -> None:
        self._cluster_id = cluster_id
        self.path = holdfast_pb2.FollowPath(nodes=[volume])
        self._member = member
        self._rights = rights

    @property
    def rights(self) -> bytes:
        auth = self._member.state.auth
        return self._rights.of(auth) if auth.enabled else b""

    @property
    def lineage(self) -> Lineage:
        state = self._member.state
        return Lineage.of(self._cluster_id, state.epoch, state.lineage, state.restored_from)

    @property
    def term(self) -> int:
        return self._member.raft.term

    @property
    def users(self) -> bool:
        return self._member.state.auth.enabled

    @property
    def space(self) -> KeySpace:
        return self._member.state.space

    @property
    def hub(self) -> Hub:
        return self._member.hub

    def poke(self) -> None:
        self._member.poke()


class _MemberHost:
    """Implements `api.follow.Host`: a replica follows as the user of its certificate or token."""

    def __init__(self, service: EdgeService, call: Call) -> None:
        self._service = service
        self._call = call
        self._member = service.member(call)
        self._caller = service.caller(call, self._member)
        identity = service.node.data.identity
        self.source = _MemberSource(identity.cluster_id, identity.volume_id, self._member, service.rights)

    def check(self, start: holdfast_pb2.FollowStart | None, *, again: bool = False) -> None:
        auth = self._member.state.auth
        who = self._caller.standing() if again else self._caller.shown()
        auth.require_current(who)
        for part in start.filter if start is not None else ():
            auth.require_read(who, part.key, part.range_end)

    def scan(self, begin: Callable[[], RangeHash], done: Callable[[RangeHash], None]) -> None:
        self._service.in_slices(self._call, self._member, begin, done)

    def shares_rights(self) -> bool:
        auth = self._member.state.auth
        return auth.enabled and auth.has_role(self._caller.standing().user, REPLICA_ROLE)

    def confirm(self, confirmed: Callable[[int | None], None]) -> None:
        def read(answer: Answer) -> None:
            confirmed(self._member.state.space.revision if answer.error is None else None)

        self._member.read(read)
