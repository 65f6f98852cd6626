"""holdfast.v1.Session: client sessions, under which a client numbers its commands so that a retry is applied once.

A session is a lease. etcd does not have this service, so a client learns from the error that there are no sessions.
"""

from __future__ import annotations

from holdfast.api.base import Service, Serving
from holdfast.api.lease import new_lease
from holdfast.api.quota import LEASE_COST, Quota
from holdfast.front.calls import Call
from holdfast.machine import MAX_TTL_SECONDS
from holdfast.member.interface import Answer
from holdfast.proto import holdfast_pb2, raft_pb2
from holdfast.status import LOCK_DELAY_UNSUPPORTED, TTL_TOO_LARGE, Code, Refusal, RequestError

MAX_LOCK_DELAY_SECONDS = 600


class SessionService(Service):
    """Opens client sessions. They are kept alive and ended as leases."""

    def __init__(self, serving: Serving, quota: Quota) -> None:
        super().__init__(serving)
        self._quota = quota
        self.router.unary("/holdfast.v1.Session/Open", self.open)

    def open(self, call: Call, body: bytes) -> None:
        request = holdfast_pb2.SessionOpenRequest.FromString(body)
        if not 0 < request.ttl_seconds <= MAX_TTL_SECONDS:
            raise RequestError(TTL_TOO_LARGE)
        delay = request.lock_delay_seconds
        if not 0 <= delay <= MAX_LOCK_DELAY_SECONDS:
            raise RequestError(
                Refusal(
                    Code.INVALID_ARGUMENT, f"holdfast: a lock-delay of {delay} s: it is 0 to {MAX_LOCK_DELAY_SECONDS}"
                )
            )
        member = self.member(call)
        if delay and member.state.level < 2:
            raise RequestError(LOCK_DELAY_UNSUPPORTED)
        self._quota.check(member, LEASE_COST)
        grant = new_lease(member, 0, request.ttl_seconds)
        grant.session, grant.delay_seconds = True, delay

        def answered(answer: Answer) -> None:
            if not self.refuse(call, answer):
                response = holdfast_pb2.SessionOpenResponse(id=grant.id, ttl_seconds=grant.ttl_seconds)
                self.answer(call, member, response, answer.revision)

        self.propose(call, member, raft_pb2.Command(lease_grant=grant), answered)
