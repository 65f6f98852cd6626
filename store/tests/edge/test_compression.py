"""What followers are sent may be compressed, frame by frame; what is damaged is noticed."""

from __future__ import annotations

import pytest
import zstandard
from holdfast.edge.compression import LEAST_BYTES, MOST_BYTES, BadFrame, Compressor, unpack
from holdfast.proto import holdfast_pb2, kv_pb2


def chunk(values: list[bytes]) -> bytes:
    kvs = [kv_pb2.KeyValue(key=b"/a/%d" % n, value=value) for n, value in enumerate(values)]
    return holdfast_pb2.FollowResponse(chunk=holdfast_pb2.FollowChunk(kvs=kvs)).SerializeToString()


def test_a_large_frame_becomes_small_and_comes_out_as_it_was() -> None:
    frame = chunk([b'{"feature": "checkout", "enabled": true, "percentage": %d}' % n for n in range(500)])
    packed = Compressor().pack(frame)
    assert len(packed) < len(frame) / 5
    response = holdfast_pb2.FollowResponse.FromString(packed)
    assert response.WhichOneof("response") == "zstd"
    assert unpack(response.zstd) == frame


def test_a_frame_that_does_not_become_smaller_stays() -> None:
    small, random = chunk([b"x"]), chunk([bytes((n * n * 2654435761 >> 7) % 256 for n in range(5000))])
    assert len(small) < LEAST_BYTES
    compressor = Compressor()
    assert compressor.pack(small) is small
    assert len(compressor.pack(random)) <= len(random)


def test_all_followers_of_a_filter_get_the_same_bytes() -> None:
    frame = chunk([b"same" * 1000])
    compressor = Compressor()
    assert compressor.pack(frame) is compressor.pack(bytes(frame))


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"no zstd at all",
        zstandard.compress(b"x" * 5000)[:-3],
        zstandard.compress(b"x" * 5000) + b"more",
        zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 5000),
        zstandard.compress(bytes(MOST_BYTES + 1)),
    ],
    ids=["empty", "other bytes", "cut", "more after it", "no size", "too large"],
)
def test_what_is_no_frame_is_refused(bad: bytes) -> None:
    with pytest.raises(BadFrame, match="a frame that"):
        unpack(bad)
