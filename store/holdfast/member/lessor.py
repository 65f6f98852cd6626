"""The leader's clock for leases: who expires when. Followers never expire anything.

Expiry is not replicated time: a new leader gives every lease its full time again (and an election timeout more), so
that a change of leader extends leases and never shortens them.
"""

from __future__ import annotations

import heapq

SECOND = 1_000_000_000


class Lessor:
    """Deadlines of all leases while this member leads; empty otherwise."""

    def __init__(self) -> None:
        self.renewed = 0
        self._expiry: dict[int, int] = {}
        self._queue: list[tuple[int, int]] = []  # (deadline, id); stale ones are dropped when they come up
        self._revoking: dict[int, int] = {}  # id -> when to propose its revocation again

    def promote(self, leases: dict[int, int], now: int, extend_ns: int) -> None:
        self._expiry = {lease: now + extend_ns + ttl * SECOND for lease, ttl in leases.items()}
        self._queue = [(at, lease) for lease, at in self._expiry.items()]
        heapq.heapify(self._queue)
        self._revoking = {}

    def demote(self) -> None:
        self._expiry = {}
        self._queue = []
        self._revoking = {}

    def granted(self, lease: int, ttl: int, now: int) -> None:
        self._revoking.pop(lease, None)
        self._set(lease, now + ttl * SECOND)

    def revoked(self, lease: int) -> None:
        self._expiry.pop(lease, None)
        self._revoking.pop(lease, None)

    def renew(self, lease: int, ttl: int, now: int) -> bool:
        """Give `lease` its whole time again. False: it is unknown or has expired."""
        if lease not in self._expiry or lease in self._revoking:
            return False
        self.renewed += 1
        self._set(lease, now + ttl * SECOND)
        return True

    def remaining(self, lease: int, now: int) -> int | None:
        """Whole seconds left, or None if it is unknown or has expired."""
        at = self._expiry.get(lease)
        if at is None or lease in self._revoking:
            return None
        return max(0, (at - now) // SECOND)

    def _set(self, lease: int, at: int) -> None:
        self._expiry[lease] = at
        heapq.heappush(self._queue, (at, lease))

    @property
    def deadline(self) -> int | None:
        return self._queue[0][0] if self._queue else None

    def expired(self, now: int, limit: int, retry_ns: int) -> list[int]:
        """Leases to revoke through the log now. One that stays unrevoked comes up again after `retry_ns`."""
        due: list[int] = []
        while self._queue and self._queue[0][0] <= now and len(due) < limit:
            at, lease = heapq.heappop(self._queue)
            current = self._expiry.get(lease)
            if current is None or (current != at and self._revoking.get(lease) != at):
                continue
            due.append(lease)
            self._revoking[lease] = now + retry_ns
            heapq.heappush(self._queue, (now + retry_ns, lease))
        return due
