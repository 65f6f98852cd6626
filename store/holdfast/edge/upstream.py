"""What a follower is told by its upstream, pure: the server's side of `holdfast.v1.Edge/Follow`.

A replica says how far it is complete. It gets what it lacks from history, or if that is gone a snapshot, and then every
revision as it is applied, with progress where its filter is quiet. The rules that keep a replica from missing anything:

- An upstream that is behind its follower says nothing until it has caught up.
- A snapshot is of one revision, which its trailer names; what is told next begins with the revision after it.
- Progress is said only when everything up to it has been sent.

The driver, real or simulated, passes events in and sends the frames that come out, in their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from holdfast.edge.filling import CHUNK_ROWS, Filling
from holdfast.keyrange import Range, bounds
from holdfast.kv.rows import DELETE, Change
from holdfast.kv.space import KeySpace
from holdfast.proto import holdfast_pb2, kv_pb2
from holdfast.status import Code, Refusal, RequestError
from holdfast.watch.hub import Compacted, Delivery, Events, Hub, Watcher

MAX_RANGES = 64
MAX_NAME = 253  # characters, of a replica or a pool, as Kubernetes has it
MAX_SNAPSHOTS = 16  # that are read at once: each holds on to the files of its moment
STALL_SECONDS = 60  # a replica that takes nothing of its snapshot for so long has to ask again
_WATCHER = 0
_STALLED = Refusal(
    Code.UNAVAILABLE, f"holdfast: nothing of the snapshot was taken for {STALL_SECONDS} s; reconnect to get another one"
)
_FELL_BEHIND = Refusal(Code.UNAVAILABLE, "holdfast: fell behind the compacted history; reconnect")


class Source(Protocol):
    """What an upstream serves from: a member's or a replica's key space, and its position."""

    @property
    def cluster_id(self) -> int: ...

    @property
    def epoch(self) -> int: ...

    @property
    def term(self) -> int: ...

    @property
    def users(self) -> bool:
        """Whether users count in the cluster."""
        ...

    @property
    def space(self) -> KeySpace: ...

    @property
    def hub(self) -> Hub: ...

    def poke(self) -> None:
        """The hub has something to do."""


class Snapshots:
    """The snapshots that a server is sending, all streams together."""

    def __init__(self, most: int = MAX_SNAPSHOTS, chunk_rows: int = CHUNK_ROWS) -> None:
        self._most = most
        self.chunk_rows = chunk_rows
        self.under_way = 0

    @property
    def full(self) -> bool:
        return self.under_way >= self._most


def check_start(start: holdfast_pb2.FollowStart, cluster_id: int) -> None:
    """Raise RequestError if nobody could follow like this."""
    if start.cluster_id not in (0, cluster_id):
        raise RequestError(
            Refusal(
                Code.FAILED_PRECONDITION,
                f"holdfast: the replica {start.replica!r} holds data of cluster {start.cluster_id:x}, this is cluster "
                f"{cluster_id:x}; correct its --endpoints, or empty its data directory to start anew from this cluster",
            )
        )
    if not 0 < len(start.filter) <= MAX_RANGES or any(not r.key for r in start.filter):
        raise RequestError(Refusal(Code.INVALID_ARGUMENT, f"holdfast: a filter has 1 to {MAX_RANGES} ranges with keys"))
    for name in (start.replica, start.pool):
        if len(name) > MAX_NAME or not name.isprintable():
            raise RequestError(
                Refusal(
                    Code.INVALID_ARGUMENT,
                    f"holdfast: the name of a replica or a pool has at most {MAX_NAME} characters, all printable",
                )
            )


class Upstream:
    """One stream to a follower. States: waiting for its start; waiting for us to reach its watermark; following, at
    first perhaps by a snapshot."""

    def __init__(self, source: Source, stream: int, snapshots: Snapshots) -> None:
        """`stream`: under which number the hub knows it."""
        self._source = source
        self._stream = stream
        self._snapshots = snapshots
        self._hub = source.hub
        self._hub.open(stream)
        self.start: holdfast_pb2.FollowStart | None = None
        self._ranges: tuple[Range, ...] = ()
        self._following = False
        self._users = False  # whether they count, as the follower was told
        self._told = 0  # revision that the follower was last told it is complete to
        self._frames: Iterator[bytes] | None = None  # of a snapshot still being sent
        self._moved_at = 0  # when its last frame was taken
        self._over = False  # more was sent than the follower takes now

    @property
    def filling(self) -> bool:
        """Whether `fill` has more of a snapshot, and the follower takes it."""
        return self._frames is not None and not self._over

    @property
    def users_changed(self) -> bool:
        """Whether the follower has to hear anew whether users count."""
        return self._following and self._users != self._source.users

    # ---- what happens --------------------------------------------------------------------------------------

    def begin(self, start: holdfast_pb2.FollowStart) -> None:
        """The follower's start, after `check_start`. Raises RequestError. Tick next."""
        epoch = self._source.epoch
        if start.cluster_id and start.epoch > epoch:
            raise RequestError(
                Refusal(
                    Code.FAILED_PRECONDITION, f"holdfast: the replica is in epoch {start.epoch}, this member in {epoch}"
                )
            )
        self.start = start
        self._ranges = tuple(bounds(r.key, r.range_end) for r in start.filter)

    def tick(self, now_ns: int) -> list[bytes]:
        """Some time has passed: begin once we are as far as the follower is; later tell it of progress on quiet
        filters. Raises RequestError to end the stream."""
        if not self._following:
            return self._follow(now_ns) if self._may_follow() else []
        if self._frames is not None:
            if now_ns > self._moved_at + STALL_SECONDS * 1_000_000_000:
                raise RequestError(_STALLED)
            return []
        progress = self._hub.progress(self._stream)
        if progress is None or progress.revision <= self._told:
            return []
        self._told = progress.revision
        message = holdfast_pb2.FollowProgress(revision=progress.revision, term=self._source.term)
        return [holdfast_pb2.FollowResponse(progress=message).SerializeToString()]

    def fill(self, now_ns: int) -> list[bytes]:
        """The next frame of a snapshot, if the follower takes it. After the last one what happened meanwhile follows.
        Raises StateDamaged."""
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
        """What the hub has for this stream. Raises RequestError to end the stream."""
        if isinstance(delivery, Compacted):
            raise RequestError(_FELL_BEHIND)  # it starts again, with a snapshot
        return self._revisions(delivery.changes) if isinstance(delivery, Events) else []

    def probed(self, id: int) -> list[bytes]:
        """Leadership was confirmed after the follower's probe: what is applied now covers every write that was
        acknowledged before the probe was sent."""
        reply = holdfast_pb2.ProbeReply(id=id, revision=self._source.space.revision)
        return [holdfast_pb2.FollowResponse(probe=reply).SerializeToString()]

    def over(self) -> None:
        """The follower does not keep up: it is sent nothing until `writable`."""
        self._over = True
        self._hub.block(self._stream)

    def writable(self) -> None:
        """It takes more: fill next."""
        self._over = False
        if self._frames is None:
            self._hub.unblock(self._stream)
            self._source.poke()

    def close(self) -> None:
        self._hub.close(self._stream)
        self._end_filling()

    # ---- what follows from it ------------------------------------------------------------------------------

    def _may_follow(self) -> bool:
        """Behind the follower we have nothing to say: it waits. Neither "compacted" nor a snapshot of the past."""
        start, source = self.start, self._source
        if start is None or not source.space.settled or self._snapshots.full:
            return False
        return source.space.revision >= start.watermark or start.epoch < source.epoch

    def _follow(self, now_ns: int) -> list[bytes]:
        start, source = self.start, self._source
        assert start is not None
        snapshot = self._needs_snapshot(start)
        hello = holdfast_pb2.FollowHello(
            cluster_id=source.cluster_id,
            epoch=source.epoch,
            term=source.term,
            filter_version=start.filter_version,
            floor=max(source.space.compacted, 1),
            snapshot=snapshot,
            users=source.users,
        )
        self._told = source.space.revision if snapshot else start.watermark
        if snapshot:
            self._begin_filling(start, now_ns)
        self._hub.add(self._stream, self._watcher(self._told + 1))
        self._following = True
        self._users = hello.users
        source.poke()
        return [holdfast_pb2.FollowResponse(hello=hello).SerializeToString()]

    def _needs_snapshot(self, start: holdfast_pb2.FollowStart) -> bool:
        """Whether history does not lead from what the follower has to what is here."""
        fresh = not start.cluster_id or not start.watermark or start.epoch != self._source.epoch
        return fresh or start.watermark + 1 < self._source.space.compacted

    def _watcher(self, revision: int) -> Watcher:
        return Watcher(_WATCHER, self._ranges, revision, prev_kv=True)

    def _begin_filling(self, start: holdfast_pb2.FollowStart, now_ns: int) -> None:
        trailer = holdfast_pb2.FollowTrailer(
            filter=start.filter, filter_version=start.filter_version, revision=self._told
        )
        filling = Filling(self._source.space.store, self._ranges, trailer, self._snapshots.chunk_rows)
        self._frames = filling.frames()
        self._snapshots.under_way += 1
        self._hub.block(self._stream)
        self._moved_at = now_ns

    def _end_filling(self) -> None:
        if self._frames is not None:
            self._frames = None
            self._snapshots.under_way -= 1

    def _revisions(self, changes: Sequence[Change]) -> list[bytes]:
        """A frame for each revision."""
        term = self._source.term
        frames: list[bytes] = []
        at = 0
        while at < len(changes):
            revision = changes[at].revision
            message = holdfast_pb2.FollowRevision(revision=revision, term=term)
            while at < len(changes) and changes[at].revision == revision:
                change = changes[at]
                type_ = kv_pb2.Event.DELETE if change.type == DELETE else kv_pb2.Event.PUT
                event = message.events.add(type=type_)
                event.kv.ParseFromString(change.kv)
                if change.previous is not None:
                    event.prev_kv.ParseFromString(change.previous)
                at += 1
            self._told = max(self._told, revision)
            frames.append(holdfast_pb2.FollowResponse(revision=message).SerializeToString())
        return frames
