"""The true history of the keys: every revision, as the first member to apply it applied it.

Reads of one member at one revision, and watches, are checked against this history. That the history itself is correct
is checked by the invariants of the log and by the linearizability of the clients' history.
"""

from __future__ import annotations

from bisect import bisect_right

from holdfast.kv.rows import PUT, Change

from holdfast_lab.sim.violation import Violation, check


class Oracle:
    """Every change in order. Revision 1 is the empty store."""

    def __init__(self) -> None:
        self.events: list[Change] = []
        self._starts: list[int] = [0, 0]  # position of the first event of each revision
        self._versions: dict[bytes, tuple[list[int], list[bytes | None]]] = {}

    @property
    def revision(self) -> int:
        return len(self._starts) - 1

    def learn(self, changes: list[Change], member: int) -> None:
        """`member` has applied these changes as one revision."""
        revision = changes[0].revision
        if revision <= self.revision:
            known = self.events[self._starts[revision] : self._end(revision)]
            check(known == changes, "I5", f"{member:x} made revision {revision} of {changes}, others of {known}")
            return
        check(revision == self.revision + 1, "I15", f"{member:x} made revision {revision} after {self.revision}")
        self._starts.append(len(self.events))
        self.events += changes
        for change in changes:
            revisions, values = self._versions.setdefault(change.key, ([], []))
            revisions.append(revision)
            values.append(change.kv if change.type == PUT else None)

    def _end(self, revision: int) -> int:
        return self._starts[revision + 1] if revision < self.revision else len(self.events)

    def position(self, revision: int) -> int:
        """The number of events up to `revision`."""
        return self._end(min(revision, self.revision))

    def value(self, key: bytes, revision: int) -> bytes | None:
        """The serialised KeyValue of `key` at `revision`."""
        known = self._versions.get(key)
        if known is None:
            return None
        at = bisect_right(known[0], revision)
        return known[1][at - 1] if at else None

    def range(self, start: bytes, end: bytes | None, revision: int) -> list[bytes]:
        """The correct answer to a Range over [start, end) at `revision`."""
        keys = sorted(k for k in self._versions if k >= start and (end is None or k < end))
        return [kv for k in keys if (kv := self.value(k, revision)) is not None]

    def check_range(self, what: str, start: bytes, end: bytes | None, revision: int, seen: list[bytes]) -> None:
        if revision > self.revision:
            raise Violation("I15", f"{what} is at revision {revision}, nobody has made more than {self.revision}")
        right = self.range(start, end, revision)
        check(seen == right, "I10", f"{what} at revision {revision} saw {seen}, not {right}")
