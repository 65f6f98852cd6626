"""How much work one client's frames make: counted, so that a slow machine does not matter."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import pytest
from holdfast.front.http2 import connection, sending
from holdfast.front.http2.connection import Connection
from holdfast.front.http2.frames import (
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    ConnectionBroken,
    ErrorCode,
    Setting,
    frame,
    literal,
    settings,
    window_update,
)
from holdfast.front.http2.grpc import Messages
from holdfast.front.http2.sending import Stream

from .test_connection import HELLO, REQUEST, Peer, block, request


class _NeverWalked(dict[int, Stream]):
    """Streams that may be looked up, but not gone through."""

    def _walked(self) -> NoReturn:
        raise AssertionError("all streams are looked at")

    def __iter__(self) -> Any:
        self._walked()

    def values(self) -> Any:
        self._walked()

    def items(self) -> Any:
        self._walked()


class _Crowd(Peer):
    def on_queued(self, change: int) -> None:
        self.queued += change


def crowded(streams: int, waiting: int = 0) -> Peer:
    """A connection with so many open streams, on each of which so many bytes wait."""
    peer = _Crowd(max_streams=streams)
    peer.connection.streams = _NeverWalked()
    peer.send(HELLO + settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    peer.send(b"".join(request(2 * n + 1) for n in range(streams)))
    if waiting:
        for stream in peer.streams.values():
            peer.connection.send_data(stream, b"x" * waiting)
    peer.frames()
    return peer


def test_settings_and_other_frames_look_at_no_stream_they_do_not_name() -> None:
    peer = crowded(2_000, waiting=10)
    looked = peer.connection.looked_at
    entries = b"".join(b"\x00\x04" + (n & 1).to_bytes(4, "big") for n in range(2_730))
    peer.connection.receive(frame(SETTINGS, 0, 0, entries), 0)
    assert peer.connection.looked_at == looked
    with pytest.raises(ConnectionBroken):  # a client that sends so many is disconnected soon
        peer.send(frame(SETTINGS, 0, 0, entries) * 100)
    peer = crowded(2_000, waiting=10)
    peer.send(frame(PING, 0, 0, b"x" * 8) + frame(RST_STREAM, 0, 1, b"\x00\x00\x00\x08") + window_update(3, 1))


def test_updates_of_the_connections_window_look_at_nothing_that_cannot_send() -> None:
    peer = crowded(5_000, waiting=1_000)
    looked = peer.connection.looked_at
    for _ in range(400):
        peer.send(window_update(0, 1) * 10)
    assert peer.connection.looked_at == looked  # the streams' own windows are closed
    for number in range(100):
        assert [f[0] for f in peer.send(window_update(2 * number + 1, 500))] == [DATA]
    assert peer.connection.looked_at <= looked + 200


def test_a_window_that_opens_for_all_is_used_in_turns() -> None:
    peer = crowded(5_000, waiting=10)
    for size in range(1, 6):
        looked = peer.connection.looked_at
        peer.connection.receive(settings({Setting.INITIAL_WINDOW_SIZE: size}), 0)
        turns = 0
        while peer.connection.has_output:
            before = peer.connection.looked_at
            peer.connection.take_output()
            assert peer.connection.looked_at - before <= sending.TURN_STREAMS
            turns += 1
        assert turns > 5
        # Each is taken from those that are blocked, sends a byte, and is found to be blocked again.
        assert peer.connection.looked_at - looked <= 3 * 5_000
    assert {stream.queued for stream in peer.streams.values()} == {5}


def test_one_call_takes_a_bounded_part_of_what_came_and_the_rest_later() -> None:
    class Counting(Connection):
        frames = 0

        def _frame(self, kind: int, flags: int, id: int, payload: bytes) -> None:
            self.frames += 1
            super()._frame(kind, flags, id, payload)

    peer = Peer()
    peer.connection = counting = Counting(peer, max_streams=100, now_ns=0)
    data = HELLO + request(1) + window_update(0, 1) * 4_000
    counting.receive(data, 0)
    calls = 1
    while counting.behind:
        before = counting.frames
        counting.receive(b"", 0)
        assert 0 < counting.frames - before <= connection.TURN_WORK
        calls += 1
    assert counting.frames == 4_002
    assert calls >= 4


def test_long_header_blocks_are_more_work_than_short_ones() -> None:
    peer = Peer()
    peer.send(HELLO)
    many = [*REQUEST, *((b"a", b"b") for _ in range(1_000))]
    peer.connection.receive(request(1, headers=many) + request(3, headers=many) + request(5), 0)
    assert [seen[1] for seen in peer.seen] == [1]
    peer.send(b"")
    assert [seen[1] for seen in peer.seen] == [1, 3, 5]


def test_a_block_of_table_size_updates_is_not_read() -> None:
    peer = Peer()
    peer.send(HELLO)
    peer.send(frame(HEADERS, END_HEADERS, 1, b"\x20\x3f\xe1\x1f" + block(REQUEST)))
    assert peer.seen == [("headers", 1, b"/s/m", False)]
    with pytest.raises(ConnectionBroken) as broken:
        peer.send(frame(HEADERS, END_HEADERS, 3, b"\x20\x3f\xe1\x1f" * 2 + block(REQUEST)))
    assert broken.value.code is ErrorCode.COMPRESSION_ERROR


def test_what_waits_and_is_given_up_leaves_nothing_behind() -> None:
    peer = Peer(max_streams=10)
    peer.send(HELLO + settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    for number in range(1_000):
        id = 2 * number + 1
        peer.send(request(id))
        peer.connection.send_data(peer.streams[id], b"waits")
        peer.send(frame(RST_STREAM, 0, id, b"\x00\x00\x00\x08"))
    of = peer.connection
    assert [len(of._ready), len(of._blocked), len(of.streams)] == [0, 0, 0]
    assert len(of._cut) <= sending.MAX_CUT
    assert peer.closed == [2 * number + 1 for number in range(1_000)]
    assert peer.queued == 0


def test_a_message_in_many_pieces_takes_the_room_of_one() -> None:
    messages = Messages(b"", 1 << 20)
    messages.feed(b"\x00" + (100_000).to_bytes(4, "big"))
    for _ in range(99_999):
        assert not messages.feed(b"a")
    assert messages.waiting == 100_004
    assert sys.getsizeof(messages._begun) < 2 * messages.waiting
    assert messages.feed(b"a") == [b"a" * 100_000]
    assert messages.waiting == 0


def test_a_connection_that_is_lost_ends_its_streams_some_at_a_time() -> None:
    peer = Peer(max_streams=1_000)
    peer.send(HELLO + b"".join(request(2 * n + 1) for n in range(1_000)))
    calls = 0
    while not peer.connection.lost(300):
        calls += 1
    assert calls == 3
    assert len(peer.closed) == 1_000
    assert peer.seen.count(("reset", 1)) == 1


def test_header_blocks_longer_than_a_frame_go_on_in_further_ones() -> None:
    peer = Peer()
    peer.send(HELLO + request(1))
    peer.connection.send_headers(peer.streams[1], literal(b"long", b"x" * 40_000))
    peer.connection.end(peer.streams[1], literal(b"long", b"y" * 20_000))
    sent = peer.frames()
    assert [(kind, flags) for kind, flags, *_ in sent] == [(1, 0), (9, 0), (9, 4), (1, 1), (9, 4), (3, 0)]
    assert max(len(body) for *_, body in sent) == 16_384
    assert b"".join(f[3] for f in sent[:3]) == literal(b"long", b"x" * 40_000)
