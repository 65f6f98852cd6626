"""The server side of `holdfast.v1.Edge/Follow`, without I/O: decides what a follower is sent.

A replica reports up to which revision it is complete. It is sent the missing revisions from history, or a snapshot if
they are compacted, then every revision as it is applied, and progress while its filter is quiet. These rules ensure
that a replica misses nothing:

- An upstream that is behind its follower sends nothing until it has caught up.
- A snapshot is of one revision, which its chunks and its trailer name. The stream continues with the next revision.
- Of a snapshot that broke off, what the replica holds is brought up to date before the rest is sent. So keys that were
  deleted meanwhile go, all of it becomes complete at one revision, and the next break loses nothing.
- Progress is sent only when everything up to it has been sent.
- Each revision says up to where the stream was complete before it, so a follower notices what was left out.

The driver, real or simulated, passes events in and sends the resulting frames in their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Protocol

from holdfast.edge.filling import CHUNK_ROWS, Filling
from holdfast.edge.frames import RevisionFrames
from holdfast.edge.holding import as_range, joined, without
from holdfast.edge.lineage import Lineage, Relation
from holdfast.keyrange import Range, bounds
from holdfast.kv.rows import Change
from holdfast.kv.space import KeySpace
from holdfast.proto import holdfast_pb2
from holdfast.status import Code, Refusal, RequestError
from holdfast.watch.hub import Compacted, Delivery, Events, Hub
from holdfast.watch.watcher import Watcher

MAX_RANGES = 64
MAX_HELD = 4 * MAX_RANGES  # parts of ranges that a replica has
MAX_NAME = 253  # characters in the name of a replica or pool, as in Kubernetes
MAX_SNAPSHOTS = 16  # being read at the same time: each keeps RocksDB from deleting the files of its moment
ALIVE_SECONDS = 3  # after this time with nothing to tell, the follower is told that nothing has changed
STALL_SECONDS = 60  # a replica that reads nothing of its snapshot for this long has to reconnect
_WATCHER = 0
_STALLED = Refusal(
    Code.UNAVAILABLE, f"holdfast: nothing of the snapshot was taken for {STALL_SECONDS} s; reconnect to get another one"
)
_RESTORED = Refusal(Code.UNAVAILABLE, "holdfast: the cluster was restored; reconnect to get its data")
_FELL_BEHIND = Refusal(Code.UNAVAILABLE, "holdfast: fell behind the compacted history; reconnect")


class Source(Protocol):
    """What an upstream serves from: the key space and the position of a member or a replica."""

    @property
    def lineage(self) -> Lineage: ...

    @property
    def term(self) -> int: ...

    @property
    def users(self) -> bool:
        """Whether auth is on in the cluster."""
        ...

    @property
    def rights(self) -> bytes:
        """The FollowResponse with users and roles; empty if they are not known here, or auth is off. The same object
        until they change."""
        ...

    @property
    def path(self) -> holdfast_pb2.FollowPath:
        """The way from here to the cluster. It is replaced when it changes, not modified."""
        ...

    @property
    def space(self) -> KeySpace: ...

    @property
    def hub(self) -> Hub: ...

    def poke(self) -> None:
        """Wake the driver: the hub has work to do."""


class Followers:
    """What all streams of a server share: the number of snapshots that are being sent, and serialised frames."""

    def __init__(self, most_snapshots: int = MAX_SNAPSHOTS, chunk_rows: int = CHUNK_ROWS) -> None:
        self._most_snapshots = most_snapshots
        self.chunk_rows = chunk_rows
        self.snapshots = 0
        self.frames = RevisionFrames()

    @property
    def full(self) -> bool:
        """Whether no further snapshot may begin."""
        return self.snapshots >= self._most_snapshots


def check_start(start: holdfast_pb2.FollowStart) -> None:
    """Raise RequestError if the start message is invalid."""
    if not 0 < len(start.filter) <= MAX_RANGES or any(not r.key for r in start.filter):
        raise RequestError(Refusal(Code.INVALID_ARGUMENT, f"holdfast: a filter has 1 to {MAX_RANGES} ranges with keys"))
    if len(start.held.ranges) > MAX_HELD:
        raise RequestError(Refusal(Code.INVALID_ARGUMENT, f"holdfast: a replica holds at most {MAX_HELD} ranges"))
    for name in (start.replica, start.pool):
        if not _is_name(name):
            raise RequestError(
                Refusal(
                    Code.INVALID_ARGUMENT,
                    f"holdfast: the name of a replica or a pool has at most {MAX_NAME} characters, all printable",
                )
            )


def check_below(report: holdfast_pb2.ReplicaReport) -> None:
    """Raise RequestError if what a replica reports of itself and of those below it is invalid."""
    names = [
        name for each in (report, *report.below) for name in (each.replica, each.pool, each.site.site, each.site.writer)
    ]
    if not all(map(_is_name, names)):
        raise RequestError(Refusal(Code.INVALID_ARGUMENT, "holdfast: a report has a name that is none"))


def _is_name(name: str) -> bool:
    return len(name) <= MAX_NAME and name.isprintable()


class Upstream:
    """One stream to a follower. States: waiting for its start message; waiting until the upstream has reached its
    watermark; following, possibly with a snapshot first."""

    def __init__(self, source: Source, stream: int, followers: Followers) -> None:
        """`stream`: the stream's number in the hub."""
        self._source = source
        self._stream = stream
        self._followers = followers
        self._hub = source.hub
        self._hub.open(stream)
        self.start: holdfast_pb2.FollowStart | None = None
        self._ranges: tuple[Range, ...] = ()
        self._following = False
        self._lineage = source.lineage  # as the follower was told
        self._users = False  # whether auth is on, as the follower was told
        self._path: holdfast_pb2.FollowPath | None = None  # as the follower was told
        self.shares_rights = False  # the follower is sent users and roles
        self._rights = b""  # as the follower was told
        self._told = 0  # revision up to which the follower was last told that it is complete
        self._frames: Iterator[bytes] | None = None  # the rest of a snapshot being sent
        self._due: list[Range] = []  # to be sent as a snapshot once the rest of what the follower has is up to date
        self._moved_at = 0  # when the last snapshot frame was sent (ns)
        self._alive = (0, 0)  # the revision last told, and since when nothing was told (ns)
        self._over = False  # the follower does not keep up

    @property
    def filling(self) -> bool:
        """Whether `fill` has more of a snapshot, and the follower keeps up."""
        return self._frames is not None and not self._over

    @property
    def users_changed(self) -> bool:
        """Whether auth was turned on or off since the follower was told."""
        return self._following and self._users != self._source.users

    # ---- events --------------------------------------------------------------------------------------------

    def begin(self, start: holdfast_pb2.FollowStart, *, shares_rights: bool = False) -> None:
        """Take the follower's start message, after `check_start`; then call `tick`. `shares_rights`: it may know users
        and roles. Raises RequestError."""
        self._check_lineage(start)
        self.shares_rights = shares_rights and start.rights
        self.start = start
        self._ranges = tuple(bounds(r.key, r.range_end) for r in start.filter)

    def _check_lineage(self, start: holdfast_pb2.FollowStart) -> None:
        here, replica = self._source.lineage, start.replica
        relation = here.relation(_lineage(start)) if start.cluster_id else Relation.SAME
        if relation is Relation.EARLIER:
            text = (
                f"holdfast: the replica {replica!r} holds data of epoch {start.epoch}, which a restore began, and this "
                f"is the cluster before it, of epoch {here.epoch}; the replica waits for a member of the restored one"
            )
            raise RequestError(Refusal(Code.FAILED_PRECONDITION, text))
        if relation is Relation.FOREIGN:
            text = (
                f"holdfast: the replica {replica!r} holds data of cluster {start.cluster_id:x}, this is cluster "
                f"{here.cluster_id:x}; correct its --endpoints, or empty its data directory to start anew from this "
                "cluster"
            )
            raise RequestError(Refusal(Code.FAILED_PRECONDITION, text))

    def tick(self, now_ns: int) -> list[bytes]:
        """Call this regularly. It begins following once the source has reached the follower's watermark; after that it
        sends progress while the filter is quiet. Raises RequestError to end the stream."""
        if not self._following:
            return self._follow(now_ns) if self._may_follow() else []
        self._check_same()
        if self._path is not self._source.path:
            return [*self._new_path(), *self.tick(now_ns)]
        if self.shares_rights and self._rights is not self._source.rights:
            return [*self._new_rights(), *self.tick(now_ns)]
        if self._frames is not None:
            if now_ns > self._moved_at + STALL_SECONDS * 1_000_000_000:
                raise RequestError(_STALLED)
            return []
        return [*self._complete(now_ns), *(self._progress() or self._sign_of_life(now_ns))]

    def _complete(self, now_ns: int) -> list[bytes]:
        """Begin to send what the follower lacks, if the rest of what it has is up to date."""
        if not self._due or self._followers.full or not self._source.space.settled:
            return []
        frames = self._progress()
        if self._hub.progress(self._stream) is not None and self._told == self._source.space.revision:
            due, self._due = self._due, []
            self._begin_filling(due, now_ns)
        return frames

    def _check_same(self) -> None:
        """Raise RequestError if what the source has now is of another history than the follower was told."""
        if self._following and self._source.lineage.relation(self._lineage) is not Relation.SAME:
            raise RequestError(_RESTORED)

    def _sign_of_life(self, now_ns: int) -> list[bytes]:
        """Repeat the progress when nothing was told for long. A source without a connection to the cluster has nothing
        to tell."""
        told, since = self._alive
        if told != self._told:
            self._alive = (self._told, now_ns)
        elif now_ns > since + ALIVE_SECONDS * 1_000_000_000:
            self._alive = (told, now_ns)
            return self._progress_frame()
        return []

    def _progress_frame(self) -> list[bytes]:
        message = holdfast_pb2.FollowProgress(revision=self._told, term=self._source.term)
        return [holdfast_pb2.FollowResponse(progress=message).SerializeToString()]

    def _new_path(self) -> list[bytes]:
        self._path = self._source.path
        return [holdfast_pb2.FollowResponse(path=self._path).SerializeToString()]

    def _new_rights(self) -> list[bytes]:
        """The follower's rights are never older than its data: what they were changed to hide is not shown."""
        if not self.shares_rights or self._rights is self._source.rights:
            return []
        self._rights = self._source.rights
        return [self._rights] if self._rights else []

    def _progress(self) -> list[bytes]:
        if not self._following or self._frames is not None:
            return []
        progress = self._hub.progress(self._stream)
        if progress is None or progress.revision <= self._told:
            return []
        self._told = progress.revision
        return self._progress_frame()

    def fill(self, now_ns: int) -> list[bytes]:
        """The next frame of a snapshot, if the follower keeps up. After the last one, the stream continues with the
        changes since. Raises StateDamaged."""
        if self._frames is None or self._over:
            return []
        frame = next(self._frames, None)
        if frame is not None:
            self._moved_at = now_ns
            return [frame]
        self._end_filling()
        self._hub.unblock(self._stream)
        self._source.poke()
        return []

    def deliver(self, delivery: Delivery) -> list[bytes]:
        """The frames for a delivery of the hub. Raises RequestError to end the stream."""
        if isinstance(delivery, Compacted):
            raise RequestError(_FELL_BEHIND)  # the follower reconnects and gets a snapshot
        return [*self._new_rights(), *self._revisions(delivery.changes)] if isinstance(delivery, Events) else []

    def probed(self, id: int, revision: int) -> list[bytes]:
        """The reply to a probe: `revision` includes every write that was acknowledged before the probe was sent. A
        follower that has everything is told so at once: it may hold back an answer until then. Raises RequestError to
        end the stream."""
        if not self._following:
            return []  # the follower was not told yet of which history this revision is
        self._check_same()
        reply = holdfast_pb2.ProbeReply(id=id, revision=revision)
        return [*self._progress(), holdfast_pb2.FollowResponse(probe=reply).SerializeToString()]

    def over(self) -> None:
        """The follower does not keep up: send nothing until `writable`."""
        self._over = True
        self._hub.block(self._stream)

    def writable(self) -> None:
        """The follower has caught up with what was sent; then call `fill`."""
        self._over = False
        if self._frames is None:
            self._hub.unblock(self._stream)
            self._source.poke()

    def close(self) -> None:
        self._hub.close(self._stream)
        self._end_filling()

    # ---- helpers -------------------------------------------------------------------------------------------

    def _may_follow(self) -> bool:
        """Whether to begin. A source that is behind the follower waits: it must send neither "compacted" nor a snapshot
        of an earlier state."""
        start, source = self.start, self._source
        if start is None or not source.space.settled or (self._followers.full and self._lacking(start)):
            return False
        return source.space.revision >= max(start.watermark, start.held_watermark) or not self._same_history(start)

    def _follow(self, now_ns: int) -> list[bytes]:
        start, source = self.start, self._source
        assert start is not None
        lacking = self._lacking(start)
        snapshot = bool(lacking)
        partial = snapshot and lacking != joined(self._ranges)
        lineage = source.lineage
        hello = holdfast_pb2.FollowHello(
            cluster_id=lineage.cluster_id,
            epoch=lineage.epoch,
            lineage=lineage.first,
            restored_from=lineage.restored_from,
            parent=lineage.parent,
            term=source.term,
            filter_version=start.filter_version,
            floor=max(source.space.history_from, 1),
            snapshot=snapshot,
            partial=partial,
            users=source.users,
            rights=bool(self.shares_rights and source.rights),
            path=source.path,
            ranged=True,
        )
        self._path, self._lineage = source.path, lineage
        self._told = start.held_watermark if partial else source.space.revision if snapshot else start.watermark
        if partial and start.resumes:
            self._due = lacking
        elif snapshot:
            self._begin_filling(lacking, now_ns)
        self._hub.add(self._stream, self._watcher(self._told + 1))
        self._following = True
        self._users = hello.users
        source.poke()
        first = [holdfast_pb2.FollowResponse(hello=hello).SerializeToString(), *self._new_rights()]
        return [*first, *self._complete(now_ns)]

    def _lacking(self, start: holdfast_pb2.FollowStart) -> list[Range]:
        """The ranges that the follower has to be sent as a snapshot, because history cannot bring it to the state of
        the source: none, some, or all of its filter."""
        watermark = start.watermark or start.held_watermark
        fresh = not watermark or not self._same_history(start)
        if fresh or watermark + 1 < self._source.space.history_from:
            return joined(self._ranges)
        if start.watermark:
            return []
        return without(self._ranges, [bounds(h.range.key, h.range.range_end) for h in start.held.ranges])

    def _same_history(self, start: holdfast_pb2.FollowStart) -> bool:
        """Whether what the follower has is of the history that the source has."""
        return self._source.lineage.relation(_lineage(start)) is Relation.SAME

    def _watcher(self, revision: int) -> Watcher:
        return Watcher(_WATCHER, self._ranges, revision)

    def _begin_filling(self, ranges: Sequence[Range], now_ns: int) -> None:
        assert self.start is not None
        space = self._source.space
        trailer = holdfast_pb2.FollowTrailer(
            filter=[as_range(r) for r in ranges],
            filter_version=self.start.filter_version,
            revision=space.revision,
        )
        filling = Filling(space.store, ranges, trailer, self._followers.chunk_rows)
        self._frames = filling.frames()
        self._followers.snapshots += 1
        self._hub.block(self._stream)
        self._moved_at = now_ns

    def _end_filling(self) -> None:
        if self._frames is not None:
            self._frames = None
            self._followers.snapshots -= 1

    def _revisions(self, changes: Sequence[Change]) -> list[bytes]:
        """One frame for each revision."""
        term, encode = self._source.term, self._followers.frames.frame
        frames: list[bytes] = []
        for revision, group in groupby(changes, _revision):
            frames.append(encode(self._ranges, self._lineage.epoch, term, list(group), self._told))
            self._told = max(self._told, revision)
        return frames


def _lineage(start: holdfast_pb2.FollowStart) -> Lineage:
    return Lineage.of(start.cluster_id, start.epoch, start.lineage)


def _revision(change: Change) -> int:
    return change.revision
