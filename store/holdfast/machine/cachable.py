"""The prefixes whose keys clients may cache consistently (Chubby, section 2.7), kept as rows of the state.

Which prefixes these are has to be known to a new leader before it appends anything: leases that an earlier leader has
given may still last (`holdfast.member.cache_leases`). Therefore they are declared through the log, and no client can
slow down the writes of a prefix that nobody has declared.
"""

from __future__ import annotations

from holdfast.keyrange import Range, bounds, prefix_end
from holdfast.kv.store import Family, Pending
from holdfast.machine import rows
from holdfast.proto import raft_pb2
from holdfast.status import Code, Refusal, RequestError

MAX_PREFIXES = 16
MAX_PREFIX_BYTES = 1024


def prefix_range(prefix: bytes) -> Range:
    return bounds(prefix, prefix_end(prefix))


class Cachable:
    """The declared prefixes. No two of them have a key in common."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        found = pending.scan(Family.META, rows.CACHABLE, prefix_end(rows.CACHABLE))
        self.prefixes: set[bytes] = {key[len(rows.CACHABLE) :] for key, _ in found}

    def change(self, change: raft_pb2.CachablePrefix) -> bool:
        """Declare a prefix, or take it back. Returns whether that changed anything. Raises RequestError."""
        prefix = change.prefix
        if not change.allowed:
            if prefix not in self.prefixes:
                return False
            self.prefixes.discard(prefix)
            self._pending.put(Family.META, rows.CACHABLE + prefix, None)
            return True
        if prefix in self.prefixes:
            return False
        self._check(prefix)
        self.prefixes.add(prefix)
        self._pending.put(Family.META, rows.CACHABLE + prefix, b"")
        return True

    def _check(self, prefix: bytes) -> None:
        if not 0 < len(prefix) <= MAX_PREFIX_BYTES:
            raise RequestError(_invalid(f"a cachable prefix of {len(prefix)} bytes: it has 1 to {MAX_PREFIX_BYTES}"))
        for other in sorted(self.prefixes):
            if prefix.startswith(other) or other.startswith(prefix):
                raise RequestError(_invalid(f"the cachable prefixes {prefix!r} and {other!r} have keys in common"))
        if len(self.prefixes) >= MAX_PREFIXES:
            raise RequestError(_invalid(f"there are {MAX_PREFIXES} cachable prefixes already, which is the most"))


def _invalid(what: str) -> Refusal:
    return Refusal(Code.INVALID_ARGUMENT, f"holdfast: {what}")
