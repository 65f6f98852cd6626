"""The leader's clock for leases: when each expires. Followers never expire a lease.

Expiry times are not replicated. A new leader gives every lease its full TTL again (plus an election timeout), so that a
change of leader extends leases and never shortens them. So that a long lease does not start over with every leader, the
leader regularly records through the log how much time was left (a checkpoint).

A lease has one entry in each queue, however often it is renewed: an entry that comes up too early is put back.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

SECOND = 1_000_000_000


class _Queue:
    """Ids by due time. Postponing an id costs nothing: its entry comes up early and is put back."""

    def __init__(self) -> None:
        self._at: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []
        self._queued: dict[int, int] = {}

    def set(self, id: int, at: int) -> None:
        self._at[id] = at
        queued = self._queued.get(id)
        if queued is None or at < queued:
            self._queued[id] = at
            heapq.heappush(self._heap, (at, id))

    def drop(self, id: int) -> None:
        self._at.pop(id, None)
        self._queued.pop(id, None)

    @property
    def first(self) -> int | None:
        """When to call `pop` next, at the latest."""
        return self._heap[0][0] if self._heap else None

    def pop(self, now: int) -> int | None:
        """Remove and return an id that is due; None if there is none."""
        while self._heap and self._heap[0][0] <= now:
            at, id = heapq.heappop(self._heap)
            if self._queued.get(id) != at:
                continue
            del self._queued[id]
            due = self._at[id]
            if due <= now:
                del self._at[id]
                return id
            self.set(id, due)
        return None


class LeaseClock:
    """Deadlines of all leases while this member leads; empty otherwise."""

    def __init__(self, checkpoint_ns: int = 0) -> None:
        """`checkpoint_ns`: interval between checkpoints of a lease that has more time left than that; 0 = never."""
        self._checkpoint_ns = checkpoint_ns
        self.renewed = 0
        self.demote()

    def demote(self) -> None:
        self._expiry: dict[int, int] = {}
        self._ends = _Queue()
        self._checkpoints = _Queue()
        self._revoking: dict[int, int] = {}  # id -> when to propose its revocation again
        self._checkpointed: set[int] = set()  # by us, and not cancelled

    def promote(self, leases: Mapping[int, int], remaining: Mapping[int, int], now: int, extend_ns: int) -> None:
        """Begin to lead. `leases`: id -> TTL in seconds; `remaining`: id -> seconds left at the last checkpoint."""
        self.demote()
        for lease, ttl in leases.items():
            self._set(lease, now + extend_ns + remaining.get(lease, ttl) * SECOND, now)

    def granted(self, lease: int, ttl: int, now: int) -> None:
        self._revoking.pop(lease, None)
        self._set(lease, now + ttl * SECOND, now)

    def revoked(self, lease: int) -> None:
        self._expiry.pop(lease, None)
        self._revoking.pop(lease, None)
        self._ends.drop(lease)
        self._checkpoints.drop(lease)
        self._checkpointed.discard(lease)

    def renew(self, lease: int, ttl: int, now: int) -> bool:
        """Give `lease` its full TTL again. False: it is unknown or has expired."""
        if lease not in self._expiry or lease in self._revoking:
            return False
        self.renewed += 1
        self._set(lease, now + ttl * SECOND, now)
        return True

    def extend(self, lease: int, ttl: int, now: int) -> None:
        """A client may have been told that `lease` has its full TTL: make sure that it has at least that."""
        at = self._expiry.get(lease)
        if at is not None and lease not in self._revoking:
            self._set(lease, max(at, now + ttl * SECOND), now)

    def remaining(self, lease: int, now: int) -> int | None:
        """Whole seconds left, or None if it is unknown or has expired."""
        at = self._expiry.get(lease)
        if at is None or lease in self._revoking:
            return None
        return max(0, (at - now) // SECOND)

    def _set(self, lease: int, at: int, now: int) -> None:
        self._expiry[lease] = at
        self._ends.set(lease, at)
        if self._checkpoint_ns and at > now + self._checkpoint_ns:
            self._checkpoints.set(lease, now + self._checkpoint_ns)
        elif self._checkpoint_ns:
            self._checkpoints.drop(lease)

    @property
    def deadline(self) -> int | None:
        ends, checkpoints = self._ends.first, self._checkpoints.first
        return ends if checkpoints is None else checkpoints if ends is None else min(ends, checkpoints)

    def expired(self, now: int, limit: int, retry_ns: int) -> list[int]:
        """Leases to revoke through the log now. A lease that is not revoked is returned again after `retry_ns`."""
        due: list[int] = []
        while len(due) < limit:
            lease = self._ends.pop(now)
            if lease is None:
                break
            if lease in self._expiry:
                due.append(lease)
                self._revoking[lease] = now + retry_ns
                self._ends.set(lease, now + retry_ns)
        return due

    # ---- checkpoints ---------------------------------------------------------------------------------------

    def due_checkpoints(self, now: int, limit: int) -> dict[int, int]:
        """Leases to checkpoint now: id -> seconds left, rounded up."""
        due: dict[int, int] = {}
        while len(due) < limit:
            lease = self._checkpoints.pop(now)
            if lease is None:
                break
            left = self._expiry.get(lease, 0) - now
            if left <= 0 or lease in self._revoking:
                continue
            due[lease] = -(-left // SECOND)
            self._checkpointed.add(lease)
            if left > self._checkpoint_ns:
                self._checkpoints.set(lease, now + self._checkpoint_ns)
        return due

    def checkpointed(self, lease: int) -> bool:
        """Whether a checkpoint of this lease may still be on its way through the log."""
        return lease in self._checkpointed

    def taken_back(self, lease: int) -> None:
        """The cancellation of this lease's checkpoint follows all of our checkpoints of it in the log."""
        self._checkpointed.discard(lease)
