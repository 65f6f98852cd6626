"""What a replica follows and what it serves, without I/O: the effect of each received frame.

Its data is `here`, and served. A snapshot of everything is built as data of its own beside it, which may take several
connections, and takes the place of what is here only when it is whole and durable: the driver gives a store for it when
`wants_store`, and once `built` makes it durable, puts it in use, and calls `succeed`. Absence is never taken for
deletion: a key goes only by a tombstone, or by a part of a snapshot that says which range it covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import google_crc32c

from holdfast.edge.data import BrokenUpstream, Position, ReplicaData
from holdfast.edge.holding import joined, without
from holdfast.edge.lineage import Lineage, Relation
from holdfast.edge.notes import Notes
from holdfast.edge.rights import FollowedRights
from holdfast.keyrange import Range, bounds, prefix_end
from holdfast.kv.copied import CopiedSpace
from holdfast.kv.rows import Change
from holdfast.kv.store import Pending, Store
from holdfast.proto import holdfast_pb2, kv_pb2


class WrongCluster(Exception):
    """The upstream member belongs to a different cluster than the replica's data."""


class EarlierEpoch(Exception):
    """The upstream has the history before a restore that the replica's data is from after."""


class Loop(Exception):
    """The upstream follows this replica, directly or through others."""


class Loaded(Enum):
    """What became of a snapshot."""

    REFUSED = "refused"  # it is not whole, or older than what is here
    KEPT = "kept"  # it is built as data of its own, which is served once it is `built`
    CONTINUES = "continues"  # it is a later state of what was here
    ANOTHER_HISTORY = "another history"  # of the cluster after a restore


def filter_version(ranges: Sequence[holdfast_pb2.KeyRange]) -> int:
    """A number that identifies the filter. Data received with another filter is not complete for this one."""
    text = b"".join(r.SerializeToString(deterministic=True) for r in sorted(ranges, key=lambda r: (r.key, r.range_end)))
    return google_crc32c.value(text) or 1


class ReplicaCore:
    """The replica's data with its position. The driver feeds frames in and serves from `space`."""

    def __init__(
        self,
        store: Store,
        ranges: Sequence[holdfast_pb2.KeyRange],
        node: int = 0,
        building: Store | None = None,
    ) -> None:
        """`node`: the volume id of this replica. `building`: what an earlier run got of a snapshot."""
        self.node = node
        self.path = self._end_of_path()
        self.ranges = list(ranges)
        self.filter_version = filter_version(ranges)
        self.intervals: list[Range] = joined(bounds(r.key, r.range_end) for r in ranges)
        self.here = self._data(store)
        self._next = self._data(building) if building is not None else None
        if self._next is not None and not self._next.position.watermark:
            self._next = None
        self.wants_store = False  # the driver has to call `build` before the next frame
        self._hello: holdfast_pb2.FollowHello | None = None
        self._loading: list[kv_pb2.KeyValue] | None = None  # a snapshot whose chunks count with its trailer
        self._loading_crc = 0
        self._concluded = False  # what is built is about to take the place of what is here
        self.notes = Notes(self._noted)
        self.rights = FollowedRights(self.notes)

    def _data(self, store: Store) -> ReplicaData:
        return ReplicaData(store, self.intervals, self.filter_version)

    # ---- what is here --------------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        return self.here.position

    @property
    def space(self) -> CopiedSpace:
        return self.here.space

    @property
    def shown(self) -> list[Range]:
        """The ranges that are complete at the watermark."""
        return self.here.shown

    @property
    def complete(self) -> bool:
        """Whether there is data to serve, of all prefixes or of some."""
        return bool(self.shown)

    @property
    def whole(self) -> bool:
        """Whether all prefixes are served."""
        return self.here.whole

    @property
    def missing(self) -> list[Range]:
        """What of the prefixes is not served."""
        return without(self.intervals, self.shown)

    @property
    def lacking(self) -> list[Range]:
        """What of the prefixes is not here at all."""
        return self.here.lacking

    @property
    def written(self) -> int:
        """Counts changes of what is here, which have to be made durable."""
        return self.here.written

    def covers(self, start: bytes, end: bytes | None) -> bool:
        """Whether every key of [start, end) is complete here."""
        return _within(start, end, self.shown)

    def wants(self, start: bytes, end: bytes | None) -> bool:
        """Whether every key of [start, end) belongs to the prefixes."""
        return _within(start, end, self.intervals)

    @property
    def _followed(self) -> ReplicaData:
        """What the frames of the upstream go to."""
        return self._next or self.here

    def start(self, replica: str, pool: str) -> holdfast_pb2.FollowStart:
        """The first message to an upstream: what the replica has and what it wants."""
        data = self._followed
        p = data.position
        known = p if p.cluster_id else self.here.position  # while nothing has come of what is built
        start = holdfast_pb2.FollowStart(
            cluster_id=known.cluster_id,
            epoch=known.epoch,
            lineage=known.lineage.first,
            rights=True,
            filter=self.ranges,
            filter_version=self.filter_version,
            replica=replica,
            pool=pool,
            resumes=True,
            zstd=True,
        )
        if not data.lacking:
            start.watermark = p.watermark
        else:
            start.held.CopyFrom(data.held)
            start.held_watermark = p.watermark
        return start

    # ---- frames --------------------------------------------------------------------------------------------

    @property
    def superseded(self) -> bool:
        """Whether the cluster was restored, and its snapshot is not here yet."""
        here, hello = self.position.lineage, self._hello
        return hello is not None and here.cluster_id != 0 and lineage_of(hello).relation(here) is Relation.LATER

    def _check_lineage(self, hello: holdfast_pb2.FollowHello) -> None:
        """What is here counts also while nothing of its successor has come: the successor is never of an earlier
        epoch."""
        for data in (self.here, self._next):
            if data is not None and data.position.cluster_id:
                self._check_relation(hello, data.position.lineage)

    def _check_relation(self, hello: holdfast_pb2.FollowHello, held: Lineage) -> None:
        there = lineage_of(hello)
        relation = there.relation(held)
        if relation is Relation.FOREIGN:
            raise WrongCluster(
                f"the data here is of cluster {held.cluster_id:x}, the upstream is of {there.cluster_id:x}"
            )
        if relation is Relation.EARLIER:
            raise EarlierEpoch(f"it is of epoch {there.epoch}, and a restore has begun epoch {held.epoch}")
        continues = hello.partial or not hello.snapshot
        if relation is Relation.LATER and continues and held == self._followed.position.lineage:
            raise BrokenUpstream("the upstream continues across a restore")

    def hello(self, hello: holdfast_pb2.FollowHello) -> None:
        self._check_lineage(hello)
        if hello.filter_version != self.filter_version:
            raise BrokenUpstream("the upstream answered for a different filter than requested")
        self.follows(hello.path)  # version 0.1 says none; there, only members have followers
        self._hello = hello
        self.rights.greeted(hello)
        self.wants_store = hello.snapshot and hello.ranged and not hello.partial
        self._loading = [] if hello.snapshot and not hello.ranged else None
        self._loading_crc = 0

    def build(self, store: Store) -> None:
        """Build the snapshot that comes in this store, which is empty. What an earlier connection brought of another
        one, which history does not lead on from, is given up."""
        self.wants_store = False
        self._next, self._concluded = self._data(store), False

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
        hello = self._hello
        if hello is None or not hello.snapshot or hello.ranged != chunk.HasField("range") or self.wants_store:
            raise BrokenUpstream("the upstream sent part of a snapshot that it had not announced")
        if self._loading is None:
            self._followed.take(chunk, hello)
            return
        for kv in chunk.kvs:
            self._loading_crc = google_crc32c.extend(self._loading_crc, kv.SerializeToString())
            self._loading.append(kv)

    def trailer(self, trailer: holdfast_pb2.FollowTrailer) -> Loaded:
        """End a snapshot: it has to be whole."""
        hello = self._hello
        if hello is None or not hello.snapshot or self.wants_store:
            raise BrokenUpstream("the upstream ended a snapshot that it had not announced")
        if self._loading is not None:
            return self._load(trailer, hello)
        if self._followed.lacking:
            raise BrokenUpstream("the upstream ended a snapshot that is not whole")
        return Loaded.CONTINUES if self._next is None else Loaded.KEPT

    def _load(self, trailer: holdfast_pb2.FollowTrailer, hello: holdfast_pb2.FollowHello) -> Loaded:
        """Replace the data by a snapshot from an upstream that does not say what its chunks cover, if it matches the
        trailer and is not older."""
        assert self._loading is not None
        kvs, self._loading = self._loading, None
        if hello.partial:
            data, superseded = self._followed, False
        else:
            data, superseded = self.here, self.superseded
        whole = len(kvs) == trailer.count and self._loading_crc == trailer.hash
        older = not superseded and trailer.revision < data.position.watermark
        if not whole or older or trailer.filter_version != self.filter_version:
            return Loaded.REFUSED
        if hello.partial:
            data.add([bounds(r.key, r.range_end) for r in trailer.filter], kvs, trailer.revision)
            return Loaded.CONTINUES if data is self.here else Loaded.KEPT
        data.replace(kvs, Position.began(hello, trailer.revision))
        self._next, self._concluded = None, False
        return Loaded.ANOTHER_HISTORY if superseded else Loaded.CONTINUES

    def revision(self, frame: holdfast_pb2.FollowRevision) -> list[Change]:
        """Apply one revision and return its changes of what is served. Raises BrokenUpstream if a change before it is
        missing."""
        changes = self._followed.revision(frame)
        return changes if self._next is None else []

    def progress(self, frame: holdfast_pb2.FollowProgress) -> bool:
        """Note that no more changes come up to this revision. Returns whether the watermark moved."""
        return self._followed.progress(frame) and self._next is None

    # ---- from one data to the next -------------------------------------------------------------------------

    @property
    def built(self) -> bool:
        """Whether the snapshot is whole and not older than what is here."""
        built, here = self._next, self.here
        if built is None or not built.whole or built.stalled:
            return False
        same = built.position.lineage.relation(here.position.lineage) is Relation.SAME
        return not same or built.position.watermark >= here.position.watermark

    def conclude(self) -> None:
        """Add to what is built what is noted here. Then make it durable, put it in use, and call `succeed`. What is
        noted meanwhile is noted in both."""
        assert self._next is not None
        if not self._concluded:
            self._next.take_notes(self.here)
            self._concluded = True
        self._next.save()

    def succeed(self) -> Loaded:
        """What was built takes the place of what was here."""
        assert self._next is not None
        before, now = self.here.position, self._next.position
        self.here, self._next, self._concluded = self._next, None, False
        another = before.cluster_id and now.lineage.relation(before.lineage) is not Relation.SAME
        return Loaded.ANOTHER_HISTORY if another else Loaded.CONTINUES

    def _noted(self) -> list[Pending]:
        concluded = self._next if self._concluded else None
        return [data.pending for data in (self.here, concluded) if data is not None]

    # ---- the stores ----------------------------------------------------------------------------------------

    @property
    def building(self) -> Store | None:
        """The store that a snapshot is built in."""
        return None if self._next is None else self._next.store

    def save(self) -> None:
        """Store a watermark that moved without a change."""
        self.here.save()

    @property
    def stalled(self) -> bool:
        """Whether a store has refused the last write: pass in no more frames until `settle` succeeds."""
        return self.here.stalled or (self._next is not None and self._next.stalled)

    def settle(self) -> bool:
        """Retry a pending write. Returns whether the stores have everything now."""
        return self.here.settle() and (self._next is None or self._next.settle())

    def give_up(self, ranges: Sequence[Range]) -> None:
        """These of what is shown are not as they should be."""
        self.here.give_up(ranges)

    def forget_history(self) -> None:
        """Compact history that is too much. Pruning removes its rows later."""
        self.here.forget_history()


def _within(start: bytes, end: bytes | None, ranges: Sequence[Range]) -> bool:
    return any(low <= start and (high is None or (end is not None and end <= high)) for low, high in ranges)


def lineage_of(hello: holdfast_pb2.FollowHello) -> Lineage:
    return Lineage.of(hello.cluster_id, hello.epoch, hello.lineage, hello.restored_from, hello.parent)


def ranges_of(prefixes: Iterable[str]) -> list[holdfast_pb2.KeyRange]:
    """The ranges of all keys that begin with these prefixes."""
    found = []
    for prefix in sorted(set(prefixes)):
        start = prefix.encode()
        found.append(holdfast_pb2.KeyRange(key=start, range_end=prefix_end(start)))
    return found
