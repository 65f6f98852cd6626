"""etcdserverpb.Lease: granting, keeping alive and revoking."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, MutableSequence

from holdfast.api.base import Service, Serving
from holdfast.api.quota import LEASE_COST, Quota
from holdfast.auth.checks import check_lease
from holdfast.front.calls import Call, Credit, Kind
from holdfast.kv.slices import Sliced, SlicedSort
from holdfast.member.driver import Member
from holdfast.member.interface import Answer
from holdfast.member.lessor import shortest_ttl
from holdfast.proto import raft_pb2, rpc_pb2

COPIED = 50  # keys of a list that are copied at the cost of one row


class LeaseService(Service):
    """Grants and revokes leases through the log. Keep-alives go to the leader and need no log entry."""

    def __init__(self, serving: Serving, quota: Quota) -> None:
        super().__init__(serving)
        self._quota = quota
        router = self.router
        router.unary("/etcdserverpb.Lease/LeaseGrant", self.grant)
        router.unary("/etcdserverpb.Lease/LeaseRevoke", self.revoke)
        router.unary("/etcdserverpb.Lease/LeaseTimeToLive", self.time_to_live)
        router.unary("/etcdserverpb.Lease/LeaseLeases", self.leases)
        router.stream("/etcdserverpb.Lease/LeaseKeepAlive", Kind.BIDI, lambda call: _KeepAliveStream(self, call))

    def grant(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.LeaseGrantRequest.FromString(body)
        member = self.member(call)
        self._quota.check(member, LEASE_COST)
        grant = new_lease(member, request.ID, request.TTL)
        self.propose_and_answer(call, member, raft_pb2.Command(lease_grant=grant))

    def revoke(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.LeaseRevokeRequest.FromString(body)
        member = self.member(call)
        self.propose_and_answer(call, member, raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=request.ID)))

    def time_to_live(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.LeaseTimeToLiveRequest.FromString(body)
        member = self.member(call)

        def answered(answer: Answer) -> None:
            if self.refuse(call, answer):
                return
            self.guard(call, lambda: self._tell(call, member, request, answer.ttl))

        member.keep_alive(request.ID, answered, query=True)

    def _tell(self, call: Call, member: Member, request: rpc_pb2.LeaseTimeToLiveRequest, ttl: int) -> None:
        state = member.state
        response = rpc_pb2.LeaseTimeToLiveResponse(ID=request.ID, TTL=ttl)
        if ttl >= 0:
            response.grantedTTL = state.leases.get(request.ID, 0)
        if not request.keys:
            if state.auth.enabled:
                self.require_user(call, member)
            self.answer(call, member, response)
            return

        def begin() -> Sliced:
            response.header.CopyFrom(self.header(member))
            return Sliced(self._keys(call, member, request.ID, response.keys if ttl >= 0 else None))

        self.in_slices(call, member, begin, lambda _: self.router.reply(call.id, response.SerializeToString()))

    def _keys(self, call: Call, member: Member, lease: int, into: MutableSequence[bytes] | None) -> Iterator[int]:
        """Append the keys attached to a lease, in order, if the caller may read them all. Yields the cost of each."""
        keys = list(member.state.space.leased.get(lease, ()))  # as of now
        yield 1 + len(keys) // COPIED
        yield from self._may_read(call, member, keys)
        if into is None:
            return
        order: SlicedSort[bytes] = SlicedSort()
        for key in keys:
            order.add(key)
            yield 1
        for key in order.merged():
            into.append(key)
            yield 1

    def _may_read(self, call: Call, member: Member, keys: Iterable[bytes]) -> Iterator[int]:
        """Raises RequestError unless the caller may read all these keys. Yields the cost of each."""
        auth = member.state.auth
        if auth.enabled:
            who = self.principal(call, member)
            auth.require_current(who)
            for key in keys:
                auth.require_read(who, key, b"")
                yield 1

    def leases(self, call: Call, body: bytes) -> None:
        rpc_pb2.LeaseLeasesRequest.FromString(body)
        member = self.member(call)
        response = rpc_pb2.LeaseLeasesResponse()

        def begin() -> Sliced:
            response.header.CopyFrom(self.header(member))
            return Sliced(self._all_leases(call, member, response))

        self.in_slices(call, member, begin, lambda _: self.router.reply(call.id, response.SerializeToString()))

    def _all_leases(self, call: Call, member: Member, response: rpc_pb2.LeaseLeasesResponse) -> Iterator[int]:
        leases = list(member.state.leases)  # as of now
        yield 1 + len(leases) // COPIED
        yield from self._may_read(call, member, ())
        order: SlicedSort[int] = SlicedSort()
        for lease in leases:
            keys = list(member.state.space.leased.get(lease, ())) if member.state.auth.enabled else []
            yield from self._may_read(call, member, keys)
            order.add(lease)
            yield 1 + len(keys) // COPIED
        for lease in order.merged():
            response.leases.add(ID=lease)
            yield 1


def new_lease(member: Member, id: int, ttl_seconds: int) -> raft_pb2.LeaseGrant:
    """The command that grants a lease of at least `ttl_seconds`; an id of 0 chooses one at random."""
    shortest = shortest_ttl(member.raft.settings)
    return raft_pb2.LeaseGrant(
        id=id or secrets.randbits(63) or 1, ttl_seconds=max(ttl_seconds, shortest), minted=not id
    )


class _KeepAliveStream:
    """A keep-alive stream: one answer for each request, in order."""

    def __init__(self, service: LeaseService, call: Call) -> None:
        self._service = service
        self._call = call
        self._member = service.member(call)
        self._caller = service.caller(call, self._member)
        self._answers: deque[list[bytes]] = deque()  # a slot for each request; empty until it is answered
        self._closing = False

    def on_message(self, body: bytes) -> None:
        request = rpc_pb2.LeaseKeepAliveRequest.FromString(body)
        state = self._member.state
        if state.auth.enabled:  # with current rights; a token that has expired meanwhile does not end the stream
            check_lease(state.auth, self._caller.standing(), request.ID, state.space.leased)
        slot: list[bytes] = []
        self._answers.append(slot)

        def answered(answer: Answer) -> None:
            if answer.error is not None:
                self._service.router.fail(self._call.id, answer.error)
                return
            response = rpc_pb2.LeaseKeepAliveResponse(
                header=self._service.header(self._member), ID=request.ID, TTL=answer.ttl
            )
            slot.append(response.SerializeToString())
            self._flush()

        self._member.keep_alive(request.ID, answered)

    def _flush(self) -> None:
        router = self._service.router
        while self._answers and self._answers[0]:
            router.send(self._call.id, self._answers.popleft()[0])
            router.act(Credit(self._call.id, 1))
        if self._closing and not self._answers:
            router.finish(self._call.id)

    def on_half_close(self) -> None:
        self._closing = True
        self._flush()

    def on_cancelled(self) -> None:
        self._answers.clear()

    def on_over(self) -> None:
        """Nothing to do: the credit bounds what is sent."""

    def on_writable(self) -> None:
        """See `on_over`."""
