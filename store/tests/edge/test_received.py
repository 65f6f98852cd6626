"""What an upstream must not send: it ends the stream, and nothing of it is applied or kept."""

from __future__ import annotations

import pytest
import zstandard
from holdfast.edge.compression import MOST_BYTES, BadFrame, Compressor, unpack
from holdfast.edge.data import BrokenUpstream
from holdfast.edge.forward import header_of
from holdfast.edge.notes import Notes
from holdfast.edge.received import MAX_REVISION, checked
from holdfast.edge.rights import FollowedRights
from holdfast.kv.store import MemoryStore, Pending
from holdfast.proto import auth_pb2, holdfast_pb2, kv_pb2, rpc_pb2
from holdfast.status import RequestError

Frame = holdfast_pb2.FollowResponse


def kv(revision: int = 5, **changed: object) -> kv_pb2.KeyValue:
    fields = {"key": b"/a", "create_revision": revision, "mod_revision": revision, "version": 1, **changed}
    return kv_pb2.KeyValue(**fields)  # type: ignore[arg-type]


def revision(number: int, *events: kv_pb2.Event) -> Frame:
    return Frame(revision=holdfast_pb2.FollowRevision(revision=number, events=events))


def chunk(number: int, *kvs: kv_pb2.KeyValue) -> Frame:
    range_ = holdfast_pb2.KeyRange(key=b"/a", range_end=b"/b")
    return Frame(chunk=holdfast_pb2.FollowChunk(range=range_, revision=number, kvs=kvs))


GOOD = {
    "revision": revision(5, kv_pb2.Event(kv=kv()), kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=kv(create_revision=0))),
    "chunk": chunk(7, kv()),
    "progress": Frame(progress=holdfast_pb2.FollowProgress(revision=7)),
    "rights": Frame(rights=holdfast_pb2.FollowRights(users=[auth_pb2.User(name=b"ann")])),
    "probe": Frame(probe=holdfast_pb2.ProbeReply(id=1, revision=7)),
}
BAD = {
    "nothing": Frame(),
    "revision 0": revision(0),
    "revision beyond all": revision(MAX_REVISION),
    "an event of another revision": revision(5, kv_pb2.Event(kv=kv(4))),
    "an event without a key": revision(5, kv_pb2.Event(kv=kv(key=b""))),
    "an event with a negative version": revision(5, kv_pb2.Event(kv=kv(version=-1))),
    "an event that was created later": revision(5, kv_pb2.Event(kv=kv(create_revision=6))),
    "a part of revision 0": chunk(0),
    "a part with a negative revision": chunk(7, kv(-1)),
    "a part with a later key": chunk(7, kv(8)),
    "progress to the end of all": Frame(progress=holdfast_pb2.FollowProgress(revision=(1 << 63) - 1)),
    "a user whose name is no text": Frame(rights=holdfast_pb2.FollowRights(users=[auth_pb2.User(name=b"\xff")])),
    "a role whose name is no text": Frame(rights=holdfast_pb2.FollowRights(roles=[auth_pb2.Role(name=b"\xff")])),
}


@pytest.mark.parametrize("kind", GOOD)
def test_what_upstreams_send_is_taken_after_their_hello(kind: str) -> None:
    assert checked(GOOD[kind], greeted=True) is GOOD[kind]
    with pytest.raises(BrokenUpstream, match="before it has said which cluster it is of"):
        checked(GOOD[kind], greeted=False)


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_applied_is_refused(what: str) -> None:
    with pytest.raises(BrokenUpstream):
        checked(BAD[what], greeted=True)


def test_a_message_that_is_no_frame_is_refused() -> None:
    """The gRPC library gives None for what it cannot decode."""
    with pytest.raises(BrokenUpstream, match="no frame of this protocol"):
        checked(None, greeted=True)


def test_rights_that_cannot_be_read_let_nobody_in() -> None:
    """A directory that has them, of a version that did not check, can be used."""
    pending = Pending(MemoryStore())
    notes = Notes(lambda: [pending])
    notes.put(b"users", b"")
    notes.put(b"rights", BAD["a user whose name is no text"].SerializeToString())
    rights = FollowedRights(notes)
    assert rights.users
    assert rights.auth is None


def test_few_bytes_do_not_become_very_many() -> None:
    compressor = Compressor()
    large = bytes(MOST_BYTES + 1)
    assert compressor.pack(large) is large, "it is sent as it is"
    inside = Frame.FromString(compressor.pack(bytes(MOST_BYTES))).zstd
    assert unpack(inside) == bytes(MOST_BYTES)
    with pytest.raises(BadFrame, match="at most"):
        unpack(zstandard.ZstdCompressor(write_content_size=True).compress(large))


def test_an_answer_that_is_none_is_an_error_of_the_call() -> None:
    """It is forwarded, and its revision has to be read here."""
    answer = rpc_pb2.PutResponse(header=rpc_pb2.ResponseHeader(revision=7))
    assert header_of(answer.SerializeToString(), rpc_pb2.PutResponse).revision == 7
    with pytest.raises(RequestError, match="no answer"):
        header_of(b"\xff" * 100, rpc_pb2.PutResponse)
