"""The limit on the size of the data (--quota-backend-bytes).

It is checked before a write is proposed. A member at the limit raises the NOSPACE alarm. All members then refuse to
store more until an administrator frees space and disarms the alarm.
"""

from __future__ import annotations

import logging
import time

from holdfast.kv.requests import SEQUENCE_DIGITS
from holdfast.machine import NOSPACE_ALARM
from holdfast.member.driver import Member
from holdfast.proto import holdfast_pb2, raft_pb2, rpc_pb2
from holdfast.status import NO_SPACE, RequestError

log = logging.getLogger("holdfast.quota")

REFRESH_SECONDS = 0.25
LEASE_COST = 64
KEY_OVERHEAD = 256


class Quota:
    """The size of this member's state: as last measured, plus the cost of the writes admitted since."""

    def __init__(self, quota_bytes: int) -> None:
        self._quota = quota_bytes
        self._used = 0
        self._looked_at = 0.0

    def check(self, member: Member, cost: int) -> None:
        """Admit a write of `cost` bytes. At the limit, raise the alarm and RequestError."""
        if self._quota <= 0:
            return
        if time.monotonic() > self._looked_at + REFRESH_SECONDS:
            self._look(member)
        self._used += cost
        if self._used < self._quota:
            return
        self._look(member)  # space may have been freed since
        self._used += cost
        if self._used < self._quota:
            return
        if (member.id, NOSPACE_ALARM) not in member.state.alarms:
            log.error(
                "the state takes %d of %d bytes: writes are refused; compact, defragment, then disarm the alarm",
                self._used,
                self._quota,
            )
            alarm = rpc_pb2.AlarmRequest(
                action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=member.id, alarm=rpc_pb2.NOSPACE
            )
            member.propose(raft_pb2.Command(alarm=alarm, system=True), lambda _: None)
        raise RequestError(NO_SPACE)

    def _look(self, member: Member) -> None:
        self._looked_at = time.monotonic()
        self._used = member.store.size()[0]


def cost_of_put(request: rpc_pb2.PutRequest) -> int:
    return KEY_OVERHEAD + len(request.key) + len(request.value)


def cost_of_put_sequential(request: holdfast_pb2.PutSequentialRequest) -> int:
    return KEY_OVERHEAD + len(request.prefix) + SEQUENCE_DIGITS + len(request.value)


def cost_of_txn(request: rpc_pb2.TxnRequest) -> int:
    """The cost of the more expensive branch; 0 if neither puts anything."""
    return max(_cost_of_branch(request.success), _cost_of_branch(request.failure))


def _cost_of_branch(ops: object) -> int:
    cost = 0
    for op in ops:  # type: ignore[attr-defined]
        kind = op.WhichOneof("request")
        if kind == "request_put":
            cost += cost_of_put(op.request_put)
        elif kind == "request_txn":
            cost += cost_of_txn(op.request_txn)
    return cost
