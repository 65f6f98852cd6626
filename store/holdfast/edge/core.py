"""The state of a replica, without I/O: the position at which it is complete, and the effect of each received frame.

States: EMPTY (no data yet), LOADING (a snapshot is being received and not used yet), COMPLETE at the watermark.
Data and watermark are written in one batch, so they are consistent after a crash. Absence is never taken for deletion:
keys are removed only by a tombstone, or by a snapshot whose trailer confirms what was in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import google_crc32c

from holdfast.keyrange import Range, bounds, prefix_end
from holdfast.kv.copied import CopiedSpace, load
from holdfast.kv.rows import Change
from holdfast.kv.store import Family, Pending, Store, StoreBusy
from holdfast.proto import holdfast_pb2, kv_pb2

_POSITION = b"replica/position"
_FILTER = b"replica/filter"
_USERS = b"replica/users"


class WrongCluster(Exception):
    """The upstream member belongs to a different cluster than the replica's data."""


class BrokenUpstream(Exception):
    """The upstream violates the protocol."""


@dataclass(frozen=True, slots=True)
class Position:
    """What a replica has: complete up to revision `watermark`, history readable from revision `floor` on."""

    cluster_id: int = 0
    epoch: int = 0
    watermark: int = 0
    floor: int = 0
    term: int = 0
    filter_version: int = 0


def filter_version(ranges: Sequence[holdfast_pb2.KeyRange]) -> int:
    """A number that identifies the filter. Data received with another filter is not complete for this one."""
    text = b"".join(r.SerializeToString(deterministic=True) for r in sorted(ranges, key=lambda r: (r.key, r.range_end)))
    return google_crc32c.value(text) or 1


class ReplicaCore:
    """The replica's data with its position. The driver feeds frames in and serves from `space`."""

    def __init__(self, store: Store, ranges: Sequence[holdfast_pb2.KeyRange]) -> None:
        self._store = store
        self.ranges = list(ranges)
        self.filter_version = filter_version(ranges)
        self.intervals: list[Range] = [bounds(r.key, r.range_end) for r in ranges]
        self._pending = Pending(store)
        self.position = _load(store)
        if self.position.filter_version != self.filter_version:
            # The prefixes have changed: the data is no longer served as complete, and a snapshot will replace it.
            self._stale_filter = self.position.watermark > 0
        else:
            self._stale_filter = False
        self.space = CopiedSpace(self._pending, self.position.watermark, self.position.floor)
        self._loading: list[kv_pb2.KeyValue] | None = None
        self._loading_crc = 0
        self._hello: holdfast_pb2.FollowHello | None = None
        self.users = store.get(Family.META, _USERS) is not None  # whether auth is on in the cluster, as last reported

    # ---- what is here --------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether there is data to serve for the current prefixes."""
        return self.position.watermark > 0 and not self._stale_filter

    def covers(self, start: bytes, end: bytes | None) -> bool:
        """Whether every key of [start, end) belongs to the filter."""
        return any(low <= start and (high is None or (end is not None and end <= high)) for low, high in self.intervals)

    def start(self, replica: str, pool: str) -> holdfast_pb2.FollowStart:
        """The first message to an upstream: what the replica has and what it wants."""
        p = self.position
        return holdfast_pb2.FollowStart(
            cluster_id=p.cluster_id,
            epoch=p.epoch,
            watermark=0 if self._stale_filter else p.watermark,
            filter=self.ranges,
            filter_version=self.filter_version,
            replica=replica,
            pool=pool,
        )

    # ---- frames --------------------------------------------------------------------------------------------

    def hello(self, hello: holdfast_pb2.FollowHello) -> None:
        known = self.position.cluster_id
        if known and hello.cluster_id != known:
            raise WrongCluster(f"the data here is of cluster {known:x}, the upstream is of {hello.cluster_id:x}")
        if hello.filter_version != self.filter_version:
            raise BrokenUpstream("the upstream answered for a different filter than requested")
        self._hello = hello
        if hello.users != self.users:
            self.users = hello.users
            self._pending.put(Family.META, _USERS, b"" if hello.users else None)
            self._flush()
        self._loading = [] if hello.snapshot else None
        self._loading_crc = 0

    def chunk(self, chunk: holdfast_pb2.FollowChunk) -> None:
        if self._loading is None:
            raise BrokenUpstream("the upstream sent part of a snapshot that it had not announced")
        for kv in chunk.kvs:
            self._loading_crc = google_crc32c.extend(self._loading_crc, kv.SerializeToString())
            self._loading.append(kv)

    def trailer(self, trailer: holdfast_pb2.FollowTrailer) -> bool:
        """End a snapshot: replace the data by it if it matches the trailer and is not older. Returns whether it was
        accepted."""
        if self._hello is None or self._loading is None:
            raise BrokenUpstream("the upstream ended a snapshot that it had not announced")
        loading, self._loading = self._loading, None
        hello, p = self._hello, self.position
        whole = len(loading) == trailer.count and self._loading_crc == trailer.hash
        older = hello.epoch == p.epoch and trailer.revision < p.watermark
        if not whole or older or trailer.filter_version != self.filter_version:
            return False
        load(self._pending, loading)
        self._move(
            Position(
                cluster_id=hello.cluster_id,
                epoch=hello.epoch,
                watermark=trailer.revision,
                floor=trailer.revision,
                term=hello.term,
                filter_version=self.filter_version,
            )
        )
        self._stale_filter = False
        self._flush()
        self.space = CopiedSpace(self._pending, trailer.revision, trailer.revision)
        return True

    def revision(self, frame: holdfast_pb2.FollowRevision) -> list[Change]:
        """Apply one revision and return its changes. A revision already applied is ignored and has no changes."""
        if frame.revision <= self.position.watermark:
            return []
        changes = self.space.apply(frame.revision, frame.events)
        self._move(replace(self.position, watermark=frame.revision, term=frame.term))
        self._flush()
        return changes

    def progress(self, frame: holdfast_pb2.FollowProgress) -> bool:
        """Note that no more changes come up to this revision. Returns whether the watermark moved."""
        if frame.revision <= self.position.watermark:
            return False
        self.space.reach(frame.revision)
        self._move(replace(self.position, watermark=frame.revision, term=frame.term))
        self._flush()
        return True

    def _move(self, position: Position) -> None:
        self.position = position
        p = position
        data = b"".join(
            n.to_bytes(8, "big") for n in (p.cluster_id, p.epoch, p.watermark, p.floor, p.term, p.filter_version)
        )
        self._pending.put(Family.META, _POSITION, data)

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

    def raise_floor(self, revision: int) -> None:
        """Compact history before `revision`. Pruning removes its rows later."""
        self.space.forget(revision)
        self._move(replace(self.position, floor=revision))
        self._flush()


def _load(store: Store) -> Position:
    data = store.get(Family.META, _POSITION)
    if data is None:
        return Position()
    return Position(*(int.from_bytes(data[i : i + 8], "big") for i in range(0, 48, 8)))


def ranges_of(prefixes: Iterable[str]) -> list[holdfast_pb2.KeyRange]:
    """The ranges of all keys that begin with these prefixes."""
    found = []
    for prefix in sorted(set(prefixes)):
        start = prefix.encode()
        found.append(holdfast_pb2.KeyRange(key=start, range_end=prefix_end(start)))
    return found
