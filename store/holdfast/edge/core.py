"""The state of a replica, without I/O: the position at which it is complete, and the effect of each received frame.

States: EMPTY (no data yet), LOADING (a snapshot is being received and not used yet), COMPLETE at the watermark.
Data and watermark are written in one batch, so they are consistent after a crash. Absence is never taken for deletion:
keys are removed only by a tombstone, or by a snapshot whose trailer confirms what was in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from enum import Enum

import google_crc32c

from holdfast.edge.history import CHANGE_BYTES, History
from holdfast.edge.holding import Holding, joined, without
from holdfast.edge.lineage import Lineage, Relation
from holdfast.edge.notes import Notes
from holdfast.edge.rights import FollowedRights
from holdfast.keyrange import Range, bounds, prefix_end
from holdfast.kv.copied import CopiedSpace, load, load_part, remove
from holdfast.kv.rows import Change
from holdfast.kv.store import Family, Pending, Store, StoreBusy
from holdfast.proto import holdfast_pb2, kv_pb2

_POSITION = b"replica/position"
_FILTER = b"replica/filter"
_HOLDING = b"replica/holding"
_NUMBERS_0_1 = 6  # of a position that version 0.1 stored


class WrongCluster(Exception):
    """The upstream member belongs to a different cluster than the replica's data."""


class EarlierEpoch(Exception):
    """The upstream has the history before a restore that the replica's data is from after."""


class BrokenUpstream(Exception):
    """The upstream violates the protocol."""


class Loop(Exception):
    """The upstream follows this replica, directly or through others."""


class Loaded(Enum):
    """What became of a snapshot."""

    REFUSED = "refused"  # it is not whole, or older than what is here
    CONTINUES = "continues"  # it is a later state of what was here
    ANOTHER_HISTORY = "another history"  # of the cluster after a restore


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

    @property
    def lineage(self) -> Lineage:
        return Lineage.of(self.cluster_id, self.epoch, self.first_cluster, self.restored_from)


def filter_version(ranges: Sequence[holdfast_pb2.KeyRange]) -> int:
    """A number that identifies the filter. Data received with another filter is not complete for this one."""
    text = b"".join(r.SerializeToString(deterministic=True) for r in sorted(ranges, key=lambda r: (r.key, r.range_end)))
    return google_crc32c.value(text) or 1


class ReplicaCore:
    """The replica's data with its position. The driver feeds frames in and serves from `space`."""

    def __init__(self, store: Store, ranges: Sequence[holdfast_pb2.KeyRange], node: int = 0) -> None:
        """`node`: the volume id of this replica."""
        self._store = store
        self.node = node
        self.path = self._end_of_path()
        self.ranges = list(ranges)
        self.filter_version = filter_version(ranges)
        self.intervals: list[Range] = joined(bounds(r.key, r.range_end) for r in ranges)
        self._pending = Pending(store)
        self.position = _load(store)
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
        self._loading: list[kv_pb2.KeyValue] | None = None
        self._loading_crc = 0
        self._hello: holdfast_pb2.FollowHello | None = None
        self.notes = Notes(self._pending)
        self.rights = FollowedRights(self.notes)

    def _copy(self) -> CopiedSpace:
        p = self.position
        return CopiedSpace(self._pending, p.watermark, p.floor, p.history_from)

    def _held(self) -> Holding:
        """What the store has, also of earlier prefixes."""
        data = self._store.get(Family.META, _HOLDING)
        if data is not None:
            return Holding.read(data)
        # Version 0.1 did not store it, but which filter it was.
        known = self.position.watermark > 0 and self.position.filter_version == self.filter_version
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
    def complete(self) -> bool:
        """Whether there is data to serve, of all prefixes or of some."""
        return bool(self.shown)

    @property
    def whole(self) -> bool:
        """Whether all prefixes are served."""
        return self.shown == self.intervals

    @property
    def lacking(self) -> list[Range]:
        """What of the prefixes is not here at all."""
        return self._holding.lacking(self.intervals)

    def covers(self, start: bytes, end: bytes | None) -> bool:
        """Whether every key of [start, end) is complete here."""
        return _within(start, end, self.shown)

    def wants(self, start: bytes, end: bytes | None) -> bool:
        """Whether every key of [start, end) belongs to the prefixes."""
        return _within(start, end, self.intervals)

    def start(self, replica: str, pool: str) -> holdfast_pb2.FollowStart:
        """The first message to an upstream: what the replica has and what it wants."""
        p = self.position
        start = holdfast_pb2.FollowStart(
            cluster_id=p.cluster_id,
            epoch=p.epoch,
            lineage=p.lineage.first,
            rights=True,
            filter=self.ranges,
            filter_version=self.filter_version,
            replica=replica,
            pool=pool,
        )
        if not self.lacking:
            start.watermark = p.watermark
        else:
            start.held.CopyFrom(self._holding.message())
            start.held_watermark = p.watermark
        return start

    # ---- frames --------------------------------------------------------------------------------------------

    @property
    def superseded(self) -> bool:
        """Whether the cluster was restored, and its snapshot is not here yet."""
        here, hello = self.position.lineage, self._hello
        return hello is not None and here.cluster_id != 0 and lineage_of(hello).relation(here) is Relation.LATER

    def _check_lineage(self, hello: holdfast_pb2.FollowHello) -> None:
        here, there = self.position.lineage, lineage_of(hello)
        if not here.cluster_id:
            return
        relation = there.relation(here)
        if relation is Relation.FOREIGN:
            raise WrongCluster(
                f"the data here is of cluster {here.cluster_id:x}, the upstream is of {there.cluster_id:x}"
            )
        if relation is Relation.EARLIER:
            raise EarlierEpoch(f"it is of epoch {there.epoch}, and a restore has begun epoch {here.epoch}")
        if relation is Relation.LATER and (hello.partial or not hello.snapshot):
            raise BrokenUpstream("the upstream continues across a restore")

    def hello(self, hello: holdfast_pb2.FollowHello) -> None:
        self._check_lineage(hello)
        if hello.filter_version != self.filter_version:
            raise BrokenUpstream("the upstream answered for a different filter than requested")
        self.follows(hello.path)  # version 0.1 says none; there, only members have followers
        self._hello = hello
        self.rights.greeted(hello)
        self._loading = [] if hello.snapshot else None
        self._loading_crc = 0

    def take_rights(self, rights: holdfast_pb2.FollowRights) -> None:
        """Users and roles have changed."""
        self.rights.take(rights)

    def follows(self, path: holdfast_pb2.FollowPath) -> None:
        """The upstream is at the end of this path. Raises Loop."""
        if self.node in path.nodes:
            raise Loop("it follows this replica itself")
        self.path = holdfast_pb2.FollowPath(nodes=[self.node, *path.nodes], cut_off=path.cut_off)

    def left(self) -> None:
        """It follows no upstream any more."""
        if len(self.path.nodes) > 1:
            self.path = self._end_of_path()

    def _end_of_path(self) -> holdfast_pb2.FollowPath:
        return holdfast_pb2.FollowPath(nodes=[self.node], cut_off=True)

    def chunk(self, chunk: holdfast_pb2.FollowChunk) -> None:
        if self._loading is None:
            raise BrokenUpstream("the upstream sent part of a snapshot that it had not announced")
        for kv in chunk.kvs:
            self._loading_crc = google_crc32c.extend(self._loading_crc, kv.SerializeToString())
            self._loading.append(kv)

    def trailer(self, trailer: holdfast_pb2.FollowTrailer) -> Loaded:
        """End a snapshot: replace the data by it if it matches the trailer and is not older."""
        if self._hello is None or self._loading is None:
            raise BrokenUpstream("the upstream ended a snapshot that it had not announced")
        loading, self._loading = self._loading, None
        hello, p = self._hello, self.position
        whole = len(loading) == trailer.count and self._loading_crc == trailer.hash
        superseded = self.superseded
        older = not superseded and trailer.revision < p.watermark
        if not whole or older or trailer.filter_version != self.filter_version:
            return Loaded.REFUSED
        if hello.partial:
            self._take_part(trailer, loading)
            return Loaded.CONTINUES
        load(self._pending, loading)
        self._holding = Holding.of(self.intervals)
        self._note_holding(self._holding)
        self._write(
            Position(
                cluster_id=hello.cluster_id,
                epoch=hello.epoch,
                watermark=trailer.revision,
                floor=trailer.revision,
                term=hello.term,
                filter_version=self.filter_version,
                history_from=trailer.revision + 1,  # a snapshot lacks the deletions of its revision
                first_cluster=hello.lineage,
                restored_from=hello.restored_from,
            )
        )
        self.space = self._copy()
        self._history = History()
        return Loaded.ANOTHER_HISTORY if superseded else Loaded.CONTINUES

    def _take_part(self, trailer: holdfast_pb2.FollowTrailer, loading: list[kv_pb2.KeyValue]) -> None:
        """Add what was lacking. It is shown once the watermark has reached its revision, which may be now."""
        ranges = [bounds(r.key, r.range_end) for r in trailer.filter]
        if joined(ranges) != self.lacking:
            raise BrokenUpstream("the upstream sent other ranges than this replica lacks")
        load_part(self._pending, ranges, loading)
        self._holding = self._holding.with_(ranges, trailer.revision)
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

    def revision(self, frame: holdfast_pb2.FollowRevision) -> list[Change]:
        """Apply one revision and return its changes. A revision already applied is ignored and has no changes. Raises
        BrokenUpstream if a change before it is missing."""
        watermark = self.position.watermark
        if frame.revision <= watermark:
            return []
        if frame.previous > watermark:
            raise BrokenUpstream(f"the changes of revisions {watermark + 1} to {frame.previous} were left out")
        events = [e for e in frame.events if not self._holding.has(e.kv.key, frame.revision)]
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

    def _write(self, position: Position) -> None:
        """Store what is pending, together with the position that it leads to."""
        self.position = position
        self._show()
        self.written += 1
        self._store_position()

    def _store_position(self) -> None:
        # Version 0.1 takes all that its filter names for complete.
        position = replace(self.position, filter_version=self.filter_version if self.whole else 0)
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

    def give_up(self, ranges: Sequence[Range]) -> None:
        """These are not as they should be: they are not shown any more, and count as not here. A snapshot replaces
        them."""
        self._holding = self._holding.narrowed(without(self.intervals, ranges))
        self._note_holding(self._holding)
        self._write(self.position)

    def forget_history(self) -> None:
        """Compact history that is too much. Pruning removes its rows later."""
        floor = self._history.forget()
        if floor > self.position.floor:
            self.space.forget(floor)
            self._write(replace(self.position, floor=floor, history_bytes=self._history.bytes))


def _within(start: bytes, end: bytes | None, ranges: Sequence[Range]) -> bool:
    return any(low <= start and (high is None or (end is not None and end <= high)) for low, high in ranges)


def _load(store: Store) -> Position:
    data = store.get(Family.META, _POSITION)
    if data is None:
        return Position()
    numbers = [int.from_bytes(data[i : i + 8], "big") for i in range(0, len(data), 8)]
    if len(numbers) == _NUMBERS_0_1:
        # Version 0.1 did not say where the history begins. That its floor came from a snapshot is possible.
        numbers += [numbers[3] + 1, 0]
    return Position(*numbers)


def lineage_of(hello: holdfast_pb2.FollowHello) -> Lineage:
    return Lineage.of(hello.cluster_id, hello.epoch, hello.lineage, hello.restored_from)


def ranges_of(prefixes: Iterable[str]) -> list[holdfast_pb2.KeyRange]:
    """The ranges of all keys that begin with these prefixes."""
    found = []
    for prefix in sorted(set(prefixes)):
        start = prefix.encode()
        found.append(holdfast_pb2.KeyRange(key=start, range_end=prefix_end(start)))
    return found
