"""A replica against the authority: at every watermark it has exactly the authority's keys of its prefixes."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any
from unittest import mock

import google_crc32c
import pytest
from holdfast.edge.core import Loaded, ReplicaCore, WrongCluster, ranges_of
from holdfast.edge.data import BrokenUpstream
from holdfast.edge.history import History
from holdfast.keyrange import bounds
from holdfast.kv import requests
from holdfast.kv.rows import DELETE, unpack_index_key
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, MemoryStore, Pending
from holdfast.proto import holdfast_pb2, kv_pb2, rpc_pb2
from holdfast.watch.hub import Compacted, Hub
from holdfast.watch.watcher import Watcher

PREFIXES = ["/a/", "/b/"]
ANY: Any = mock.ANY


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
        return core.trailer(trailer) is not Loaded.REFUSED


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


def test_a_change_that_was_left_out_is_noticed() -> None:
    authority = Authority()
    core = ReplicaCore(MemoryStore(), ranges_of(PREFIXES))
    authority.write(random.Random(5))
    assert authority.send_snapshot(core)
    at = core.position.watermark
    kv = kv_pb2.KeyValue(key=b"/a/1", mod_revision=at + 3, create_revision=at + 3, version=1)
    frame = holdfast_pb2.FollowRevision(revision=at + 3, previous=at + 1, events=[kv_pb2.Event(kv=kv)])
    with pytest.raises(BrokenUpstream, match=f"revisions {at + 1} to {at + 1} were left out"):
        core.revision(frame)
    assert core.position.watermark == at
    same(core, authority)
    core.progress(holdfast_pb2.FollowProgress(revision=at + 1))
    assert core.revision(frame)


def test_the_history_of_a_snapshot_begins_after_it() -> None:
    """The deletions of its revision are not in it, so a watch that begins there would miss them."""
    store = MemoryStore()
    core = ReplicaCore(store, ranges_of(PREFIXES))
    authority = Authority()
    authority.write(random.Random(6))
    assert authority.send_snapshot(core)
    revision = authority.space.revision
    for now in (core, ReplicaCore(store, ranges_of(PREFIXES))):
        assert now.space.history_from == revision + 1
        now.space.check_revision(revision)  # it can be read there
    hub = Hub(core.space)
    hub.open(1)
    for number, start in enumerate((revision, revision + 1)):
        hub.add(1, Watcher(number, ((b"/a/", b"/a0"),), start))
    assert hub.catch_up() == [Compacted(1, ANY, revision + 1)]


def test_progress_is_stored_later_and_a_restart_before_that_changes_no_key() -> None:
    store = MemoryStore()
    core = ReplicaCore(store, ranges_of(PREFIXES))
    authority = Authority()
    authority.write(random.Random(7))
    assert authority.send_snapshot(core)
    written, at = core.written, core.position.watermark
    for revision in range(at + 1, at + 50):
        assert core.progress(holdfast_pb2.FollowProgress(revision=revision))
    assert core.written == written
    again = ReplicaCore(store, ranges_of(PREFIXES))
    assert again.position.watermark == at
    core.save()
    again = ReplicaCore(store, ranges_of(PREFIXES))
    assert again.position == core.position
    assert core.written == written, "it need not be made durable"
    same(again, authority)


def test_a_position_of_version_0_1_is_read() -> None:
    """It did not say where the history begins; its floor may have been a snapshot."""
    store = MemoryStore()
    pending = Pending(store)
    pending.put(Family.META, b"replica/position", b"".join(n.to_bytes(8, "big") for n in (7, 1, 90, 50, 3, 4)))
    pending.flush()
    position = ReplicaCore(store, ranges_of(PREFIXES)).position
    assert (position.watermark, position.floor, position.history_from) == (90, 50, 51)


def test_history_is_kept_by_its_bytes() -> None:
    history = History(most=16_000)
    for revision in range(1, 1001):
        history.add(revision * 1000, 100)  # others write a thousand revisions between two of ours
        history.forget()
    assert 15_000 < history.bytes <= 16_000
    restarted = History(history.bytes, 1_000_000, most=16_000)
    for revision in range(1_000_001, 1_000_031):
        restarted.add(revision, 100)
    assert restarted.forget() == 1_000_000, "what was there before a restart goes in one part"
    assert restarted.bytes == 3_000
    assert restarted.forget() == 0


def test_of_other_prefixes_it_shows_what_it_has() -> None:
    """Without a network: of wider prefixes the old part, of narrower ones all."""
    authority, store = Authority(), MemoryStore()
    for _ in range(20):
        authority.write(random.Random(_))
    core = ReplicaCore(store, ranges_of(PREFIXES))
    assert authority.send_snapshot(core)
    narrower = ReplicaCore(store, ranges_of(["/a/"]))
    assert narrower.whole
    assert not narrower.covers(b"/b/1", b"/b/2")
    assert not list(store.scan(Family.CUR, b"/b/", b"/b0")), "what belongs to it no more is gone"
    wider = ReplicaCore(store, ranges_of(PREFIXES))
    assert wider.complete
    assert not wider.whole
    assert wider.shown == [(b"/a/", b"/a0")]
    assert wider.lacking == [(b"/b/", b"/b0")]
    start = wider.start("r", "p")
    assert start.watermark == 0, "an upstream of version 0.1 sends everything"
    assert start.held_watermark == authority.space.revision
    elsewhere = ReplicaCore(store, ranges_of(["/q/"]))
    assert not elsewhere.complete
    assert elsewhere.lacking == [(b"/q/", b"/q0")]


def test_a_part_is_shown_when_the_watermark_has_reached_it() -> None:
    authority, store = Authority(), MemoryStore()
    core = ReplicaCore(store, ranges_of(["/a/"]))
    chance = random.Random(3)
    for _ in range(5):
        authority.write(chance)
    core.hello(authority.hello(core, True))
    kvs = authority.keys("/a/")
    core.chunk(holdfast_pb2.FollowChunk(kvs=kvs))
    trailer = holdfast_pb2.FollowTrailer(
        filter_version=core.filter_version, revision=authority.space.revision, count=len(kvs), hash=crc_of(kvs)
    )
    assert core.trailer(trailer) is Loaded.CONTINUES
    behind = authority.space.revision
    core = ReplicaCore(store, ranges_of(PREFIXES))
    for _ in range(40):
        authority.write(chance)
    hello = authority.hello(core, True)
    hello.partial = True
    core.hello(hello)
    arriving = authority.keys("/b/")
    core.chunk(holdfast_pb2.FollowChunk(kvs=arriving))
    since = authority.space.revision
    part = holdfast_pb2.FollowTrailer(
        filter_version=core.filter_version, revision=since, count=len(arriving), hash=crc_of(arriving)
    )
    with pytest.raises(BrokenUpstream, match="other ranges"):
        core.trailer(part)
    core.hello(hello)
    core.chunk(holdfast_pb2.FollowChunk(kvs=arriving))
    part.filter.add(key=b"/b/", range_end=b"/b0")
    assert core.trailer(part) is Loaded.CONTINUES
    again = ReplicaCore(store, ranges_of(PREFIXES))
    for now in (core, again):
        assert now.position.watermark == behind
        assert now.shown == [(b"/a/", b"/a0")], "the rest is older"
        assert not now.lacking
        assert now.start("r", "p").watermark == behind
    core = again
    for frame in authority.frames:
        if behind < frame.revision <= since:
            core.revision(frame)
    core.progress(holdfast_pb2.FollowProgress(revision=since))
    assert core.whole
    same(core, authority)
    assert core.position.floor == since
    versions = [unpack_index_key(row)[:2] for row, _ in store.scan(Family.IDX, b"", None)]
    assert len(versions) == len(set(versions)), "a change is there twice"
    for _ in range(20):
        authority.write(chance)
    for frame in authority.frames:
        core.revision(frame)
    core.progress(holdfast_pb2.FollowProgress(revision=authority.space.revision))
    for revision in range(since, authority.space.revision + 1):
        same(core, authority, revision)


def crc_of(kvs: Iterable[kv_pb2.KeyValue]) -> int:
    crc = 0
    for kv in kvs:
        crc = google_crc32c.extend(crc, kv.SerializeToString())
    return crc


def test_scope() -> None:
    core = ReplicaCore(MemoryStore(), ranges_of(PREFIXES))
    assert core.wants(*bounds(b"/a/x", b""))
    assert core.wants(*bounds(b"/a/", b"/a0"))
    assert not core.wants(*bounds(b"/c/x", b""))
    assert not core.wants(*bounds(b"/a/", b"/b0")), "keys between the prefixes are not here"
    assert not core.wants(*bounds(b"/a/", b"\x00"))
    assert not core.covers(*bounds(b"/a/x", b"")), "nothing is here yet"
