"""A key space that is a copy of another one: its changes were made there, and come with their revisions.

A replica holds one for the keys of its prefixes. It has the same rows as the original, so that everything that reads a
key space reads a copy in the same way. Which revision it is complete to is its owner's to keep, together with the rows.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.kv import rows
from holdfast.kv.rows import Change, Current
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, Pending
from holdfast.proto import kv_pb2
from holdfast.raft.invariant import invariant


class CopiedSpace(KeySpace):
    """A copy that is complete up to `revision` and readable from `floor` on."""

    def __init__(self, pending: Pending, revision: int, floor: int) -> None:
        super().__init__(pending)
        self.revision = max(revision, 1)
        self.compacted = floor or -1

    def apply(self, revision: int, events: Iterable[kv_pb2.Event]) -> list[Change]:
        """Make all changes of a later revision that concern this copy. Returns them."""
        self.reach(revision)
        for sub, event in enumerate(events):
            self._take(event, revision, sub)
        changes, self._changes = self._changes, []
        return changes

    def reach(self, revision: int) -> None:
        """No revision up to this one has further changes that concern this copy."""
        invariant(revision >= self.revision, f"revision {revision} comes after {self.revision}")
        self.revision = revision

    def forget(self, revision: int) -> None:
        """Give up what is older than `revision`, which itself stays readable. Rows are removed later, in slices."""
        invariant(self.compacted <= revision <= self.revision, "a floor out of what is here")
        self.compacted = revision

    def _take(self, event: kv_pb2.Event, revision: int, sub: int) -> None:
        kv = event.kv
        before = self.get(kv.key)
        if event.type == kv_pb2.Event.DELETE:
            self._remove(kv.key, before, revision, sub)
        else:
            now = Current(kv.create_revision, revision, sub, kv.version, kv.lease, kv.SerializeToString())
            self._write(kv.key, now, before)


def load(pending: Pending, kvs: Iterable[kv_pb2.KeyValue]) -> None:
    """Put the key-values of a snapshot in the place of all keys that are here, with the one version of each that came
    along."""
    for family in (Family.CUR, Family.REV, Family.IDX):
        for key, _ in list(pending.scan(family, b"", None)):
            pending.put(family, key, None)
    subs: dict[int, int] = {}
    for kv in kvs:
        # The sub is not in a key-value; the order of the keys makes one that is unique within its revision.
        revision = kv.mod_revision
        sub = subs[revision] = subs.get(revision, -1) + 1
        data = kv.SerializeToString()
        row = Current(kv.create_revision, revision, sub, kv.version, kv.lease, data)
        pending.put(Family.CUR, kv.key, rows.pack_current(row))
        packed = rows.pack_revision(rows.PUT, rows.NO_REVISION, data)
        pending.put(Family.REV, rows.revision_key(revision, sub), packed)
        pending.put(Family.IDX, rows.index_key(kv.key, revision, sub), b"\x00")
