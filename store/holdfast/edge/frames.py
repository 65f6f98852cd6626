"""Frames of revisions, serialised once for all followers that have the same filter."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from holdfast.keyrange import Range
from holdfast.kv.fields import delimited, varint
from holdfast.kv.rows import DELETE, Change

KEPT_BYTES = 4 << 20  # followers that keep up ask for the same frames in the same turn

# Tags of FollowResponse.revision; FollowRevision.revision, term, events, previous; Event.type DELETE, kv.
_FRAME, _REVISION, _TERM, _EVENT, _PREVIOUS = b"\x12", b"\x08", b"\x10", b"\x1a", b"\x20"
_DELETED, _KV = b"\x08\x01", b"\x12"


_Key = tuple[tuple[Range, ...], int, int, int]  # filter, epoch, revision, term


class RevisionFrames:
    """The newest frames of a server."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._bodies: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0
        self.encoded = 0  # bodies that were serialised

    def frame(
        self, ranges: tuple[Range, ...], epoch: int, term: int, changes: Sequence[Change], previous: int
    ) -> bytes:
        """The FollowResponse with `changes`: all changes of one revision that match `ranges`. `previous`: up to where
        the follower was complete before. `epoch`: after a restore of the cluster a replica may get the same revision
        anew."""
        key = (ranges, epoch, changes[0].revision, term)
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = _body(term, changes)
            self.encoded += 1
            self._bytes += _size(key, body)
            while self._bytes > self._most:
                self._bytes -= _size(*self._bodies.popitem(last=False))
        return delimited(_FRAME, body + _PREVIOUS + varint(previous))


def _size(key: _Key, body: bytes) -> int:
    """With the filter, which may be larger than the change, and may be that of a stream that has ended."""
    return len(body) + sum(len(low) + len(high or b"") for low, high in key[0])


def _body(term: int, changes: Sequence[Change]) -> bytes:
    parts = [_REVISION, varint(changes[0].revision), _TERM, varint(term)]
    for change in changes:
        deleted = _DELETED if change.type == DELETE else b""
        parts.append(delimited(_EVENT, deleted + delimited(_KV, change.kv)))
    return b"".join(parts)
