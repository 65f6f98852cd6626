"""A replica as an upstream of other replicas: it feeds them as a member would, from what it has itself.

So the cluster's work depends on its direct followers only. A replica goes on feeding others while it is cut off.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.api.follow import FollowService, Host
from holdfast.api.reports import Reports
from holdfast.api.router import Router
from holdfast.edge.core import ReplicaCore
from holdfast.edge.follow import Follower
from holdfast.edge.service import EdgeApi
from holdfast.edge.site_writer import SiteWriter, WriterHost
from holdfast.edge.source import ReplicaSource
from holdfast.front.calls import Call
from holdfast.keyrange import bounds
from holdfast.kv.hashing import RangeHash
from holdfast.proto import holdfast_pb2
from holdfast.status import SITE_METADATA, Code, Refusal, RequestError

MAX_DEPTH = 8  # replicas from the cluster down
MAX_CHILDREN = 1000


class Relay:
    """Serves the replicas below this one."""

    def __init__(self, router: Router, core: ReplicaCore, follower: Follower, api: EdgeApi, reports: Reports) -> None:
        self._core = core
        self._follower = follower
        self._api = api
        self.follow = FollowService(router, reports, self._host)

    def _host(self, call: Call) -> Host:
        if len(self.follow.streams) >= MAX_CHILDREN:
            raise RequestError(Refusal(Code.UNAVAILABLE, f"holdfast: {MAX_CHILDREN} replicas follow this one already"))
        if len(self._core.path.nodes) > MAX_DEPTH:
            raise RequestError(Refusal(Code.UNAVAILABLE, f"holdfast: {MAX_DEPTH} replicas are above this one already"))
        if SITE_METADATA in call.metadata:
            return self._site_host(call)
        return _ReplicaHost(self._core, self._follower, self._api, call)

    def _site_host(self, call: Call) -> WriterHost:
        """Another replica of the site wants the keys of the site."""
        local = self._api.local
        if local is None or not isinstance(local.site, SiteWriter):
            text = "holdfast: this replica does not write the keys of its site; correct --site-writer"
            raise RequestError(Refusal(Code.FAILED_PRECONDITION, text))
        keys, caller = local.keys, self._api.access.caller(call)

        def check(start: holdfast_pb2.FollowStart | None, again: bool) -> None:
            caller.require_user(again=again)
            for part in start.filter if start is not None else ():
                range = bounds(part.key, part.range_end)
                if not keys.has(range):
                    text = f"holdfast: {part.key[:100]!r} is no key of the site {keys.site.name}"
                    raise RequestError(Refusal(Code.INVALID_ARGUMENT, text))
                caller.require_read(range, again=again)

        return WriterHost(local.site, local.poke, check)


class _ReplicaHost:
    """Implements `api.follow.Host`: whoever may read here may follow."""

    def __init__(self, core: ReplicaCore, follower: Follower, api: EdgeApi, call: Call) -> None:
        self.source = ReplicaSource(core, api.hub, api.poke)
        self._follower = follower
        self._api = api
        self._call = call
        self._caller = api.access.caller(call)

    def check(self, start: holdfast_pb2.FollowStart | None, *, again: bool = False) -> None:
        self._caller.require_user(again=again)
        self._api.check_here()
        for part in start.filter if start is not None else ():
            range = bounds(part.key, part.range_end)
            self._caller.require_read(range, again=again)
            self._api.check_here(range)

    def scan(self, begin: Callable[[], RangeHash], done: Callable[[RangeHash], None]) -> None:
        self._api.scan(self._call, begin, done)

    def shares_rights(self) -> bool:
        access = self._api.access
        return not access.open and access.is_replica(self._caller.who(again=True))

    def confirm(self, confirmed: Callable[[int | None], None]) -> None:
        self._follower.confirm(confirmed)
