"""A replica takes a snapshot a chunk at a time: what breaks off is continued, what it serves is replaced as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from holdfast.edge.core import ReplicaCore, ranges_of
from holdfast.edge.data import BrokenUpstream
from holdfast.edge.upstream import MAX_HELD, Followers, Upstream
from holdfast.kv.store import Family, MemoryStore, StoreBusy, Write
from holdfast.proto import holdfast_pb2, kv_pb2

from .test_lineage import RESTORED
from .test_upstream import Host

NUMBERS = count(10)


def keys(n: int) -> list[bytes]:
    return [b"/a/%03d" % i for i in range(n)]


class Breaking(Host):
    """Its streams break off when a follower asks for it."""

    def begin(self) -> None:
        """A new connection, up to where a snapshot is sent or everything has been told."""
        self.upstream.close()
        self.pending.flush()
        self.connect(next(NUMBERS))
        self.take(self.upstream.tick(0))
        self.tell()
        self.take(self.upstream.tick(0))

    def some(self, frames: int) -> None:
        """So many frames of the snapshot."""
        for _ in range(frames):
            self.take(self.upstream.fill(0))

    def rest(self) -> None:
        while self.upstream.filling:
            self.some(1)
        self.tell()
        self.take(self.upstream.tick(0))

    def delete(self, key: bytes) -> None:
        self.space.delete(key)
        revision = self.space.commit()
        self.pending.flush()
        self.tell([revision])

    def compact(self) -> None:
        self.space.compact(self.space.revision)
        self.pending.flush()

    def restart(self) -> None:
        core = self.core
        building = core.building
        self.core = ReplicaCore(core.here.store, core.ranges, core.node, building)


def filled() -> Breaking:
    host = Breaking(Followers(chunk_rows=2))
    for key in keys(20):
        host.put(key)
    return host


@pytest.fixture
def host() -> Iterator[Breaking]:
    host = filled()
    yield host
    host.upstream.close()


def test_a_snapshot_that_breaks_off_is_continued(host: Breaking) -> None:
    host.begin()
    host.some(3)
    assert not host.core.complete, "nothing is shown before all is here"
    assert host.core.start("r", "").held_watermark == host.space.revision
    host.delete(b"/a/001")  # a part that is here
    host.delete(b"/a/015")  # a part that is not
    host.put(b"/a/002")
    host.begin()
    assert host.upstream.filling
    trailer = 1
    frames = list(iter(lambda: host.upstream.fill(0), []))
    assert len(frames) == 7 + trailer, "only what was lacking"
    for frame in frames:
        host.take(frame)
    assert host.core.whole
    host.same()
    host.put(b"/a/003")
    host.same()


@pytest.mark.parametrize("restart", [False, True])
def test_a_stream_that_always_breaks_completes_in_the_end(host: Breaking, restart: bool) -> None:
    """Also with changes in between, and with history that is compacted up to what the replica was sent."""
    for attempt in range(30):
        host.begin()
        host.some(1)
        if host.core.complete:
            break
        assert len(host.core.start("r", "").held.ranges) == 1, "parts become one"
        host.delete(b"/a/%03d" % attempt)
        host.put(b"/a/%03d" % (19 - attempt))
        if restart:
            host.restart()
    assert attempt < 15
    host.rest()
    host.same()


def test_what_is_held_fits_the_first_message_however_often_the_stream_breaks() -> None:
    host = Breaking(Followers(chunk_rows=1))
    host.put(*keys(100))
    for n in range(100):
        host.begin()
        host.some(1)
        host.put(b"/c/%d" % n)
    assert len(host.core.start("r", "").held.ranges) == 1 < MAX_HELD
    host.upstream.close()


def test_what_is_served_stays_until_the_next_is_whole(host: Breaking) -> None:
    """It fell behind the history: the snapshot is built beside it."""
    host.begin()
    host.rest()
    old = host.content(host.core.space)
    store, watermark = host.core.here.store, host.core.position.watermark
    host.upstream.close()
    host.upstream = host.connect(next(NUMBERS))
    host.upstream.over()  # it reads nothing
    for key in keys(6):
        host.delete(key)
    host.put(b"/a/new")
    host.compact()
    for attempt in range(2):
        host.begin()
        host.some(2)
        assert host.content(host.core.space) == old
        assert host.core.here.store is store
        assert host.core.position.watermark == watermark
        assert host.core.building is not None
        host.delete(b"/a/%03d" % (10 + attempt))
        if attempt:
            host.restart()
    host.begin()
    host.rest()
    assert host.core.here.store is not store
    assert host.core.building is None
    host.same()
    host.restart()
    host.same()


def test_what_history_does_not_lead_on_from_is_given_up(host: Breaking) -> None:
    host.begin()
    host.some(3)
    building = host.core.building
    host.delete(b"/a/001")
    host.put(b"/a/002")
    host.compact()
    host.begin()
    host.some(1)
    assert host.core.building is not building
    host.rest()
    host.same()


def test_a_snapshot_that_another_restore_overtakes_is_given_up(host: Breaking) -> None:
    host.begin()
    host.rest()
    old = host.content(host.core.space)
    host.lineage = RESTORED
    host.begin()
    host.some(2)
    assert host.core.superseded
    assert host.content(host.core.space) == old
    later = RESTORED._replace(cluster_id=9, epoch=3)
    host.lineage = later
    host.delete(b"/a/004")
    host.begin()
    host.rest()
    assert host.core.position.lineage == later
    host.same()


def test_what_is_noted_besides_the_data_goes_over(host: Breaking) -> None:
    host.users = True
    host.begin()
    host.rest()
    store = host.core.here.store
    assert ReplicaCore(store, ranges_of(["/a/"])).rights.users


def test_a_chunk_that_contradicts_itself_is_refused(host: Breaking) -> None:
    host.begin()
    host.some(1)
    watermark = host.core._followed.position.watermark
    held = host.core.start("r", "").held
    kv = kv_pb2.KeyValue(key=b"/a/5", mod_revision=1, create_revision=1, version=1)

    def chunk(low: bytes, high: bytes, revision: int, *kvs: kv_pb2.KeyValue, hash: int = 0) -> None:
        covered = holdfast_pb2.KeyRange(key=low, range_end=high)
        host.core.chunk(holdfast_pb2.FollowChunk(kvs=kvs, range=covered, revision=revision, hash=hash))

    for low, high, revision, kvs, what in (
        (b"/a/5", b"/a/6", watermark, [kv], "its hash"),
        (b"/a/6", b"/a/7", watermark, [kv], "where it cannot be"),
        (b"/a/5", b"/a/6", watermark, [kv, kv], "where it cannot be"),
        (b"/a/5", b"/a/5", watermark, [], "covers nothing"),
        (b"/a/5", b"/a/4", watermark, [], "covers nothing"),
        (b"/a/", b"/a0", watermark, [], "other ranges"),
        (b"/b/", b"/b0", watermark, [], "other ranges"),
        (b"/a/5", b"/a/6", watermark - 1, [], "older"),
    ):
        with pytest.raises(BrokenUpstream, match=what):
            chunk(low, high, revision, *kvs)
    with pytest.raises(BrokenUpstream, match="not announced"):
        host.core.chunk(holdfast_pb2.FollowChunk(kvs=[kv]))
    with pytest.raises(BrokenUpstream, match="not whole"):
        host.core.trailer(holdfast_pb2.FollowTrailer(revision=watermark))
    assert host.core.start("r", "").held == held


def test_an_upstream_that_does_not_say_what_chunks_cover_is_followed(host: Breaking) -> None:
    """As one of an earlier version: nothing counts before the trailer."""

    def old(frames: list[bytes]) -> list[bytes]:
        found = []
        for frame in frames:
            response = holdfast_pb2.FollowResponse.FromString(frame)
            if response.HasField("hello"):
                response.hello.ClearField("ranged")
            if response.HasField("chunk"):
                for name in ("range", "revision", "hash"):
                    response.chunk.ClearField(name)
            found.append(response.SerializeToString())
        return found

    host.take(old(host.upstream.tick(0)))
    frames = list(iter(lambda: host.upstream.fill(0), []))
    host.take(old([frame for (frame,) in frames[:-1]]))
    assert not host.core.complete
    assert host.core.building is None
    host.take(old(frames[-1]))
    host.tell()
    assert host.core.whole
    host.same()
    host.put(b"/a/1")
    host.same()


def test_a_follower_that_does_not_resume_is_sent_what_it_lacks_at_once(host: Breaking) -> None:
    """As one of an earlier version, whose changes wait for the snapshot."""
    wide, host.core = host.core, ReplicaCore(MemoryStore(), ranges_of(["/a/00"]))
    host.begin()
    host.rest()
    host.core = ReplicaCore(host.core.here.store, wide.ranges)
    host.put(b"/a/000", b"/a/019")
    host.upstream.close()
    start = host.core.start("r", "")
    start.resumes = False
    host.upstream = Upstream(host, next(NUMBERS), host.followers)
    host.upstream.begin(start)
    first = [holdfast_pb2.FollowResponse.FromString(f).WhichOneof("response") for f in host.upstream.tick(0)]
    assert first == ["hello"]
    assert host.upstream.filling
    host.upstream.close()


class Busy(MemoryStore):
    """Takes no writes while it is busy."""

    busy = False

    def apply(self, batch: list[Write]) -> None:
        if self.busy:
            raise StoreBusy("busy")
        super().apply(batch)


def test_a_store_that_takes_nothing_is_waited_for(host: Breaking) -> None:
    core, store = host.core, Busy()
    host.take(host.upstream.tick(0))
    core.build(store)
    host.some(1)
    store.busy = True
    host.some(1)
    assert core.stalled
    assert not core.settle()
    store.busy = False
    assert core.settle()
    while core.here.store is not store:
        store.busy = True
        host.some(1)
        assert not core.built, "it is not durable yet"
        store.busy = False
        assert core.settle()
        host.succeed()
    host.same()


def test_what_is_noted_while_a_snapshot_takes_its_place_is_in_both_stores(host: Breaking) -> None:
    """Whichever of them a crash leaves in use, it has that. What an earlier attempt took is not brought back."""
    core, store = host.core, MemoryStore()
    core.notes.put(b"kept", b"1")
    core.notes.put(b"removed", b"1")
    store.apply([(Family.META, b"replica/of an earlier attempt", b"1")])
    host.take(host.upstream.tick(0))
    core.build(store)
    while not core.built:
        for frame in host.upstream.fill(0):
            core.chunk(holdfast_pb2.FollowResponse.FromString(frame).chunk)
    old = core.here.store
    core.conclude()
    core.notes.put(b"meanwhile", b"1")
    core.notes.put(b"removed", None)
    for kept in (old, store):
        names = {row for row, _ in kept.scan(Family.META, b"replica/", b"replica0")}
        assert names - {b"replica/position", b"replica/holding"} == {b"replica/kept", b"replica/meanwhile"}
    core.succeed()
    core.notes.put(b"after", b"1")
    assert core.notes.get(b"after")
    assert store.get(Family.META, b"replica/after")
    assert old.get(Family.META, b"replica/after") is None
