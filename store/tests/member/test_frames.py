"""Frames between members: what is decoded is bounded in parts, not only in bytes."""

from __future__ import annotations

import pytest
from holdfast.kv.fields import delimited
from holdfast.member.frames import MAX_FRAME_BYTES, MAX_MESSAGES, ProtocolError, messages_of, shown
from holdfast.proto import raft_pb2


def field(number: int, body: bytes) -> bytes:
    return delimited(bytes([number << 3 | 2]), body)


APPEND, FORWARD = 6, 11  # fields of a PeerMessage
ENTRIES, COMMANDS = 3, 1  # of an Append, of a Forward


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(field(1, b"") * (MAX_FRAME_BYTES // 2), id="messages"),
        pytest.param(field(1, field(APPEND, field(ENTRIES, b"") * (MAX_FRAME_BYTES // 3))), id="entries"),
        pytest.param(field(1, field(FORWARD, field(COMMANDS, b"") * (MAX_FRAME_BYTES // 3))), id="commands"),
        pytest.param(field(1, b"") * (MAX_MESSAGES + 1), id="a few too many"),
    ],
)
def test_a_frame_of_millions_of_parts_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="a frame of"):
        messages_of(body)


def test_a_full_frame_of_a_leader_is_taken() -> None:
    frame = raft_pb2.PeerFrame()
    for n in range(8):  # what may be under way to one member
        append = frame.messages.add(term=3).append
        append.prev_index = n
        for index in range(20_000):
            append.entries.add(index=index, term=3, data=bytes(40))
    body = frame.SerializeToString()
    assert messages_of(body) == frame


@pytest.mark.parametrize("cut", [1, 7, 300_001])
def test_what_is_not_well_formed_is_left_to_the_decoder(cut: int) -> None:
    frame = raft_pb2.PeerFrame()
    frame.messages.add(term=1).append.entries.add(index=1, term=1, data=bytes(400_000))
    with pytest.raises(Exception, match=r"(?i)pars|trunc|decod"):
        messages_of(frame.SerializeToString()[:-cut])


def test_what_a_peer_says_is_one_short_line() -> None:
    assert shown("member 1 was removed, schön") == "member 1 was removed, schön"
    said = shown("evil\n\x1b[31mERROR injected" + "x" * 60_000)
    assert said.startswith(r"evil\n\x1b[31mERROR injected")
    assert len(said) < 400
