"""Checks what an upstream sent before any of it is applied.

An upstream is trusted with the data. But a frame that cannot be applied must not end a replica, which would go on
serving without it: such a frame ends the stream, and the replica looks for another upstream.
"""

from __future__ import annotations

from holdfast.auth.followed import copy_of
from holdfast.edge.data import BrokenUpstream
from holdfast.proto import holdfast_pb2, kv_pb2

MAX_REVISION = 1 << 62
_FIRST = ("hello", "path", "zstd")  # what may come before the rest; what is compressed is checked by itself


def checked(response: holdfast_pb2.FollowResponse | None, *, greeted: bool) -> holdfast_pb2.FollowResponse:
    """The frame, which can be applied. Raises BrokenUpstream if it is none, or none that may come now."""
    kind = response.WhichOneof("response") if response is not None else None
    if response is None or kind is None:
        raise BrokenUpstream("the upstream sent something that is no frame of this protocol")
    if not greeted and kind not in _FIRST:
        raise BrokenUpstream(f"the upstream sent a {kind} before it has said which cluster it is of")
    if kind == "revision":
        _check_revision(response.revision)
    elif kind == "chunk":
        _check_chunk(response.chunk)
    elif kind == "progress":
        _in_range(response.progress.revision)
    elif kind == "rights":
        _check_rights(response.rights)
    return response


def _in_range(revision: int) -> None:
    if not 0 < revision < MAX_REVISION:
        raise BrokenUpstream(f"the upstream sent the revision {revision}, which there is not")


def _check_revision(frame: holdfast_pb2.FollowRevision) -> None:
    _in_range(frame.revision)
    for event in frame.events:
        kv = event.kv
        if not kv.key or kv.mod_revision != frame.revision or event.type not in (kv_pb2.Event.PUT, kv_pb2.Event.DELETE):
            raise BrokenUpstream(f"the upstream sent an event that is none of revision {frame.revision}")
        if event.type == kv_pb2.Event.PUT:
            _check_kv(kv, frame.revision)


def _check_chunk(chunk: holdfast_pb2.FollowChunk) -> None:
    if chunk.HasField("range"):
        _in_range(chunk.revision)
    for kv in chunk.kvs:
        _check_kv(kv, chunk.revision or MAX_REVISION)  # version 0.1 says the revision in the trailer


def _check_kv(kv: kv_pb2.KeyValue, revision: int) -> None:
    if not kv.key or not 0 < kv.create_revision <= kv.mod_revision <= revision or kv.version < 1:
        raise BrokenUpstream(f"the upstream sent a key that cannot be there at revision {revision}")


def _check_rights(rights: holdfast_pb2.FollowRights) -> None:
    try:
        copy_of(rights)
    except UnicodeDecodeError:
        raise BrokenUpstream("the upstream sent a user or a role whose name is not UTF-8") from None
