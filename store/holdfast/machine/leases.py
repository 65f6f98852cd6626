"""The replicated part of leases: which exist, their TTLs, and their last checkpoints.

There is no clock here. Only the leader's lessor (`holdfast.member.lessor`) knows when a lease expires; it then proposes
to revoke it. Until that is applied the lease lives.

A lease with a lock-delay (Chubby, section 2.4) ends in two steps when it expires: it ends, and its keys stay as if
somebody still held them; after the delay they go. So requests that the lost holder has sent arrive before the next
holder begins. A lease that is revoked by its owner ends in one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, Pending
from holdfast.machine import rows
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.status import LEASE_EXISTS, LEASE_NOT_FOUND, TTL_TOO_LARGE, Code, Refusal, RequestError

MAX_TTL_SECONDS = 9_000_000_000


class LeaseEvent(NamedTuple):
    """Tells the leader's lease clock that an entry gave these leases so much time from now."""

    ttls: Mapping[int, int]  # id -> seconds
    granted: bool  # they are new, or their lock-delay begins; False: their checkpoints were cancelled


class Leases:
    """The granted leases, kept as rows of the state."""

    def __init__(self, pending: Pending, space: KeySpace) -> None:
        self._pending = pending
        self._space = space
        self.ttls: dict[int, int] = {}  # id -> granted TTL in seconds
        self.remaining: dict[int, int] = {}  # id -> seconds left at its last checkpoint; absent: the full TTL
        for key, value in rows.scan(pending, rows.LEASE):
            self.ttls[rows.signed(key)] = int.from_bytes(value, "big")
        for key, value in rows.scan(pending, rows.REMAINING):
            self.remaining[rows.signed(key)] = int.from_bytes(value, "big")
        # Seconds of lock-delay: of leases that live, and of those that have expired and whose keys stay.
        self.delays = {rows.signed(k): int.from_bytes(v, "big") for k, v in rows.scan(pending, rows.DELAY)}
        self.delayed = {rows.signed(k): int.from_bytes(v, "big") for k, v in rows.scan(pending, rows.DELAYED)}

    def grant(self, grant: raft_pb2.LeaseGrant, *, delays: bool) -> tuple[rpc_pb2.LeaseGrantResponse, LeaseEvent]:
        """`delays`: whether the cluster's level knows lock-delays."""
        lease, ttl = grant.id, grant.ttl_seconds
        if ttl > MAX_TTL_SECONDS:
            raise RequestError(TTL_TOO_LARGE)
        if lease in self.ttls or lease in self.delayed:
            raise RequestError(LEASE_EXISTS)
        if ttl <= 0:
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, f"holdfast: a lease of {ttl} s"))
        if delays and not 0 <= grant.delay_seconds <= MAX_TTL_SECONDS:
            raise RequestError(
                Refusal(Code.INVALID_ARGUMENT, f"holdfast: a lease with a lock-delay of {grant.delay_seconds} s")
            )
        self.ttls[lease] = ttl
        self._pending.put(Family.META, rows.LEASE + rows.number(lease), ttl.to_bytes(8, "big"))
        if grant.delay_seconds and delays:
            self._set(rows.DELAY, self.delays, lease, grant.delay_seconds)
        return rpc_pb2.LeaseGrantResponse(ID=lease, TTL=ttl), LeaseEvent({lease: ttl}, granted=True)

    def revoke(self, lease: int) -> rpc_pb2.LeaseRevokeResponse:
        """Revoke a lease and delete the keys attached to it."""
        self._end(lease)
        self._delete_keys(lease)
        return rpc_pb2.LeaseRevokeResponse()

    def expire(self, lease: int) -> LeaseEvent:
        """End a lease that has a lock-delay, and keep its keys. The leader waits for the delay from now on."""
        delay = self.delays.get(lease, 0)
        self._end(lease)
        self._set(rows.DELAYED, self.delayed, lease, delay)
        return LeaseEvent({lease: delay}, granted=True)

    def delay_over(self, lease: int) -> rpc_pb2.LeaseRevokeResponse:
        """Delete the keys of a lease that has expired."""
        if lease not in self.delayed:
            raise RequestError(LEASE_NOT_FOUND)
        self._set(rows.DELAYED, self.delayed, lease, None)
        self._delete_keys(lease)
        return rpc_pb2.LeaseRevokeResponse()

    def _delete_keys(self, lease: int) -> None:
        for key in sorted(self._space.leased.get(lease, ())):
            self._space.delete(key)

    def _end(self, lease: int) -> None:
        if lease not in self.ttls:
            raise RequestError(LEASE_NOT_FOUND)
        del self.ttls[lease]
        if lease in self.delays:
            self._set(rows.DELAY, self.delays, lease, None)
        self._set_remaining(lease, 0)
        self._pending.put(Family.META, rows.LEASE + rows.number(lease), None)

    def _set(self, row: bytes, table: dict[int, int], lease: int, seconds: int | None) -> None:
        if seconds is None:
            del table[lease]
        else:
            table[lease] = seconds
        self._pending.put(
            Family.META, row + rows.number(lease), None if seconds is None else seconds.to_bytes(8, "big")
        )

    def checkpoint(self, checkpoint: raft_pb2.LeaseCheckpoint) -> tuple[raft_pb2.LeaseCheckpoint, LeaseEvent]:
        """Record how many seconds each lease has left, by the leader's clock. 0 cancels a checkpoint: the lease has its
        full TTL. The response lists the leases of the latter kind, as in every version; no client waits for it."""
        full: dict[int, int] = {}
        for lease, left in zip(checkpoint.ids, checkpoint.remaining_seconds, strict=True):
            if lease in self.ttls:
                self._set_remaining(lease, left)
                if not left:
                    full[lease] = self.ttls[lease]
        return raft_pb2.LeaseCheckpoint(ids=full), LeaseEvent(full, granted=False)

    def _set_remaining(self, lease: int, left: int) -> None:
        """0 means the full TTL."""
        if left:
            self.remaining[lease] = left
        elif self.remaining.pop(lease, None) is None:
            return
        self._pending.put(Family.META, rows.REMAINING + rows.number(lease), left.to_bytes(8, "big") if left else None)
