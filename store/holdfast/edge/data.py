"""The data of a replica in one store: which ranges it holds, and the position up to which they are complete.

A range is lacking; or held since revision S, and not shown while the watermark is before S; or shown.

- What is shown is what the cluster had, at every revision from the floor to the watermark.
- Rows, ranges and position change in one batch, so a power cut changes nothing about that.
- Outside the ranges that are held there are no rows: changes of what is lacking are left out, because the snapshot that
  brings it has them.
- Each chunk of a snapshot is held as soon as it has come. If the snapshot breaks off, the changes since are applied to
  what is held before the rest comes, so a key that was deleted between two parts goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

from holdfast.edge.filling import crc_of
from holdfast.edge.history import CHANGE_BYTES, History
from holdfast.edge.holding import Holding, joined, without
from holdfast.edge.lineage import Lineage
from holdfast.keyrange import Range, bounds, within
from holdfast.kv.copied import CopiedSpace, load, load_part, remove
from holdfast.kv.rows import Change
from holdfast.kv.store import Family, Pending, Store, StoreBusy
from holdfast.proto import holdfast_pb2, kv_pb2

_POSITION = b"replica/position"
_HOLDING = b"replica/holding"
_NOTES, _AFTER_NOTES = b"replica/", b"replica0"
_NUMBERS_0_1 = 6  # of a position that version 0.1 stored


class BrokenUpstream(Exception):
    """The upstream violates the protocol."""


@dataclass(frozen=True, slots=True)
class Position:
    """What a replica has: complete up to revision `watermark`, readable from revision `floor` on, with all changes from
    `history_from` on, which take `history_bytes`."""

    cluster_id: int = 0
    epoch: int = 0
    watermark: int = 0
    floor: int = 0
    term: int = 0
    filter_version: int = 0
    history_from: int = 0
    history_bytes: int = 0
    first_cluster: int = 0
    restored_from: int = 0
    parent: int = 0

    @staticmethod
    def began(hello: holdfast_pb2.FollowHello, revision: int) -> Position:
        """With a snapshot of this revision."""
        return Position(
            cluster_id=hello.cluster_id,
            epoch=hello.epoch,
            watermark=revision,
            floor=revision,
            term=hello.term,
            filter_version=hello.filter_version,
            history_from=revision + 1,  # a snapshot lacks the deletions of its revision
            first_cluster=hello.lineage,
            restored_from=hello.restored_from,
            parent=hello.parent,
        )

    @property
    def lineage(self) -> Lineage:
        return Lineage.of(self.cluster_id, self.epoch, self.first_cluster, self.restored_from, self.parent)


class ReplicaData:
    """What is in one store. `core` feeds frames in."""

    def __init__(self, store: Store, intervals: Sequence[Range], filter_version: int) -> None:
        self.store = store
        self._filter_version = filter_version
        self.intervals = list(intervals)
        self._pending = Pending(store)
        self.position = position_in(store)
        self._holding = self._narrow(self._held())
        if self._holding.parts and store.get(Family.META, _HOLDING) is None:  # a directory of version 0.1
            self._note_holding(self._holding)
            self._flush()
        self.shown: list[Range] = []  # the ranges that are complete at the watermark
        self._show()
        self.space = self._copy()
        self._history = History(self.position.history_bytes, self.position.watermark)
        self.written = 0  # counts changes, which have to be made durable
        self._unsaved = False  # the watermark moved without a change, which is not stored at once

    def _copy(self) -> CopiedSpace:
        p = self.position
        return CopiedSpace(self._pending, p.watermark, p.floor, p.history_from)

    def _held(self) -> Holding:
        """What the store has, also of earlier prefixes."""
        data = self.store.get(Family.META, _HOLDING)
        if data is not None:
            return Holding.read(data)
        # Version 0.1 did not store it, but which filter it was.
        known = self.position.watermark > 0 and self.position.filter_version == self._filter_version
        return Holding.of(self.intervals) if known else Holding()

    def _narrow(self, held: Holding) -> Holding:
        """Give up what belongs to the prefixes no more. That is noted before the rows are removed: of what is left of
        them after a crash nothing is shown, and a snapshot replaces it."""
        kept = held.narrowed(self.intervals)
        gone = without([(part.low, part.high) for part in held.parts], self.intervals)
        if gone:
            self._note_holding(kept)
            self._flush()
            for low, high in gone:
                remove(self._pending, low, high)
            self._flush()
        return kept

    def _note_holding(self, holding: Holding) -> None:
        """It is stored when it changes, not with each change of a key."""
        self._pending.put(Family.META, _HOLDING, holding.message().SerializeToString())

    def _show(self) -> None:
        watermark = self.position.watermark
        self.shown = self._holding.shown(watermark) if watermark else []

    # ---- what is here --------------------------------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Whether all prefixes are complete at the watermark."""
        return self.shown == self.intervals

    @property
    def lacking(self) -> list[Range]:
        """What of the prefixes is not here at all."""
        return self._holding.lacking(self.intervals)

    @property
    def pending(self) -> Pending:
        return self._pending

    @property
    def held(self) -> holdfast_pb2.HeldRanges:
        return self._holding.message()

    def take_notes(self, other: ReplicaData) -> None:
        """Keep what the other one keeps besides its data (`edge.notes`), and nothing that an earlier attempt took."""
        mine = [name for name, _ in self._pending.scan(Family.META, _NOTES, _AFTER_NOTES)]
        notes = dict(other.pending.scan(Family.META, _NOTES, _AFTER_NOTES))
        for name in {*mine, *notes} - {_POSITION, _HOLDING}:
            self._pending.put(Family.META, name, notes.get(name))
        self._flush()

    # ---- snapshots -----------------------------------------------------------------------------------------

    def take(self, chunk: holdfast_pb2.FollowChunk, hello: holdfast_pb2.FollowHello) -> None:
        """Hold what a chunk covers. It is shown once the watermark has reached its revision, which may be now. Raises
        BrokenUpstream."""
        low, high = _checked(chunk)
        if without([(low, high)], self.lacking):
            raise BrokenUpstream("the upstream sent other ranges than this replica lacks")
        if chunk.revision < self.position.watermark:
            raise BrokenUpstream(
                f"the upstream sent part of revision {chunk.revision}, which is older than what is here"
            )
        self.space.take_part(low, high, chunk.kvs)
        self._holding = self._holding.with_([(low, high)], chunk.revision)
        self._note_holding(self._holding)
        position = self.position if self.position.watermark else Position.began(hello, chunk.revision)
        self._write(self._arrive(position))
        self.space.reach(self.position.watermark)
        self.space.begins_at(self.position.floor, self.position.history_from)

    def replace(self, kvs: Sequence[kv_pb2.KeyValue], position: Position) -> None:
        """Replace everything by a snapshot that came as a whole."""
        load(self._pending, kvs)
        self._holding = Holding.of(self.intervals)
        self._note_holding(self._holding)
        self._write(position)
        self.space = self._copy()
        self._history = History()

    def add(self, ranges: Sequence[Range], kvs: Sequence[kv_pb2.KeyValue], revision: int) -> None:
        """Hold these ranges, of which a snapshot came as a whole. They are shown once the watermark has reached its
        revision. Raises BrokenUpstream."""
        if joined(ranges) != self.lacking:
            raise BrokenUpstream("the upstream sent other ranges than this replica lacks")
        load_part(self._pending, ranges, kvs)
        self._holding = self._holding.with_(ranges, revision)
        self._note_holding(self._holding)
        self._write(self._arrive(self.position))
        self.space = self._copy()

    def _arrive(self, position: Position) -> Position:
        """The position when the watermark has reached it: of parts that have arrived there is no older history."""
        since = self._holding.arrived(position.watermark)
        if since:
            self._show()
            self._note_holding(self._holding)
        if since <= position.floor:
            return position
        return replace(position, floor=since, history_from=max(position.history_from, since + 1))

    # ---- changes -------------------------------------------------------------------------------------------

    def revision(self, frame: holdfast_pb2.FollowRevision) -> list[Change]:
        """Apply one revision and return its changes. A revision already applied is ignored and has no changes. Raises
        BrokenUpstream if a change before it is missing."""
        watermark = self.position.watermark
        if frame.revision <= watermark:
            return []
        if frame.previous > watermark:
            raise BrokenUpstream(f"the changes of revisions {watermark + 1} to {frame.previous} were left out")
        events = [e for e in frame.events if self._holding.takes(e.kv.key, frame.revision)]
        changes = self.space.apply(frame.revision, events)
        self._history.add(frame.revision, sum(CHANGE_BYTES + len(change.kv) for change in changes))
        moved = replace(self.position, watermark=frame.revision, term=frame.term, history_bytes=self._history.bytes)
        self._write(self._arrive(moved))
        self.space.begins_at(self.position.floor, self.position.history_from)
        return changes

    def progress(self, frame: holdfast_pb2.FollowProgress) -> bool:
        """Note that no more changes come up to this revision. Returns whether the watermark moved.

        It is stored with the next change, or by `save`: a replica that starts again at an older watermark has the same
        keys, and a quiet filter costs no writes."""
        if frame.revision <= self.position.watermark:
            return False
        self.space.reach(frame.revision)
        moved = replace(self.position, watermark=frame.revision, term=frame.term)
        arrived = self._arrive(moved)
        if arrived != moved:
            self._write(arrived)
            self.space.begins_at(arrived.floor, arrived.history_from)
            return True
        self.position = moved
        self._unsaved = True
        return True

    def save(self) -> None:
        """Store a watermark that moved without a change."""
        if self._unsaved:
            self._store_position()

    def give_up(self, ranges: Sequence[Range]) -> None:
        """These are not as they should be: they are not shown any more, and count as not here. A snapshot replaces
        them."""
        self._holding = self._holding.narrowed(without(self.intervals, ranges))
        for low, high in ranges:
            self.space.take_part(low, high, ())
        self._note_holding(self._holding)
        self._write(self.position)

    def forget_history(self) -> None:
        """Compact history that is too much. Pruning removes its rows later."""
        floor = self._history.forget()
        if floor > self.position.floor:
            self.space.forget(floor)
            self._write(replace(self.position, floor=floor, history_bytes=self._history.bytes))

    # ---- the store -----------------------------------------------------------------------------------------

    def _write(self, position: Position) -> None:
        """Store what is pending, together with the position that it leads to."""
        self.position = position
        self._show()
        self.written += 1
        self._store_position()

    def _store_position(self) -> None:
        # Version 0.1 takes all that its filter names for complete.
        position = replace(self.position, filter_version=self._filter_version if self.whole else 0)
        self._pending.put(Family.META, _POSITION, b"".join(n.to_bytes(8, "big") for n in astuple(position)))
        self._unsaved = False
        self._flush()

    @property
    def stalled(self) -> bool:
        """Whether the store has refused the last write. The write stays pending, and reads see it, but it would be lost
        with the process: pass in no more frames until `settle` succeeds."""
        return not self._pending.empty

    def settle(self) -> bool:
        """Retry a pending write. Returns whether the store has everything now."""
        self._flush()
        return not self.stalled

    def _flush(self) -> None:
        with contextlib.suppress(StoreBusy):  # reported by `stalled`
            self._pending.flush()


def _checked(chunk: holdfast_pb2.FollowChunk) -> Range:
    """The range that the chunk covers. Raises BrokenUpstream if the chunk contradicts itself."""
    low, high = bounds(chunk.range.key, chunk.range.range_end)
    if high is not None and low >= high:
        raise BrokenUpstream("the upstream sent a part of a snapshot that covers nothing")
    last = None
    for kv in chunk.kvs:
        if not within(kv.key, low, high) or (last is not None and kv.key <= last) or kv.mod_revision > chunk.revision:
            raise BrokenUpstream(f"the upstream sent {kv.key[:100]!r} in a part of a snapshot where it cannot be")
        last = kv.key
    if crc_of(kv.SerializeToString() for kv in chunk.kvs) != chunk.hash:
        raise BrokenUpstream("the upstream sent a part of a snapshot that does not match its hash")
    return low, high


def position_in(store: Store | Pending) -> Position:
    """The position of the data that a replica keeps in this store; of none if it keeps none there."""
    data = store.get(Family.META, _POSITION)
    if data is None:
        return Position()
    numbers = [int.from_bytes(data[i : i + 8], "big") for i in range(0, len(data), 8)]
    if len(numbers) == _NUMBERS_0_1:
        # Version 0.1 did not say where the history begins. That its floor came from a snapshot is possible.
        numbers += [numbers[3] + 1, 0]
    return Position(*numbers)


def note_position(pending: Pending, position: Position, ranges: Sequence[Range]) -> None:
    """The rows here, which were changed here, are a copy from now on: of these ranges, whole, at this position."""
    pending.put(Family.META, _POSITION, b"".join(n.to_bytes(8, "big") for n in astuple(position)))
    pending.put(Family.META, _HOLDING, Holding.of(ranges).message().SerializeToString())


def forget_position(pending: Pending) -> None:
    """The rows here are not a copy any more: they are changed here."""
    for name, _ in list(pending.scan(Family.META, _NOTES, _AFTER_NOTES)):
        pending.put(Family.META, name, None)
