"""What a followed cell sends, checked: a frame that left something out would make the destination differ for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.client.errors import Unavailable
from holdfast.keyrange import bounds, prefix_end, within
from holdfast.proto import holdfast_pb2, kv_pb2


@dataclass(frozen=True, slots=True)
class Changes:
    """All changes up to this revision: of one revision, or none. The values of keys; None: it was deleted."""

    revision: int
    writes: Mapping[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a snapshot: all keys from `low` on and before `high`."""

    low: bytes
    high: bytes
    writes: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Whole:
    """The snapshot is whole, and of this revision."""

    revision: int


Item = Changes | Part | Whole


class BrokenStream(Unavailable):
    """The server sent what does not follow from what it sent before."""


class Frames:
    """Makes items of the frames of one stream, and raises BrokenStream for one that does not follow from those before.
    `sender`: for messages. `prefixes`: none overlaps another one."""

    def __init__(self, sender: str, prefixes: Sequence[bytes]) -> None:
        self.sender = sender
        self.prefixes = sorted(prefixes)
        self._position = 0  # revision up to which the stream is complete
        self._filled = b""  # the key up to which a snapshot is here; empty: none comes

    def begin(self, hello: holdfast_pb2.FollowHello, watermark: int) -> None:
        """`watermark`: the revision after which the follower asked for changes."""
        if hello.snapshot and (hello.partial or not hello.ranged):
            raise BrokenStream(f"{self.sender} does not say what its snapshot covers; upgrade it")
        if not hello.snapshot and not watermark:
            raise BrokenStream(f"{self.sender} sends no snapshot")
        self._position = 0 if hello.snapshot else watermark
        self._filled = self.prefixes[0] if hello.snapshot else b""

    def item(self, frame: holdfast_pb2.FollowResponse) -> Item | None:
        """None: it says nothing about the data."""
        kind = frame.WhichOneof("response")
        if kind == "revision":
            return self._changes(frame.revision)
        if kind == "progress":
            return self._progress(frame.progress)
        if kind == "chunk":
            return self._part(frame.chunk)
        if kind == "trailer":
            return self._whole(frame.trailer)
        return None

    def _changes(self, frame: holdfast_pb2.FollowRevision) -> Changes:
        if self._filled or frame.revision <= self._position or frame.previous > self._position:
            raise BrokenStream(f"{self.sender} left out changes after revision {self._position}")
        writes: dict[bytes, bytes | None] = {}
        for event in frame.events:
            if self._prefix_of(event.kv.key) is None:
                raise BrokenStream(f"{self.sender} sent {event.kv.key[:100]!r}, which was not asked for")
            writes[event.kv.key] = None if event.type == kv_pb2.Event.DELETE else event.kv.value
        self._position = frame.revision
        return Changes(frame.revision, writes)

    def _progress(self, frame: holdfast_pb2.FollowProgress) -> Changes:
        if self._filled:
            raise BrokenStream(f"{self.sender} sent progress in a snapshot")
        self._position = max(self._position, frame.revision)
        return Changes(self._position, {})

    def _part(self, chunk: holdfast_pb2.FollowChunk) -> Part:
        low, high = bounds(chunk.range.key, chunk.range.range_end)
        prefix = self._prefix_of(low)
        end = b"" if prefix is None else prefix_end(prefix)
        if not self._filled or low != self._filled or high is None or not low < high <= end:
            raise BrokenStream(f"{self.sender} left out part of a snapshot after {self._filled[:100]!r}")
        writes = {kv.key: kv.value for kv in chunk.kvs}
        if not all(within(key, low, high) for key in writes):
            raise BrokenStream(f"{self.sender} sent keys in a part of a snapshot that does not cover them")
        self._filled = next((other for other in self.prefixes if other >= high), high) if high == end else high
        return Part(low, high, writes)

    def _whole(self, trailer: holdfast_pb2.FollowTrailer) -> Whole:
        if self._filled != prefix_end(self.prefixes[-1]) or trailer.revision <= 0:
            raise BrokenStream(f"{self.sender} ended a snapshot that is not whole")
        self._filled, self._position = b"", trailer.revision
        return Whole(trailer.revision)

    def _prefix_of(self, key: bytes) -> bytes | None:
        return next((prefix for prefix in self.prefixes if key.startswith(prefix)), None)
