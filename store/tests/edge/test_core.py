"""A replica against the authority: at every watermark it has exactly the authority's keys of its prefixes."""

from __future__ import annotations

import random

import google_crc32c
import pytest
from holdfast.edge.core import BrokenUpstream, ReplicaCore, WrongCluster, ranges_of
from holdfast.keyrange import bounds
from holdfast.kv import requests
from holdfast.kv.rows import DELETE
from holdfast.kv.space import KeySpace
from holdfast.kv.store import MemoryStore, Pending
from holdfast.proto import holdfast_pb2, kv_pb2, rpc_pb2

PREFIXES = ["/a/", "/b/"]


class Authority:
    """A key space that produces the frames of the Follow stream."""

    def __init__(self) -> None:
        self.space = KeySpace(Pending(MemoryStore()))
        self.frames: list[holdfast_pb2.FollowRevision] = []

    def write(self, chance: random.Random) -> None:
        for key in chance.sample([b"/a/1", b"/a/2", b"/b/1", b"/c/1", b"/a"], chance.randrange(1, 4)):
            if chance.random() < 0.7:
                requests.put(self.space, (), rpc_pb2.PutRequest(key=key, value=b"%d" % chance.randrange(100)))
            else:
                self.space.delete(key)
        frame = holdfast_pb2.FollowRevision(term=1)
        for change in self.space.commit():
            frame.revision = change.revision
            if change.key.startswith((b"/a/", b"/b/")):
                type_ = kv_pb2.Event.DELETE if change.type == DELETE else kv_pb2.Event.PUT
                frame.events.add(type=type_, kv=kv_pb2.KeyValue.FromString(change.kv))
        if frame.events:
            self.frames.append(frame)

    def hello(self, core: ReplicaCore, snapshot: bool) -> holdfast_pb2.FollowHello:
        return holdfast_pb2.FollowHello(
            cluster_id=7, epoch=1, term=1, filter_version=core.filter_version, floor=1, snapshot=snapshot
        )

    def keys(self, prefix: str, revision: int = 0) -> list[kv_pb2.KeyValue]:
        start = prefix.encode()
        end = start[:-1] + bytes([start[-1] + 1])
        request = rpc_pb2.RangeRequest(key=start, range_end=end, revision=revision)
        return list(requests.range_now(self.space, request).kvs)

    def send_snapshot(self, core: ReplicaCore, *, lose: bool = False, damage: bool = False) -> bool:
        core.hello(self.hello(core, True))
        kvs = [kv for prefix in PREFIXES for kv in self.keys(prefix)]
        crc = 0
        for kv in kvs:
            crc = google_crc32c.extend(crc, kv.SerializeToString())
        sent = kvs[:-1] if lose else kvs
        core.chunk(holdfast_pb2.FollowChunk(kvs=sent))
        trailer = holdfast_pb2.FollowTrailer(
            filter_version=core.filter_version,
            revision=self.space.revision,
            count=len(kvs),
            hash=crc ^ 1 if damage else crc,
        )
        return core.trailer(trailer)


def same(core: ReplicaCore, authority: Authority, revision: int = 0) -> None:
    for prefix in PREFIXES:
        start = prefix.encode()
        request = rpc_pb2.RangeRequest(key=start, range_end=start[:-1] + bytes([start[-1] + 1]), revision=revision)
        assert list(requests.range_now(core.space, request).kvs) == authority.keys(prefix, revision)


@pytest.mark.parametrize("seed", range(25))
def test_a_replica_equals_the_authority_at_its_watermark(seed: int) -> None:
    chance = random.Random(seed)
    authority, store = Authority(), MemoryStore()
    core = ReplicaCore(store, ranges_of(PREFIXES))
    for _ in range(chance.randrange(10)):
        authority.write(chance)
    assert not core.complete
    assert authority.send_snapshot(core)
    same(core, authority)
    floor = authority.space.revision
    told: list[int] = []
    at = len(authority.frames)
    for _ in range(60):
        authority.write(chance)
        if chance.random() < 0.3:  # a crash: what is stored is what the new one starts from
            core = ReplicaCore(store, ranges_of(PREFIXES))
            at = next(
                (i for i, f in enumerate(authority.frames) if f.revision > core.position.watermark),
                len(authority.frames),
            )
        if chance.random() < 0.2:
            at = max(0, at - 3)  # the upstream repeats itself
        while at < len(authority.frames) and chance.random() < 0.8:
            told += [c.revision for c in core.revision(authority.frames[at])]
            at += 1
    for frame in authority.frames[at:]:
        told += [c.revision for c in core.revision(frame)]
    core.progress(holdfast_pb2.FollowProgress(revision=authority.space.revision, term=1))
    same(core, authority)
    for revision in range(floor, authority.space.revision + 1):
        same(core, authority, revision)
    wanted = [f.revision for f in authority.frames if f.revision > floor for _ in f.events]
    assert told == wanted, "an event was missed or told twice"


def test_a_snapshot_counts_only_whole() -> None:
    chance = random.Random(1)
    authority = Authority()
    for _ in range(20):
        authority.write(chance)
    core = ReplicaCore(MemoryStore(), ranges_of(PREFIXES))
    assert authority.send_snapshot(core)
    before = core.position
    for _ in range(20):
        authority.write(chance)
    assert not authority.send_snapshot(core, lose=True)
    assert not authority.send_snapshot(core, damage=True)
    assert core.position == before, "an incomplete snapshot must not take anything away"
    assert authority.send_snapshot(core)
    same(core, authority)


def test_an_older_snapshot_is_refused() -> None:
    authority = Authority()
    core = ReplicaCore(MemoryStore(), ranges_of(PREFIXES))
    authority.write(random.Random(2))
    assert authority.send_snapshot(core)
    core.progress(holdfast_pb2.FollowProgress(revision=50, term=1))
    assert not authority.send_snapshot(core)
    assert core.position.watermark == 50


def test_another_cluster_is_refused_and_changes_nothing() -> None:
    authority = Authority()
    core = ReplicaCore(MemoryStore(), ranges_of(PREFIXES))
    authority.write(random.Random(3))
    authority.send_snapshot(core)
    hello = authority.hello(core, True)
    hello.cluster_id = 8
    with pytest.raises(WrongCluster):
        core.hello(hello)
    same(core, authority)


def test_an_upstream_that_breaks_the_protocol_is_left_and_changes_nothing() -> None:
    """The process ended by an AssertionError."""
    authority = Authority()
    core = ReplicaCore(MemoryStore(), ranges_of(PREFIXES))
    trailer = holdfast_pb2.FollowTrailer(filter_version=core.filter_version, revision=9)
    with pytest.raises(BrokenUpstream):
        core.trailer(trailer)
    core.hello(authority.hello(core, False))
    with pytest.raises(BrokenUpstream):
        core.chunk(holdfast_pb2.FollowChunk())
    with pytest.raises(BrokenUpstream):
        core.trailer(trailer)
    with pytest.raises(BrokenUpstream):
        core.hello(holdfast_pb2.FollowHello(filter_version=core.filter_version + 1))
    assert not core.complete


def test_another_filter_needs_a_snapshot() -> None:
    authority, store = Authority(), MemoryStore()
    core = ReplicaCore(store, ranges_of(["/a/"]))
    core.hello(authority.hello(core, True))
    core.trailer(holdfast_pb2.FollowTrailer(filter_version=core.filter_version, revision=9))
    assert core.complete
    wider = ReplicaCore(store, ranges_of(PREFIXES))
    assert not wider.complete
    assert wider.start("r", "p").watermark == 0


def test_scope() -> None:
    core = ReplicaCore(MemoryStore(), ranges_of(PREFIXES))
    assert core.covers(*bounds(b"/a/x", b""))
    assert core.covers(*bounds(b"/a/", b"/a0"))
    assert not core.covers(*bounds(b"/c/x", b""))
    assert not core.covers(*bounds(b"/a/", b"/b0")), "keys between the prefixes are not here"
    assert not core.covers(*bounds(b"/a/", b"\x00"))
