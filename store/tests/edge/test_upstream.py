"""The Follow stream has no gaps: a replica that applies its frames has what the upstream has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from holdfast.edge.core import Loop, ReplicaCore, ranges_of
from holdfast.edge.follow import REPORT_BYTES, fitting
from holdfast.edge.lineage import Lineage
from holdfast.edge.upstream import ALIVE_SECONDS, STALL_SECONDS, Followers, Upstream, check_below, check_start
from holdfast.kv import requests
from holdfast.kv.rows import Change, pack_current, unpack_current
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, MemoryStore, Pending
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.served.keyspace import ServedSpace
from holdfast.served.scans import Scans
from holdfast.status import RequestError
from holdfast.watch.hub import Hub

SECOND = 1_000_000_000


class Host:
    """A key space that is served, and one replica that follows it."""

    lineage, term, users = Lineage.of(7, 1, 0), 1, False
    rights = b""
    path = holdfast_pb2.FollowPath(nodes=[1])

    def __init__(self, followers: Followers | None = None) -> None:
        self.pending = Pending(MemoryStore())
        self.space = KeySpace(self.pending)
        self.served = ServedSpace(self.space, Scans(lambda work: None, lambda: None))
        self.followers = followers or Followers(chunk_rows=2)
        self.core = ReplicaCore(MemoryStore(), ranges_of(["/a/"]))
        self.upstream = self.connect(1)

    @property
    def hub(self) -> Hub:
        return self.served.hub

    def poke(self) -> None:
        """The next write or `settle` does it."""

    def connect(self, stream: int) -> Upstream:
        self.upstream = Upstream(self, stream, self.followers)
        start = self.core.start("r", "")
        check_start(start)
        self.upstream.begin(start)
        return self.upstream

    def put(self, *keys: bytes) -> None:
        for key in keys:
            requests.put(self.space, (), rpc_pb2.PutRequest(key=key, value=b"%d" % self.space.revision))
        revision = self.space.commit()
        self.pending.flush()
        self.tell([revision])

    def tell(self, revisions: Sequence[list[Change]] = ()) -> None:
        for delivery in self.served.publish(revisions):
            self.take(self.upstream.deliver(delivery))

    def take(self, frames: list[bytes]) -> None:
        core = self.core
        for frame in frames:
            response = holdfast_pb2.FollowResponse.FromString(frame)
            kind = response.WhichOneof("response")
            assert kind is not None
            getattr(core, "follows" if kind == "path" else kind)(getattr(response, kind))
            if core.wants_store:
                core.build(MemoryStore())
            self.succeed()

    def succeed(self) -> None:
        """Serve what was built, if it is whole."""
        if self.core.built:
            self.core.conclude()
            self.core.succeed()

    def follow(self) -> None:
        """Begin, with the whole of a snapshot if one is needed, up to now."""
        self.take(self.upstream.tick(0))
        while self.upstream.filling:
            self.take(self.upstream.fill(0))
        self.tell()

    def content(self, space: KeySpace) -> list[tuple[bytes, int]]:
        request = rpc_pb2.RangeRequest(key=b"/a/", range_end=b"/a0")
        return [(kv.key, kv.mod_revision) for kv in requests.range_now(space, request).kvs]

    def same(self) -> None:
        assert self.content(self.core.space) == self.content(self.space)


def test_what_is_written_amid_a_snapshot_follows_it() -> None:
    host = Host()
    host.put(*(b"/a/%d" % n for n in range(7)))
    host.take(host.upstream.tick(0))
    while host.upstream.filling:
        host.put(b"/a/3", b"/c/1")
        host.take(host.upstream.fill(0))
    host.tell()
    host.same()
    host.put(b"/c/2")
    host.take(host.upstream.tick(0))
    assert host.core.position.watermark == host.space.revision, "a quiet filter hears of progress"


def test_progress_waits_for_what_a_slow_follower_lacks() -> None:
    host = Host()
    host.put(b"/a/1")
    host.follow()
    host.upstream.over()
    host.put(b"/a/2")
    assert host.upstream.tick(0) == []
    host.upstream.writable()
    host.tell()
    host.same()


def test_snapshots_are_few_and_end_with_their_stream() -> None:
    followers = Followers(most_snapshots=1, chunk_rows=2)
    first, second = Host(followers), Host(followers)
    for host in (first, second):
        host.put(b"/a/1", b"/a/2", b"/a/3")
    first.take(first.upstream.tick(0))
    assert second.upstream.tick(0) == [], "it waits"
    with pytest.raises(RequestError, match="nothing of the snapshot was taken"):
        first.upstream.tick((STALL_SECONDS + 1) * SECOND)
    first.upstream.close()
    first.upstream.close()
    assert followers.snapshots == 0
    assert second.upstream.tick(0)


def test_a_follower_that_fell_behind_the_history_begins_again() -> None:
    host = Host()
    host.put(b"/a/1")
    host.follow()
    host.upstream.over()
    for _ in range(5):
        host.put(b"/a/2")
    host.space.compact(host.space.revision)
    host.upstream.writable()
    with pytest.raises(RequestError, match="fell behind the compacted history"):
        host.tell()
    host.upstream.close()
    host.connect(2)
    host.pending.flush()
    host.take(host.upstream.tick(0))
    assert host.upstream.filling, "history does not lead to where it is"
    while host.upstream.filling:
        host.take(host.upstream.fill(0))
    host.same()


def test_a_follower_is_told_when_the_way_to_the_cluster_changes() -> None:
    host = Host()
    host.core = ReplicaCore(MemoryStore(), ranges_of(["/a/"]), 5)
    assert (list(host.core.path.nodes), host.core.path.cut_off) == ([5], True)
    host.connect(2)
    host.put(b"/a/1")
    host.take(host.upstream.tick(0))
    assert (list(host.core.path.nodes), host.core.path.cut_off) == ([5, 1], False)
    while host.upstream.filling:
        host.take(host.upstream.fill(0))
    host.tell()
    host.path = holdfast_pb2.FollowPath(nodes=[1, 8], cut_off=True)
    host.take(host.upstream.tick(0))
    assert (list(host.core.path.nodes), host.core.path.cut_off) == ([5, 1, 8], True)
    host.path = holdfast_pb2.FollowPath(nodes=[1, 5])
    with pytest.raises(Loop):
        host.take(host.upstream.tick(0))


def test_a_follower_hears_that_nothing_has_changed() -> None:
    """Else it would take an upstream that is cut off for one that has failed."""
    host = Host()
    host.put(b"/a/1")
    host.follow()
    host.take(host.upstream.tick(0))
    quiet = [host.upstream.tick(n * SECOND) for n in range(1, 3 * ALIVE_SECONDS + 2)]
    said = [holdfast_pb2.FollowResponse.FromString(frame) for frames in quiet for frame in frames]
    assert 2 <= len(said) <= 3
    assert {response.progress.revision for response in said} == {host.space.revision}


def test_who_needs_no_snapshot_does_not_wait_for_those_of_others() -> None:
    """Sixteen streams that did not read their snapshots kept every replica from following."""
    followers = Followers(most_snapshots=1, chunk_rows=2)
    first, second = Host(followers), Host(followers)
    for host in (first, second):
        host.put(b"/a/1", b"/a/2", b"/a/3")
    second.follow()
    second.upstream.close()
    assert first.upstream.tick(0), "it takes the only place"
    second.put(b"/a/1")
    second.connect(2)
    second.follow()
    second.same()
    third = Host(followers)
    third.put(b"/a/1")
    assert third.upstream.tick(0) == [], "it needs one"


def test_a_report_from_below_has_names() -> None:
    check_below(holdfast_pb2.ReplicaReport(below=[holdfast_pb2.ReplicaReport(replica="r" * 253, pool="p")]))
    for name in ("r" * 254, "a\nb"):
        for wrong in (holdfast_pb2.ReplicaReport(replica=name), holdfast_pb2.ReplicaReport(pool=name)):
            with pytest.raises(RequestError, match="a name that is none"):
                check_below(holdfast_pb2.ReplicaReport(below=[wrong]))


def test_what_is_reported_of_those_below_fits_a_message() -> None:
    reports = [holdfast_pb2.ReplicaReport(replica=f"{n:0253}", pool="p" * 253, watermark=1 << 40) for n in range(5000)]
    report = holdfast_pb2.ReplicaReport(below=fitting(reports))
    assert report.ByteSize() <= REPORT_BYTES
    assert report.below[0].replica == reports[-1].replica, "the newest"


def hash_of(space: KeySpace, revision: int) -> tuple[int, int]:
    hashed = space.hash_range(b"/a/", b"/a0", revision)
    while not hashed.advance(3):
        pass
    return hashed.result()


def test_what_is_not_as_in_the_upstream_is_found_and_fetched_anew() -> None:
    host = Host()
    host.put(*(b"/a/%d" % n for n in range(9)), b"/b/1")
    host.follow()
    host.put(b"/a/3")
    at = host.core.position.watermark
    host.put(b"/a/4")
    watermark = host.core.position.watermark
    assert hash_of(host.core.space, at) == hash_of(host.space, at)
    assert hash_of(host.core.space, watermark) == hash_of(host.space, watermark)
    assert hash_of(host.space, watermark)[1] == 9
    assert hash_of(host.space, at) != hash_of(host.space, watermark)

    pending = Pending(host.core.here.store)
    wrong = unpack_current(pending.get(Family.CUR, b"/a/5") or b"")
    pending.put(Family.CUR, b"/a/5", pack_current(wrong._replace(kv=wrong.kv[:-1] + b"X")))
    pending.put(Family.CUR, b"/a/6", None)
    pending.flush()
    assert hash_of(host.core.space, watermark) != hash_of(host.space, watermark)

    host.core.give_up(host.core.shown)
    assert not host.core.complete
    again = ReplicaCore(host.core.here.store, ranges_of(["/a/"]))
    assert not again.complete, "a restart does not show it, either"
    host.upstream.close()
    host.connect(2)
    host.follow()
    assert host.core.whole
    host.same()
    assert hash_of(host.core.space, 0) == hash_of(host.space, 0)
