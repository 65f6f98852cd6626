"""The rules of replications, without a network: what goes together, which exclude each other, what is checked."""

from __future__ import annotations

import pytest
from holdfast.cells.errors import ReplicationLoop, ReplicationRefused
from holdfast.cells.followed import BrokenStream, Changes, Frames, Part, Whole
from holdfast.cells.replication_batch import (
    MOST_BYTES,
    MOST_WRITES,
    TOGETHER_BYTES,
    TOGETHER_WRITES,
    Batch,
    is_bare,
    operations,
    pieces,
)
from holdfast.cells.replication_record import Record, Upstream, check_alone, check_prefix, joined, overlap
from holdfast.client.txn import Ops
from holdfast.kv.validate import check_txn
from holdfast.proto import holdfast_pb2, kv_pb2, rpc_pb2
from hypothesis import given
from hypothesis import strategies as st

EU, US, AP = 1, 2, 3


# ---- what goes together --------------------------------------------------------------------------------------


def test_revisions_go_together_unless_a_key_is_written_twice() -> None:
    batch = Batch()
    assert batch.take(5, {b"a": b"1"})
    assert batch.take(6, {b"b": None})
    assert batch.take(9, {}), "nothing of the prefix has changed"
    assert not batch.take(10, {b"c": b"1", b"a": None})
    assert (batch.revision, batch.writes) == (9, {b"a": b"1", b"b": None})


def test_a_batch_is_bounded_but_its_first_revision_is_not() -> None:
    many = {b"%d" % n: b"" for n in range(TOGETHER_WRITES)}
    batch = Batch()
    assert batch.take(1, many)
    assert not batch.take(2, {b"x": b""})
    batch = Batch()
    assert batch.take(1, {b"x": b"v" * TOGETHER_BYTES})
    assert not batch.take(2, {b"y": b""})
    assert batch.take(2, {})
    batch = Batch()
    assert batch.take(1, {})
    assert batch.take(2, {b"x": b"v" * 2 * TOGETHER_BYTES})


@given(
    st.dictionaries(st.binary(min_size=1, max_size=8), st.sampled_from([None, 0, 10, 300_000, 1_572_000]), max_size=20)
)
def test_pieces_are_all_writes_in_order_and_fit(sizes: dict[bytes, int | None]) -> None:
    writes = {key: None if size is None else b"v" * size for key, size in sizes.items()}
    found = list(pieces(writes))
    assert [item for piece in found for item in piece.items()] == list(writes.items())
    assert len(found) == 1 or all(found)
    for piece in found:
        assert len(piece) <= MOST_WRITES
        if not is_bare(piece):
            assert rpc_pb2.TxnRequest(success=operations(piece)).ByteSize() <= MOST_BYTES


@pytest.mark.parametrize("count", [0, 1, 100, 101, 128, 500, MOST_WRITES])
def test_a_cell_takes_so_many_writes_with_the_record(count: int) -> None:
    writes = {b"/%d" % n: b"v" if n % 2 else None for n in range(count)}
    (piece,) = pieces(writes)
    request = rpc_pb2.TxnRequest(success=[*operations(piece), Ops.put("/record", "r")])
    check_txn(request)
    flat = [each for op in request.success for each in (op.request_txn.success or [op])]
    assert len(flat) == count + 1


def test_more_writes_are_more_pieces() -> None:
    assert [len(piece) for piece in pieces({b"%d" % n: b"" for n in range(MOST_WRITES + 1)})] == [MOST_WRITES, 1]


# ---- which replications exclude each other -------------------------------------------------------------------


def record(source: str, *path: int, epoch: int = 1) -> Record:
    return Record(source, path[-1], epoch, path[0], 7, path)


def test_a_record_is_read_as_it_was_written() -> None:
    found = record("eu", AP, EU)
    assert Record.unpacked(found.packed()) == found
    with pytest.raises(ValueError, match="no record of a replication"):
        Record.unpacked(b"\xff")


@pytest.mark.parametrize("prefix", [b"", b"/", b"/c", b"/cells", b"/cells/", b"/cells/self", b"\xff"])
def test_prefixes_that_are_refused(prefix: bytes) -> None:
    with pytest.raises(ValueError, match="prefix"):
        check_prefix(prefix)


@pytest.mark.parametrize("prefix", [b"/global/", b"a", b"/cellsb", b"/d", b"\xffa"])
def test_prefixes_that_are_taken(prefix: bytes) -> None:
    check_prefix(prefix)


@given(st.binary(max_size=3), st.binary(max_size=3), st.binary(max_size=3))
def test_prefixes_overlap_if_a_key_has_both(one: bytes, other: bytes, rest: bytes) -> None:
    has_both = any(key.startswith(one) and key.startswith(other) for key in (one + rest, other + rest))
    assert overlap(one, other) == has_both


def test_each_key_has_one_source() -> None:
    there = {b"/a/": record("eu", EU), b"/b/": record("ap", AP)}
    check_alone("us", "eu", b"/a/", there)
    check_alone("us", "eu", b"/c/", there)
    for source, prefix in (("ap", b"/a/"), ("ap", b"/a/b"), ("eu", b"/a/b"), ("eu", b"/b/"), ("eu", b"/a")):
        with pytest.raises(ReplicationRefused, match="already"):
            check_alone("us", source, prefix, there)


def test_nothing_is_replicated_to_where_it_came_from() -> None:
    upstream = Upstream("us", b"/a/")
    upstream.learn({b"/a/": record("eu", AP, EU), b"/b/": record("sa", 9)})
    assert upstream.path(US) == (AP, EU, US), "what does not overlap does not matter"
    upstream.check("af", 7)
    for destination, cluster in (("eu", EU), ("ap", AP), ("eu", 99)):
        with pytest.raises(ReplicationLoop, match="/a/ from eu"):
            upstream.check(destination, cluster)
    upstream.learn({b"/a/": None})
    upstream.check("eu", EU)
    assert upstream.path(US) == (US,)


def test_a_claim_stops_only_who_claims() -> None:
    upstream = Upstream("us", b"/a/")
    upstream.learn({b"/a/b": record("eu", EU, epoch=0)})
    upstream.check("eu", EU)
    assert upstream.path(US) == (US,)
    with pytest.raises(ReplicationLoop):
        upstream.check("eu", EU, claims=True)


def test_paths_are_joined() -> None:
    assert joined((1, 2), (3, 2), (4,)) == (1, 3, 2, 4)


# ---- what a source sends -------------------------------------------------------------------------------------

_Response = holdfast_pb2.FollowResponse


def begun(*, snapshot: bool) -> Frames:
    frames = Frames("eu-1", [b"/b/", b"/a/"])
    frames.begin(holdfast_pb2.FollowHello(snapshot=snapshot, ranged=True), 0 if snapshot else 5)
    return frames


def revision(number: int, key: bytes = b"/a/x", previous: int = 0) -> _Response:
    event = kv_pb2.Event(kv=kv_pb2.KeyValue(key=key, value=b"1", mod_revision=number))
    return _Response(revision=holdfast_pb2.FollowRevision(revision=number, events=[event], previous=previous))


def chunk(low: bytes, high: bytes, *keys: bytes) -> _Response:
    kvs = [kv_pb2.KeyValue(key=key, value=b"1") for key in keys]
    return _Response(chunk=holdfast_pb2.FollowChunk(kvs=kvs, range=holdfast_pb2.KeyRange(key=low, range_end=high)))


def trailer(number: int) -> _Response:
    return _Response(trailer=holdfast_pb2.FollowTrailer(revision=number))


def progress(number: int) -> _Response:
    return _Response(progress=holdfast_pb2.FollowProgress(revision=number))


def test_a_snapshot_and_changes_are_taken() -> None:
    frames = begun(snapshot=True)
    assert frames.item(chunk(b"/a/", b"/a/k\0", b"/a/k")) == Part(b"/a/", b"/a/k\0", {b"/a/k": b"1"})
    assert frames.item(chunk(b"/a/k\0", b"/a0")) == Part(b"/a/k\0", b"/a0", {})
    assert frames.item(chunk(b"/b/", b"/b0", b"/b/1")) == Part(b"/b/", b"/b0", {b"/b/1": b"1"})
    assert frames.item(trailer(9)) == Whole(9)
    assert frames.item(_Response(path=holdfast_pb2.FollowPath())) is None
    assert frames.item(revision(10, previous=9)) == Changes(10, {b"/a/x": b"1"})
    assert frames.item(progress(12)) == Changes(12, {})
    assert frames.item(progress(11)) == Changes(12, {})


@pytest.mark.parametrize(
    "sent",
    [
        [revision(5)],
        [revision(8, previous=7)],
        [revision(6), revision(6)],
        [revision(6, b"/c/x")],
        [chunk(b"/a/", b"/a0")],
        [trailer(9)],
    ],
)
def test_changes_that_leave_something_out_are_noticed(sent: list[_Response]) -> None:
    frames = begun(snapshot=False)
    with pytest.raises(BrokenStream):
        [frames.item(each) for each in sent]


@pytest.mark.parametrize(
    "sent",
    [
        [chunk(b"/a/b", b"/a0")],
        [chunk(b"/a/", b"/a/c"), chunk(b"/a/d", b"/a0")],
        [chunk(b"/a/", b"/b0")],
        [chunk(b"/a/", b"/a/c", b"/a/c")],
        [chunk(b"/a/", b"/a0"), trailer(9)],
        [chunk(b"/a/", b"/a0"), revision(9)],
        [progress(9)],
        [chunk(b"/a/", b"/a0"), chunk(b"/b/", b"/b0"), trailer(0)],
        [chunk(b"/a/", b"/a0"), chunk(b"/b/", b"\0")],
    ],
)
def test_a_snapshot_that_is_not_whole_is_noticed(sent: list[_Response]) -> None:
    frames = begun(snapshot=True)
    with pytest.raises(BrokenStream):
        [frames.item(each) for each in sent]


def test_a_snapshot_has_to_say_what_it_covers() -> None:
    for hello in (
        holdfast_pb2.FollowHello(snapshot=True),
        holdfast_pb2.FollowHello(snapshot=True, ranged=True, partial=True),
        holdfast_pb2.FollowHello(),
    ):
        with pytest.raises(BrokenStream):
            Frames("eu-1", [b"/a/"]).begin(hello, 0)
