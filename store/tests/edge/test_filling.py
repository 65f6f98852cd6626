"""A replica's snapshot is read a frame at a time, and is of one moment whatever is written meanwhile."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
from holdfast.edge.filling import CHUNK_BYTES, CHUNK_ROWS, Filling
from holdfast.kv import requests
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Pending
from holdfast.proto import holdfast_pb2, kv_pb2, rpc_pb2
from holdfast.storage.state import RocksStore

RANGES = ((b"/a/", b"/a0"), (b"/b/", b"/b0"), (b"/none/", b"/none0"))


def put(space: KeySpace, pending: Pending, *keys: bytes, size: int = 3) -> None:
    for key in keys:
        requests.put(space, (), rpc_pb2.PutRequest(key=key, value=b"x" * size))
        space.commit()
    pending.flush()


def test_frames_are_bounded_and_of_one_moment(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "s")
    pending = Pending(store)
    space = KeySpace(pending)
    put(space, pending, *(b"/a/%05d" % n for n in range(1200)), b"/c/1")
    put(space, pending, *(b"/b/%d" % n for n in range(5)), size=CHUNK_BYTES)
    trailer = holdfast_pb2.FollowTrailer(revision=space.revision)
    frames = Filling(store, RANGES, trailer).frames()
    kvs: list[kv_pb2.KeyValue] = []
    count = 0
    for frame in frames:
        # Between any two frames the state changes, ahead of what was read and behind it.
        put(space, pending, b"/a/00000", b"/a/99999", b"/b/4", b"/b/9", size=9)
        message = holdfast_pb2.FollowResponse.FromString(frame)
        if message.WhichOneof("response") == "trailer":
            trailer = message.trailer
            continue
        assert len(message.chunk.kvs) <= CHUNK_ROWS
        assert len(frame) < 2 * CHUNK_BYTES + 1000
        kvs += message.chunk.kvs
        count += 1
    assert count >= 1200 // CHUNK_ROWS + 5
    assert [kv.key for kv in kvs] == [*(b"/a/%05d" % n for n in range(1200)), *(b"/b/%d" % n for n in range(5))]
    assert all(kv.mod_revision <= trailer.revision for kv in kvs)
    crc = 0
    for kv in kvs:
        crc = google_crc32c.extend(crc, kv.SerializeToString())
    assert (trailer.count, trailer.hash) == (1205, crc)
    store.close()
