"""What the holder of a cache lease knows: until when its copy of a prefix may answer linearizable reads, without I/O.

A lease counts from before its request was sent, on a clock that goes on while the machine is suspended. It is over as
soon as an invalidation arrives, and the invalidation is acknowledged only after that. (Chubby, section 2.7.)
"""

from __future__ import annotations

import math

from holdfast.proto import holdfast_pb2

REMEMBERED = 16  # requests: a lease may still be given for one of these


class CopyLease:
    """The state of one stream of `holdfast.v1.Caches/Hold`. Times are in seconds."""

    def __init__(self, key: bytes, range_end: bytes) -> None:
        self.revision = 0  # of the newest lease: a copy of this revision or a later one is current
        self.cluster_id = 0  # of the cluster that gave it
        self.until = -math.inf
        self.lease = 0.0  # how long leases last; 0: none was given yet
        self._key, self._range_end = key, range_end
        self._number = 0
        self._invalidations = 0
        self._released = False
        self._sent: dict[int, float] = {}

    def valid(self, now: float) -> bool:
        return now < self.until

    def current(self, copy: int, now: float, cluster_id: int = 0) -> bool:
        """Whether a copy of the revision `copy` of this cluster has everything that was acknowledged up to `now`."""
        return self.valid(now) and copy >= self.revision and cluster_id == self.cluster_id

    def ask(self, now: float) -> holdfast_pb2.CacheHoldRequest:
        """The request to send now: for a lease or more time, and to acknowledge what was invalidated."""
        self._number += 1
        self._sent[self._number] = now
        self._sent.pop(self._number - REMEMBERED, None)
        request = holdfast_pb2.CacheHoldRequest(number=self._number, acknowledged=self._invalidations)
        if self._number == 1:
            request.key, request.range_end = self._key, self._range_end
        return request

    def take(self, response: holdfast_pb2.CacheHoldResponse) -> bool:
        """Returns whether the response has to be acknowledged, by the next request."""
        if response.invalidations > self._invalidations:
            self.end()
            self._invalidations = response.invalidations
            return True
        sent = self._sent.get(response.number)
        if sent is not None and not self._released:
            self.lease = response.lease_ms / 1000
            self.revision, self.cluster_id = response.revision, response.cluster_id
            self.until = max(self.until, sent + self.lease)
        return False

    def end(self) -> None:
        """Do not use the copy until another lease is given."""
        self.until = -math.inf

    def release(self) -> None:
        """Do not use the copy any more, also if a lease arrives that was given before the leader hears of this."""
        self._released = True
        self.end()
