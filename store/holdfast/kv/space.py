"""The key space itself: one revision per mutating request, every version kept until compaction.

Changes are collected and become a revision at `commit`; reads see them before that. There is no rollback, because a
request is checked in full before its first change.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from sortedcontainers import SortedList

from holdfast.keyrange import bounds
from holdfast.kv import rows
from holdfast.kv.hashing import HistoryHash, RangeHash
from holdfast.kv.rows import Change, Current, Version
from holdfast.kv.scan import RangeScan, Row, newest_at, rows_at
from holdfast.kv.store import Family, Pending, Store
from holdfast.proto import rpc_pb2
from holdfast.status import COMPACTED, FUTURE_REVISION, RequestError

WALKED = 100  # keys that `walk` takes at once
WRITTEN = 4  # cost of a put or a deletion, in rows read

_REVISION = b"revision"
_COMPACTED = b"compacted"


class KeySpace:
    """Keys with their versions. Fresh at revision 1; the first write makes revision 2."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self.revision = _int(pending.get(Family.META, _REVISION), 1)
        self.compacted = _int(pending.get(Family.META, _COMPACTED), -1)
        self.live = SortedList()  # every live key, so that counting a range is two bisections
        self.leased: dict[int, set[bytes]] = {}
        self.looked_at = 0  # cost, in rows, of what requests examined and wrote in one go
        self._changes: list[Change] = []
        live: list[bytes] = []
        lease_at, no_lease = rows.LEASE_AT, rows.NO_LEASE
        for key, value in pending.scan(Family.CUR, b"", None):  # of all keys, at each start: a call each would cost
            live.append(key)
            if value[lease_at] != no_lease:
                self.leased.setdefault(rows.lease_of(value), set()).add(key)
        self.live.update(live)

    @property
    def store(self) -> Store:
        """The store that the rows are flushed to."""
        return self._pending.store

    @property
    def settled(self) -> bool:
        """Whether all changes have been flushed to the store."""
        return self._pending.empty

    # ---- reading -------------------------------------------------------------------------------------------

    @property
    def reading_revision(self) -> int:
        """The revision that reads see, including changes of the running transaction."""
        return self.revision + (1 if self._changes else 0)

    @property
    def history_from(self) -> int:
        """All changes from this revision on are here."""
        return self.compacted

    def get(self, key: bytes) -> Current | None:
        value = self._pending.get(Family.CUR, key)
        return None if value is None else rows.unpack_current(value)

    def count(self, start: bytes, end: bytes | None) -> int:
        stop = len(self.live) if end is None else self.live.bisect_left(end)
        return max(0, int(stop - self.live.bisect_left(start)))

    def keys(self, start: bytes, end: bytes | None) -> list[bytes]:
        return list(self.iterate(start, end))

    def iterate(self, start: bytes, end: bytes | None) -> Iterator[bytes]:
        """Live keys of a range in order. Nothing may change while this is iterated."""
        found: Iterator[bytes] = self.live.irange(start, end, inclusive=(True, False))
        return found

    def walk(self, start: bytes, end: bytes | None) -> Iterator[bytes]:
        """Like `iterate`, but changes meanwhile are allowed; keys added or removed by them may or may not be found."""
        while chunk := list(islice(self.iterate(start, end), WALKED)):
            yield from chunk
            start = chunk[-1] + b"\x00"

    def scan(self, request: rpc_pb2.RangeRequest) -> RangeScan:
        """Begin to answer a Range. Advance it once before anything else is applied: that fixes the view it reads."""
        revision = request.revision
        self.check_revision(revision)
        reader = self._pending
        if revision <= 0 or revision == self.reading_revision:
            start, end = bounds(request.key, request.range_end)
            return RangeScan(reader, request, revision=self.reading_revision, count=self.count(start, end))
        return RangeScan(reader, request, revision=revision, count=None)

    def scan_at(self, request: rpc_pb2.RangeRequest, revision: int) -> RangeScan:
        """Like `scan`, but reads at `revision` if the request names none, and may be advanced at any time as long as
        history from there on is not removed. Call `check_revision` before."""
        at = request.revision if request.revision > 0 else revision
        return RangeScan(self._pending, request, revision=at, count=None)

    def rows_at(self, start: bytes, end: bytes | None, revision: int) -> Iterator[Row | None]:
        """The rows of a range as of `revision`: see `scan.rows_at`."""
        return rows_at(self._pending, start, end, revision)

    def check_revision(self, revision: int, now: int | None = None) -> None:
        """`now`: the revision that is read at; None means the current one. Raises RequestError."""
        if revision > (self.reading_revision if now is None else now):
            raise RequestError(FUTURE_REVISION)
        if 0 < revision < self.compacted:
            raise RequestError(COMPACTED)

    # ---- changing ------------------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, lease: int) -> Current | None:
        """Write `key`. Returns its previous version."""
        before = self.get(key)
        main, sub = self.revision + 1, len(self._changes)
        create, version = (before.create, before.version + 1) if before else (main, 1)
        kv = rows.encode_kv(key, value, create, main, version, lease)
        self._write(key, Current(create, main, sub, version, lease, kv), before)
        return before

    def delete(self, key: bytes) -> Current | None:
        """Delete `key` if it exists. Returns its previous version."""
        before = self.get(key)
        if before is None:
            return None
        self._remove(key, before, self.revision + 1, len(self._changes))
        return before

    def _write(self, key: bytes, now: Current, before: Current | None) -> None:
        self._pending.put(Family.CUR, key, rows.pack_current(now))
        self._record(key, rows.PUT, now.mod, now.sub, now.kv, before)
        if before is None:
            self.live.add(key)
        elif before.lease and before.lease != now.lease:
            self._detach(before.lease, key)
        if now.lease:
            self.leased.setdefault(now.lease, set()).add(key)

    def _remove(self, key: bytes, before: Current | None, main: int, sub: int) -> None:
        self._pending.put(Family.CUR, key, None)
        self._record(key, rows.DELETE, main, sub, rows.encode_tombstone(key, main), before)
        if before is not None:
            self.live.remove(key)
            if before.lease:
                self._detach(before.lease, key)

    def _record(self, key: bytes, type_: int, main: int, sub: int, kv: bytes, before: Current | None) -> None:
        previous = (before.mod, before.sub) if before else rows.NO_REVISION
        self._pending.put(Family.REV, rows.revision_key(main, sub), rows.pack_revision(type_, previous, kv))
        self._pending.put(Family.IDX, rows.index_key(key, main, sub), b"\x01" if type_ == rows.DELETE else b"\x00")
        create = type_ == rows.PUT and before is None
        self.looked_at += WRITTEN
        self._changes.append(Change(key, type_, main, kv, create, before.kv if before else None))

    def _detach(self, lease: int, key: bytes) -> None:
        keys = self.leased.get(lease)
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self.leased[lease]

    def commit(self) -> list[Change]:
        """Make the changes since the last commit one revision, and return them. Without changes, use no revision."""
        changes = self._changes
        if changes:
            self.revision += 1
            self._changes = []
            self._pending.put(Family.META, _REVISION, self.revision.to_bytes(8, "big"))
        return changes

    # ---- compaction ----------------------------------------------------------------------------------------

    def compact(self, revision: int) -> None:
        """Make revisions below `revision` unreadable; it stays readable itself. Rows are removed later, in slices."""
        if revision <= self.compacted:
            raise RequestError(COMPACTED)
        if revision > self.revision:
            raise RequestError(FUTURE_REVISION)
        self.compacted = revision
        self._pending.put(Family.META, _COMPACTED, revision.to_bytes(8, "big", signed=True))

    def skip(self, pending: Pending, revisions: int) -> None:
        """Skip so many revisions, and compact everything before; live keys stay readable."""
        if revisions:
            self.revision += revisions
            self.compacted = self.revision
            pending.put(Family.META, _REVISION, self.revision.to_bytes(8, "big"))
            pending.put(Family.META, _COMPACTED, self.compacted.to_bytes(8, "big", signed=True))

    # ---- history -------------------------------------------------------------------------------------------

    def history(self, start: int, end: int, sub: int = 0) -> Iterator[tuple[Change, int, Version]]:
        """The changes of revisions start..end in order, each without its previous value, its number in its revision,
        and the version that has the previous value, for `previous`. Of `start` the changes from number `sub` on. The
        caller must refuse a compacted `start`. Nothing may change while this is iterated."""
        for row, value in self._pending.scan(Family.REV, rows.revision_key(start, sub), rows.revision_key(end + 1)):
            revision, number = rows.unpack_revision_key(row)
            type_, before, kv = rows.unpack_revision(value)
            create = type_ == rows.PUT and before == rows.NO_REVISION
            yield Change(rows.key_of(kv), type_, revision, kv, create, None), number, before

    def previous(self, key: bytes, version: Version) -> bytes | None:
        """The serialised KeyValue of this version of `key`; None if there is none, or it is compacted."""
        row = self._pending.get(Family.REV, rows.revision_key(*version)) if version != rows.NO_REVISION else None
        if row is None:
            return None
        # The newest version before the compacted revision is still readable; older ones are removed at any time.
        if version[0] < self.compacted and newest_at(self._pending, key, self.compacted) != version:
            return None
        return rows.unpack_revision(row)[2]

    def hash(self, revision: int) -> HistoryHash:
        """Begin to hash all history up to `revision`; 0 means the current one. Raises RequestError."""
        self.check_revision(revision)
        return HistoryHash(self._pending, revision if revision > 0 else self.revision, self.compacted)

    def hash_range(self, start: bytes, end: bytes | None, revision: int) -> RangeHash:
        """Begin to hash the live keys of a range at `revision`; 0 means the current one. Advance it once before
        anything else is applied. Raises RequestError."""
        self.check_revision(revision)
        at = revision or self.revision
        return RangeHash(self._pending, start, end, at, newest=at == self.revision)


def _int(value: bytes | None, default: int) -> int:
    return default if value is None else int.from_bytes(value, "big", signed=True)
