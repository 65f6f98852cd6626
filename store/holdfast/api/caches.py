"""holdfast.v1.Caches: leases under which clients answer linearizable reads from their own copies.

`member.cache_leases` decides who gets a lease. This module connects it to a call and to the caller's rights.
"""

from __future__ import annotations

from holdfast.api.base import Service, Serving
from holdfast.front.calls import Call, Credit, Kind
from holdfast.member.interface import CacheGiven
from holdfast.proto import holdfast_pb2, raft_pb2
from holdfast.status import CACHES_UNSUPPORTED, Code, Refusal, RequestError

_TWO_RANGES = Refusal(Code.INVALID_ARGUMENT, "holdfast: a cache lease is of one range, which its first message names")


class CacheService(Service):
    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        self.streams: dict[int, HoldStream] = {}
        self.router.stream("/holdfast.v1.Caches/Hold", Kind.BIDI, self.open)
        self.router.unary("/holdfast.v1.Caches/Allow", lambda call, body: self._change(call, body, allowed=True))
        self.router.unary("/holdfast.v1.Caches/Forbid", lambda call, body: self._change(call, body, allowed=False))
        self.router.unary("/holdfast.v1.Caches/List", self.list)

    def open(self, call: Call) -> HoldStream:
        stream = HoldStream(self, call)
        self.streams[call.id] = stream
        return stream

    def rights_changed(self) -> None:
        """Users or roles have changed, or auth was turned on or off."""
        for stream in list(self.streams.values()):
            stream.check_rights()

    def _change(self, call: Call, body: bytes, *, allowed: bool) -> None:
        request = holdfast_pb2.CachePrefixRequest.FromString(body)
        member = self.member(call)
        self.require_admin(call, member)
        if member.state.level < 2:
            raise RequestError(CACHES_UNSUPPORTED)
        change = raft_pb2.CachablePrefix(prefix=request.prefix, allowed=allowed)
        self.propose_and_answer(call, member, raft_pb2.Command(cachable=change))

    def list(self, call: Call, body: bytes) -> None:
        holdfast_pb2.CacheListRequest.FromString(body)
        member = self.member(call)
        self.require_user(call, member)

        def answer() -> None:
            response = holdfast_pb2.CacheListResponse(prefixes=sorted(member.state.cachable))
            self.answer(call, member, response)

        self.when_current(call, member, answer)


class HoldStream:
    """The Hold call of one client."""

    def __init__(self, service: CacheService, call: Call) -> None:
        self._service = service
        self._call = call
        self._member = service.member(call)
        self._caller = service.caller(call, self._member)
        self._member.state.auth.require_current(self._caller.shown())
        self._cluster_id = service.node.data.identity.cluster_id
        self._range: tuple[bytes, bytes] | None = None
        self._id = self._member.open_cache(self._given)

    def on_message(self, body: bytes) -> None:
        self._service.router.act(Credit(self._call.id, 1))
        request = holdfast_pb2.CacheHoldRequest.FromString(body)
        if request.release:
            self._member.close_cache(self._id, done=True)
            self._service.streams.pop(self._call.id, None)
            self._service.router.finish(self._call.id)
            return
        if self._range is None:
            self._member.state.auth.require_read(self._caller.shown(), request.key, request.range_end)
            self._range = request.key, request.range_end
        elif request.key:
            raise RequestError(_TWO_RANGES)
        self._member.hold_cache(self._id, request)

    def check_rights(self) -> None:
        """End the stream, and with it the lease, if its caller may no longer read the range. A lease that lasts may be
        used until it runs out: what it shows is a copy that the caller has."""
        try:
            who = self._caller.standing()
            self._member.state.auth.require_current(who)
            if self._range is not None:
                self._member.state.auth.require_read(who, *self._range)
        except RequestError as error:
            self._member.close_cache(self._id, done=False, excused=True)
            self._service.router.fail(self._call.id, error.refusal)

    def _given(self, given: CacheGiven) -> None:
        if given.refused is not None:
            self._service.router.fail(self._call.id, given.refused)
            return
        response = holdfast_pb2.CacheHoldResponse(
            number=given.number,
            lease_ms=given.lease_ms,
            revision=given.revision,
            invalidations=given.invalidations,
            cluster_id=self._cluster_id,
        )
        self._service.router.send(self._call.id, response.SerializeToString())

    def on_half_close(self) -> None:
        """Half-close does not end a lease."""

    def on_cancelled(self) -> None:
        self._service.streams.pop(self._call.id, None)
        self._member.close_cache(self._id, done=False)

    def on_over(self) -> None:
        """What is sent is little: an answer to each request, and one invalidation until it is acknowledged."""

    def on_writable(self) -> None:
        """Nothing waits."""
