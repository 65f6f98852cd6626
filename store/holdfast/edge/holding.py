"""Which ranges of keys a replica holds, and since which revision each is complete.

When the prefixes of a replica change, what it has stays usable: of wider prefixes only what is new is received, as a
snapshot of some revision S that is later than the watermark. Until the watermark has reached S the new part is not
shown, because the rest of the state at S is not here yet; and changes up to S are left out of it, because the snapshot
has them already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from holdfast.keyrange import Range, bounds, within
from holdfast.proto import holdfast_pb2


class Part(NamedTuple):
    """A range, complete from revision `since` on; 0: it arrived before the watermark."""

    low: bytes
    high: bytes | None
    since: int


class Holding:
    """Parts in order, which do not overlap. Those that touch and are complete since the same revision are one: of a
    snapshot that arrives in a thousand chunks few parts are left."""

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self.parts = _merged(sorted(parts, key=lambda part: part.low))

    @staticmethod
    def of(ranges: Iterable[Range]) -> Holding:
        """These ranges, whole."""
        return Holding(Part(low, high, 0) for low, high in joined(ranges))

    @staticmethod
    def read(data: bytes) -> Holding:
        held = holdfast_pb2.HeldRanges.FromString(data)
        return Holding(Part(*bounds(r.range.key, r.range.range_end), r.since) for r in held.ranges)

    def message(self) -> holdfast_pb2.HeldRanges:
        held = holdfast_pb2.HeldRanges()
        for low, high, since in self.parts:
            held.ranges.add(range=as_range((low, high)), since=since)
        return held

    def narrowed(self, ranges: Iterable[Range]) -> Holding:
        """What of it is within these ranges."""
        kept = [
            Part(max(part.low, low), _least(part.high, high), part.since)
            for low, high in joined(ranges)
            for part in self.parts
        ]
        return Holding(part for part in kept if part.high is None or part.low < part.high)

    def lacking(self, ranges: Iterable[Range]) -> list[Range]:
        """What of these ranges it does not have."""
        return without(ranges, [(part.low, part.high) for part in self.parts])

    def with_(self, ranges: Iterable[Range], since: int) -> Holding:
        return Holding([*self.parts, *(Part(low, high, since) for low, high in ranges)])

    def shown(self, watermark: int) -> list[Range]:
        """The ranges that are complete at the watermark."""
        return joined((part.low, part.high) for part in self.parts if part.since <= watermark)

    def arrived(self, watermark: int) -> int:
        """The latest revision of a part that the watermark has reached; 0: none arrived. It is settled afterwards."""
        latest = max((part.since for part in self.parts if part.since <= watermark), default=0)
        if latest:
            self.parts = _merged(part if part.since > watermark else part._replace(since=0) for part in self.parts)
        return latest

    def takes(self, key: bytes, revision: int) -> bool:
        """Whether a change of this key at this revision belongs to a part. Else it comes, or came, with a snapshot."""
        return any(revision > part.since and within(key, part.low, part.high) for part in self.parts)


def _merged(parts: Iterable[Part]) -> list[Part]:
    """Parts in order, as few as possible."""
    found: list[Part] = []
    for part in parts:
        if found and found[-1].high == part.low and found[-1].since == part.since:
            part = Part(found.pop().low, part.high, part.since)
        found.append(part)
    return found


def as_range(interval: Range) -> holdfast_pb2.KeyRange:
    low, high = interval
    return holdfast_pb2.KeyRange(key=low, range_end=b"\x00" if high is None else high)


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same keys in as few ranges as possible, in order."""
    found: list[Range] = []
    for low, high in sorted(ranges, key=lambda r: r[0]):
        if found:
            before_low, before_high = found[-1]
            if before_high is None or low <= before_high:
                found[-1] = (before_low, None if before_high is None or high is None else max(before_high, high))
                continue
        found.append((low, high))
    return found


def without(ranges: Iterable[Range], taken: Sequence[Range]) -> list[Range]:
    """What of `ranges` is not in `taken`."""
    left: list[Range] = []
    away = joined(taken)
    for low, high in joined(ranges):
        at: bytes | None = low
        for from_, to in away:
            if at is None or (high is not None and from_ >= high):
                break
            if to is not None and to <= at:
                continue
            if from_ > at:
                left.append((at, from_))
            at = to
        if at is not None and (high is None or at < high):
            left.append((at, high))
    return left


def _least(one: bytes | None, other: bytes | None) -> bytes | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)
