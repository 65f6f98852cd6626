"""Compresses what followers are sent: an edge site may pay for each byte.

Each frame is compressed by itself. So all followers of one filter can be sent the same bytes, and a stream has no state
that both ends have to agree on. Small frames stay as they are: zstd saves nothing there.
"""

from __future__ import annotations

from collections import OrderedDict

import zstandard

from holdfast.kv.fields import delimited

LEAST_BYTES = 1024
MOST_BYTES = 16 << 20  # of a frame that is compressed: a larger one is not, so a few bytes cannot become very many
KEPT = 16  # frames, for other followers of the same filter
LEVEL = 3
_ZSTD = b"\x4a"  # the field `zstd` of FollowResponse


class BadFrame(Exception):
    """What came is not compressed as it says."""


class Compressor:
    """The frames of all followers of a server."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
        self._newest: OrderedDict[bytes, bytes] = OrderedDict()

    def pack(self, frame: bytes) -> bytes:
        """This serialised FollowResponse, or one that has it in fewer bytes."""
        if not LEAST_BYTES <= len(frame) <= MOST_BYTES:
            return frame
        packed = self._newest.get(frame)
        if packed is None:
            smaller = delimited(_ZSTD, self._zstd.compress(frame))
            packed = self._newest[frame] = smaller if len(smaller) < len(frame) else frame
            if len(self._newest) > KEPT:
                self._newest.popitem(last=False)
        return packed


def unpack(packed: bytes) -> bytes:
    """The serialised FollowResponse in the field `zstd`. Raises BadFrame."""
    try:
        size = zstandard.get_frame_parameters(packed).content_size
        if not 0 < size <= MOST_BYTES:
            raise BadFrame(f"a frame that has {size} bytes when it is decompressed; at most {MOST_BYTES} are taken")
        return zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BadFrame(f"a frame that is not compressed as it says: {error}") from None
