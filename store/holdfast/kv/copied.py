"""The key space of an edge replica: a copy of the keys with its prefixes, with the revisions of the original.

It has the same rows as the original, so that everything that reads a key space can read a copy. Its owner has to store
up to which revision the copy is complete, together with the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.keyrange import Range
from holdfast.kv import rows
from holdfast.kv.rows import Change, Current
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, Pending
from holdfast.proto import kv_pb2
from holdfast.raft.invariant import invariant

PART_SUB = 1 << 20  # more than a revision has changes


class CopiedSpace(KeySpace):
    """A copy that is complete up to `revision`, readable from `floor` on, and has all changes from `history_from` on.

    If it began with a snapshot of revision R, it can be read at R, but lacks the deletions of R: these left no key."""

    def __init__(self, pending: Pending, revision: int, floor: int, history_from: int) -> None:
        super().__init__(pending)
        self.revision = max(revision, 1)
        self.compacted = floor or -1
        self._history_from = history_from

    @property
    def history_from(self) -> int:
        return max(self._history_from, self.compacted)

    def apply(self, revision: int, events: Iterable[kv_pb2.Event]) -> list[Change]:
        """Apply a later revision: all of its changes that concern this copy. Returns them."""
        self.reach(revision)
        for sub, event in enumerate(events):
            self._take(event, revision, sub)
        changes, self._changes = self._changes, []
        return changes

    def reach(self, revision: int) -> None:
        """The copy is complete up to `revision`: no further changes up to there concern it."""
        invariant(revision >= self.revision, f"revision {revision} comes after {self.revision}")
        self.revision = revision

    def begins_at(self, floor: int, history_from: int) -> None:
        """It is readable from `floor` on, and has all changes from `history_from` on."""
        self.compacted, self._history_from = floor or -1, history_from

    def forget(self, revision: int) -> None:
        """Make revisions below `revision` unreadable; it stays readable itself. Rows are removed later, in slices."""
        invariant(self.compacted <= revision <= self.revision, "a floor out of what is here")
        self.compacted = revision

    def take_part(self, low: bytes, high: bytes | None, kvs: Sequence[kv_pb2.KeyValue]) -> None:
        """Replace the keys of this range by those of a snapshot, which are in order. See `load_part`."""
        for key in self.keys(low, high):
            before = self.get(key)
            self.live.remove(key)
            if before is not None and before.lease:
                self._detach(before.lease, key)
        load_part(self._pending, [(low, high)], kvs)
        self.live.update(kv.key for kv in kvs)
        for kv in kvs:
            if kv.lease:
                self.leased.setdefault(kv.lease, set()).add(kv.key)

    def _take(self, event: kv_pb2.Event, revision: int, sub: int) -> None:
        kv = event.kv
        before = self.get(kv.key)
        if event.type == kv_pb2.Event.DELETE:
            self._remove(kv.key, before, revision, sub)
        else:
            now = Current(kv.create_revision, revision, sub, kv.version, kv.lease, kv.SerializeToString())
            self._write(kv.key, now, before)


def load(pending: Pending, kvs: Iterable[kv_pb2.KeyValue]) -> None:
    """Replace all keys here by the key-values of a snapshot, which has one version of each."""
    for family in (Family.CUR, Family.REV, Family.IDX):
        for key, _ in list(pending.scan(family, b"", None)):
            pending.put(family, key, None)
    _put_all(pending, kvs, 0)


def load_part(pending: Pending, ranges: Iterable[Range], kvs: Iterable[kv_pb2.KeyValue]) -> None:
    """Replace the keys of these ranges by those of a snapshot. Others stay, and changes of others in the same revisions
    may follow."""
    for low, high in ranges:
        remove(pending, low, high)
    _put_all(pending, kvs, PART_SUB)


def remove(pending: Pending, low: bytes, high: bytes | None) -> None:
    """Remove the keys of a range with their history: they are not deleted, they are not here any more."""
    end = None if high is None else rows.escape(high)
    for row, _ in list(pending.scan(Family.IDX, rows.escape(low), end)):
        _, revision, sub = rows.unpack_index_key(row)
        pending.put(Family.REV, rows.revision_key(revision, sub), None)
        pending.put(Family.IDX, row, None)
    for key, _ in list(pending.scan(Family.CUR, low, high)):
        pending.put(Family.CUR, key, None)


def _put_all(pending: Pending, kvs: Iterable[kv_pb2.KeyValue], first_sub: int) -> None:
    subs: dict[int, int] = {}
    for kv in kvs:
        # A key-value does not contain its sub; counting in key order gives one that is unique within its revision.
        revision = kv.mod_revision
        sub = subs.get(revision, first_sub - 1) + 1
        while first_sub and pending.get(Family.REV, rows.revision_key(revision, sub)) is not None:
            sub += 1  # another part that arrived before has keys of this revision
        subs[revision] = sub
        data = kv.SerializeToString()
        row = Current(kv.create_revision, revision, sub, kv.version, kv.lease, data)
        pending.put(Family.CUR, kv.key, rows.pack_current(row))
        packed = rows.pack_revision(rows.PUT, rows.NO_REVISION, data)
        pending.put(Family.REV, rows.revision_key(revision, sub), packed)
        pending.put(Family.IDX, rows.index_key(kv.key, revision, sub), b"\x00")
