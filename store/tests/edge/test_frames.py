"""A frame that is put together from parts is the message that protobuf makes, and is made once for all followers."""

from __future__ import annotations

from holdfast.edge.frames import RevisionFrames
from holdfast.kv.rows import DELETE, PUT, Change
from holdfast.proto import holdfast_pb2, kv_pb2

RANGES = ((b"/a/", b"/a0"),)


def change(key: bytes, type_: int, revision: int) -> Change:
    kv = kv_pb2.KeyValue(key=key, mod_revision=revision)
    if type_ == PUT:
        kv.value, kv.version, kv.create_revision = b"v" * 300, 1, revision
    return Change(key, type_, revision, kv.SerializeToString(), False, b"not sent")


def test_it_is_the_message() -> None:
    changes = [change(b"/a/1", PUT, 300), change(b"/a/2", DELETE, 300)]
    frame = RevisionFrames().frame(RANGES, 1, 5, changes, 299)
    found = holdfast_pb2.FollowResponse.FromString(frame).revision
    assert (found.revision, found.term, found.previous) == (300, 5, 299)
    assert [(e.type, e.kv.SerializeToString()) for e in found.events] == [
        (kv_pb2.Event.PUT, changes[0].kv),
        (kv_pb2.Event.DELETE, changes[1].kv),
    ]
    assert not found.events[0].HasField("prev_kv"), "a replica knows what it had"


def test_followers_with_one_filter_share_it_and_others_do_not() -> None:
    frames = RevisionFrames(most=1500)
    for revision in range(1, 9):
        for previous in (0, revision - 1, revision - 1):
            frame = frames.frame(RANGES, 1, 1, [change(b"/a/1", PUT, revision)], previous)
            assert holdfast_pb2.FollowResponse.FromString(frame).revision.previous == previous
    assert frames.encoded == 8
    frames.frame(((b"/a/1", b"/a/2"),), 1, 1, [change(b"/a/1", PUT, 8)], 0)
    frames.frame(RANGES, 1, 2, [change(b"/a/1", PUT, 8)], 0)
    assert frames.encoded == 10
    frames.frame(RANGES, 1, 1, [change(b"/a/1", PUT, 1)], 0)
    assert frames.encoded == 11, "only the newest are kept"


def test_large_filters_count_too() -> None:
    """Each stream may have another one, and frames of streams that have ended stayed."""
    frames = RevisionFrames(most=100_000)
    for number in range(50):
        ranges = tuple((b"%d/%d" % (number, n) + bytes(1000), None) for n in range(30))
        frames.frame(ranges, 1, 1, [change(b"/a/1", PUT, number + 1)], 0)
    assert len(frames._bodies) == 3
