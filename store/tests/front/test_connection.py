"""One HTTP/2 connection by itself: what it does with frames, good and bad, without a socket."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from holdfast.front.http2.connection import Connection
from holdfast.front.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionBroken,
    ErrorCode,
    Setting,
    frame,
    literal,
    settings,
    window_update,
)
from holdfast.front.http2.grpc import Messages, framed
from holdfast.front.http2.headers import Block
from holdfast.front.http2.sending import STREAM_WINDOW, Stream
from hypothesis import given

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/m"), (b"te", b"trailers")]
HELLO = PREFACE + frame(SETTINGS, 0, 0)


def block(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(literal(name, value) for name, value in headers)


def request(stream: int, flags: int = END_HEADERS, headers: list[tuple[bytes, bytes]] | None = None) -> bytes:
    return frame(HEADERS, flags, stream, block(REQUEST if headers is None else headers))


class Peer:
    """The other side: what it sends, and what the handler and the wire saw."""

    def __init__(self, max_streams: int = 100) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.streams: dict[int, Stream] = {}
        self.closed: list[int] = []
        self.connection = Connection(self, max_streams=max_streams, now_ns=0)
        self.consume = True
        self.queued = 0
        self.output = b""

    def on_headers(self, stream: Stream, headers: Block, ended: bool) -> None:
        self.streams[stream.id] = stream
        self.seen.append(("headers", stream.id, headers.by_name[b":path"], ended))

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        self.seen.append(("data", stream.id, data, ended))
        if self.consume:
            self.connection.consumed(stream, len(data))

    def on_reset(self, stream: Stream) -> None:
        self.seen.append(("reset", stream.id))

    def on_drained(self, stream: Stream) -> None:
        self.seen.append(("drained", stream.id))

    def on_closed(self, stream: Stream) -> None:
        self.closed.append(stream.id)

    def on_queued(self, change: int) -> None:
        self.queued += change
        # A stream that is being forgotten is not among them any more.
        assert self.queued >= sum(stream.queued for stream in self.connection.streams.values())

    def send(self, data: bytes, now_ns: int = 0) -> list[tuple[int, int, int, bytes]]:
        """Give the connection `data`; returns the frames that it answered with (kind, flags, stream, payload)."""
        self.connection.receive(data, now_ns)
        while self.connection.behind:
            self.connection.receive(b"", now_ns)
        return self.frames()

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        while self.connection.has_output:
            self.output += self.connection.take_output()
        found = []
        while len(self.output) >= 9:
            size = int.from_bytes(self.output[:3], "big")
            kind, flags, stream = self.output[3], self.output[4], int.from_bytes(self.output[5:9], "big")
            found.append((kind, flags, stream, self.output[9 : 9 + size]))
            self.output = self.output[9 + size :]
        return found


@pytest.fixture
def peer() -> Peer:
    peer = Peer()
    assert [f[0] for f in peer.frames()] == [SETTINGS, WINDOW_UPDATE]
    assert peer.send(HELLO) == [(SETTINGS, ACK, 0, b"")]
    return peer


def breaks(peer: Peer, data: bytes, code: ErrorCode) -> None:
    with pytest.raises(ConnectionBroken) as broken:
        peer.send(data)
    assert broken.value.code is code


def test_a_request_and_its_answer(peer: Peer) -> None:
    peer.send(request(1) + frame(DATA, END_STREAM, 1, b"question"))
    assert peer.seen == [("headers", 1, b"/s/m", False), ("data", 1, b"question", True)]
    stream = peer.streams[1]
    peer.connection.send_headers(stream, b"\x88")
    peer.connection.send_data(stream, b"answer")
    peer.connection.end(stream, literal(b"grpc-status", b"0"))
    assert [(kind, flags, body) for kind, flags, _, body in peer.frames()] == [
        (HEADERS, END_HEADERS, b"\x88"),
        (DATA, 0, b"answer"),
        (HEADERS, END_HEADERS | END_STREAM, literal(b"grpc-status", b"0")),
    ]
    assert not peer.connection.streams


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_how_the_bytes_are_cut_does_not_matter(sizes: list[int]) -> None:
    data = HELLO + request(1) + frame(DATA, 0, 1, b"a" * 50) + request(3) + frame(DATA, END_STREAM, 1, b"b")
    whole, cut = Peer(), Peer()
    whole.send(data)
    at = 0
    for size in [*sizes, len(data)]:
        cut.send(data[at : at + size])
        at += size
    assert cut.seen == whole.seen


def test_headers_in_several_frames_padded_and_with_a_priority(peer: Peer) -> None:
    encoded = block(REQUEST)
    first = b"\x03" + b"\x00\x00\x00\x00\x10" + encoded[:10] + b"\x00" * 3
    peer.send(frame(HEADERS, PADDED | 0x20, 1, first))
    peer.send(frame(CONTINUATION, 0, 1, encoded[10:20]) + frame(CONTINUATION, END_HEADERS, 1, encoded[20:]))
    peer.send(frame(DATA, PADDED | END_STREAM, 1, b"\x02ab\x00\x00"))
    assert peer.seen == [("headers", 1, b"/s/m", False), ("data", 1, b"ab", True)]


def test_a_block_known_from_before_means_the_same_until_the_table_changes(peer: Peer) -> None:
    from hpack import Encoder  # noqa: PLC0415

    encoder = Encoder()
    for stream, path in ((1, b"/a"), (3, b"/a"), (5, b"/a"), (7, b"/b"), (9, b"/a"), (11, b"/b")):
        headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path)]
        peer.send(frame(HEADERS, END_HEADERS, stream, encoder.encode(headers)))
    assert [seen[2] for seen in peer.seen] == [b"/a", b"/a", b"/a", b"/b", b"/a", b"/b"]
    assert peer.connection._headers.known


# ---- what waits for room ---------------------------------------------------------------------------------------


def test_nothing_is_sent_beyond_a_window(peer: Peer) -> None:
    peer.send(request(1))
    stream = peer.streams[1]
    peer.connection.send_data(stream, b"x" * 100_000)
    peer.connection.end(stream, literal(b"grpc-status", b"0"))
    sent = peer.frames()
    assert sum(len(body) for *_, body in sent) == 65_535
    assert stream.queued == 100_000 - 65_535
    sent = peer.send(window_update(1, 10))
    assert not sent  # the connection's window is used up, too
    sent = peer.send(window_update(0, 1 << 20))
    assert [len(body) for *_, body in sent] == [10]
    sent = peer.send(window_update(1, 1 << 20))
    assert sum(len(f[3]) for f in sent if f[0] == DATA) == 100_000 - 65_545
    assert sent[-1][:2] == (RST_STREAM, 0)  # the answer is whole; what the client still wanted to say is not needed
    assert sent[-2][0] == HEADERS


def test_a_smaller_first_window_holds_for_open_streams(peer: Peer) -> None:
    peer.send(request(1))
    stream = peer.streams[1]
    peer.connection.send_data(stream, b"x" * 60_000)
    peer.frames()
    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 1000}))
    assert peer.connection.send_window(stream) == 1000 - 60_000
    peer.connection.send_data(stream, b"y")
    assert not peer.frames()
    peer.send(window_update(1, 59_001))
    assert peer.connection.send_window(stream) == 0
    assert not stream.queue


def test_streams_that_wait_are_served_in_turns(peer: Peer) -> None:
    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 1 << 20}))
    for id in (1, 3):
        peer.send(request(id))
        peer.connection.send_data(peer.streams[id], b"x" * 200_000)
    peer.frames()
    assert peer.streams[3].queued == 200_000  # the first one has used the connection's window up
    sent = peer.send(window_update(0, 16_384 * 4))
    order = [stream for *_, stream, body in sent if body]
    assert sorted(set(order)) == [1, 3]
    assert abs(order.count(1) - order.count(3)) <= 1


def test_room_is_given_back_when_data_is_dealt_with(peer: Peer) -> None:
    peer.consume = False
    peer.send(request(1))
    answered = []
    for _ in range(STREAM_WINDOW // 16_384):
        answered += peer.send(frame(DATA, 0, 1, b"x" * 16_384))
    assert not [f for f in answered if f[0] == WINDOW_UPDATE and f[2] == 1]
    assert peer.send(frame(DATA, 0, 1, b"x" * 16_384))[-1][0] == RST_STREAM  # more than was allowed
    assert peer.seen[-1] == ("reset", 1)
    peer.consume = True
    peer.send(request(3))
    updates = []
    for _ in range(100):
        updates += [f for f in peer.send(frame(DATA, 0, 3, b"x" * 16_384)) if f[0] == WINDOW_UPDATE and f[2] == 3]
    assert len(updates) > 5


@given(st.data())
def test_everything_arrives_in_order_whatever_the_windows_do(data: st.DataObject) -> None:
    """A model of the client: it never gets more than it allowed, and in the end all of it."""
    peer = Peer()
    peer.send(HELLO)
    peer.send(request(1) + request(3))
    given_, got = {1: b"", 3: b""}, {1: b"", 3: b""}
    room = {0: 65_535, 1: 65_535, 3: 65_535}

    def take() -> None:
        for kind, _, stream, body in peer.frames():
            if kind == DATA:
                got[stream] += body
                room[0] -= len(body)
                room[stream] -= len(body)
                assert min(room.values()) >= 0

    for _ in range(data.draw(st.integers(1, 25))):
        stream = data.draw(st.sampled_from([1, 3]))
        if data.draw(st.booleans()):
            body = bytes([len(given_[stream]) % 251]) * data.draw(st.integers(0, 60_000))
            given_[stream] += body
            peer.connection.send_data(peer.streams[stream], body)
        else:
            whose, more = data.draw(st.sampled_from([0, 1, 3])), data.draw(st.integers(1, 50_000))
            room[whose] += more
            peer.connection.receive(window_update(whose, more), 0)
        if data.draw(st.booleans()):
            peer.connection.paused = not peer.connection.paused
            if not peer.connection.paused:
                peer.connection.resume()
        take()
    for whose in (0, 1, 3):
        room[whose] += 1 << 24
        peer.connection.receive(window_update(whose, 1 << 24), 0)
    peer.connection.resume()
    take()
    assert peer.queued == 0
    assert got == given_


# ---- what is not allowed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(HEADERS, END_HEADERS, 2, block(REQUEST)), ErrorCode.PROTOCOL_ERROR),  # a stream of the server's
        (frame(DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frame(DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),  # never opened
        (frame(WINDOW_UPDATE, 0, 0, b"\x00" * 4), ErrorCode.PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, b"\x00" * 3), ErrorCode.FRAME_SIZE_ERROR),
        (window_update(0, (1 << 31) - 1), ErrorCode.FLOW_CONTROL_ERROR),
        (frame(SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, b"\x00" * 5), ErrorCode.FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK, 0, b"\x00" * 6), ErrorCode.FRAME_SIZE_ERROR),
        (settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31}), ErrorCode.FLOW_CONTROL_ERROR),
        (settings({Setting.MAX_FRAME_SIZE: 100}), ErrorCode.PROTOCOL_ERROR),
        (settings({Setting.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
        (frame(PING, 0, 1, b"x" * 8), ErrorCode.PROTOCOL_ERROR),
        (frame(PING, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(RST_STREAM, 0, 0, b"\x00" * 4), ErrorCode.PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 1, b"\x00" * 4), ErrorCode.PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 1, b"\x00"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(GOAWAY, 0, 1, b"\x00" * 8), ErrorCode.PROTOCOL_ERROR),
        (frame(PRIORITY, 0, 0, b"\x00" * 5), ErrorCode.PROTOCOL_ERROR),
        (frame(PUSH_PROMISE, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (frame(CONTINUATION, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff"), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1, b"") + frame(PING, 0, 0, b"x" * 8), ErrorCode.PROTOCOL_ERROR),
        (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", ErrorCode.FRAME_SIZE_ERROR),
        (frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, b"x" * 9000) * 10, ErrorCode.ENHANCE_YOUR_CALM),
    ],
)
def test_what_breaks_the_connection(peer: Peer, data: bytes, code: ErrorCode) -> None:
    breaks(peer, data, code)


@pytest.mark.parametrize(
    "flood",
    [
        frame(PING, 0, 0, b"x" * 8),
        frame(PING, ACK, 0, b"x" * 8),
        frame(SETTINGS, 0, 0),
        frame(SETTINGS, ACK, 0),
        settings({Setting.HEADER_TABLE_SIZE: 4096}),
        frame(GOAWAY, 0, 0, b"\x00" * 8),
        frame(PRIORITY, 0, 1, b"\x00\x00\x00\x00\x01"),
        window_update(0, 1),
        frame(0x77, 0, 0),
    ],
)
def test_a_flood_of_frames_that_carry_nothing_ends_the_connection(peer: Peer, flood: bytes) -> None:
    for _ in range(10):
        peer.send(flood * 400)
    breaks(peer, flood * 2000, ErrorCode.ENHANCE_YOUR_CALM)


def test_a_flood_of_malformed_requests_ends_the_connection(peer: Peer) -> None:
    bad = [*REQUEST, (b"te", b"gzip")]
    many = b"".join(request(id, headers=bad) for id in range(1, 12_001, 2))
    breaks(peer, many, ErrorCode.ENHANCE_YOUR_CALM)


def test_whoever_reads_much_may_open_windows_often(peer: Peer) -> None:
    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: (1 << 31) - 1}) + window_update(0, 1 << 30) + request(1))
    for _ in range(10_000):
        peer.connection.send_data(peer.streams[1], b"x" * 100)
        peer.send(window_update(0, 50) * 2)
    assert len(peer.connection.streams) == 1


def test_rapid_resets_end_the_connection_but_slow_ones_do_not(peer: Peer) -> None:
    cancel = ErrorCode.CANCEL.to_bytes(4, "big")
    for second in range(10):
        for number in range(1000):
            id = 2 * (1000 * second + number) + 1
            peer.send(request(id) + frame(RST_STREAM, 0, id, cancel), now_ns=2_000_000_000 * (second + 1))
    assert peer.seen.count(("reset", 1)) == 1
    assert len(peer.connection.streams) == 0
    many = b"".join(request(id) + frame(RST_STREAM, 0, id, cancel) for id in range(20_001, 32_001, 2))
    breaks(peer, many, ErrorCode.ENHANCE_YOUR_CALM)


def test_a_client_that_does_not_begin_as_it_should(peer: Peer) -> None:
    breaks(Peer(), b"GET / HTTP/1.1\r\n\r\n", ErrorCode.PROTOCOL_ERROR)
    breaks(Peer(), PREFACE + frame(PING, 0, 0, b"x" * 8), ErrorCode.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "headers",
    [
        [*REQUEST, (b":path", b"/again")],
        [(b"x", b"y"), *REQUEST],
        [*REQUEST, (b"Upper", b"case")],
        [*REQUEST, (b"connection", b"close")],
        [*REQUEST[:2], (b":path", b"")],
        [*REQUEST, (b":unknown", b"x")],
        REQUEST[:2],
        [*REQUEST, (b"content-length", b"many")],
        [*REQUEST, (b"content-length", b"9" * 5000)],
        [*REQUEST, (b"content-length", b"1"), (b"content-length", b"2")],
        [*REQUEST, (b"", b"x")],
        [*REQUEST, (b"a b", b"x")],
        [*REQUEST, (b"a\nb", b"x")],
        [*REQUEST, (b"a:b", b"x")],
        [*REQUEST, (b"a\x80", b"x")],
        [*REQUEST, (b"a", b"x\r\ny")],
        [*REQUEST, (b"a", b"x\ny")],
        [*REQUEST, (b"a", b"\x00")],
        [*REQUEST[:2], (b":path", b"/a\nb")],
    ],
)
def test_what_breaks_one_stream_only(peer: Peer, headers: list[tuple[bytes, bytes]]) -> None:
    answered = peer.send(request(1, headers=headers))
    assert [(kind, stream) for kind, _, stream, _ in answered] == [(RST_STREAM, 1)]
    peer.send(request(3))
    assert peer.seen == [("headers", 3, b"/s/m", False)]


def test_trailers_are_held_to_the_same(peer: Peer) -> None:
    for id, field in ((1, (b"a", b"x\ny")), (3, (b":path", b"/again")), (5, (b"A", b"b"))):
        peer.send(request(id))
        answered = peer.send(request(id, END_HEADERS | END_STREAM, [field]))
        assert [(kind, stream) for kind, _, stream, _ in answered] == [(RST_STREAM, id)]
    peer.send(request(7) + request(7, END_HEADERS | END_STREAM, [(b"a", b"b")]))
    assert peer.seen[-1] == ("data", 7, b"", True)


def test_data_on_a_closed_stream_is_answered_unless_this_side_closed_it(peer: Peer) -> None:
    closed = [(RST_STREAM, ErrorCode.STREAM_CLOSED.to_bytes(4, "big"))]

    def answers(id: int) -> list[tuple[int, bytes]]:
        return [(kind, body) for kind, _, _, body in peer.send(frame(DATA, 0, id, b"late"))]

    peer.send(request(1) + frame(RST_STREAM, 0, 1, b"\x00\x00\x00\x08"))
    assert answers(1) == closed
    peer.send(request(3, END_HEADERS | END_STREAM))
    peer.connection.end(peer.streams[3], literal(b"grpc-status", b"0"))
    peer.frames()
    assert answers(3) == closed
    peer.send(request(5))
    peer.connection.end(peer.streams[5], literal(b"grpc-status", b"0"))
    peer.frames()
    assert answers(5) == []  # it was on its way
    peer.send(request(7, headers=[*REQUEST, (b"Not", b"allowed")]))
    assert answers(7) == []


def test_more_streams_than_allowed_are_refused() -> None:
    peer = Peer(max_streams=2)
    peer.send(HELLO)
    answered = peer.send(request(1) + request(3) + request(5))
    assert answered[-1][0] == RST_STREAM
    assert answered[-1][3] == ErrorCode.REFUSED_STREAM.to_bytes(4, "big")
    assert [seen[1] for seen in peer.seen] == [1, 3]


def test_after_going_away_no_new_stream_is_taken(peer: Peer) -> None:
    peer.send(request(1))
    peer.connection.go_away()
    answered = peer.send(request(3))
    assert [kind for kind, *_ in answered] == [GOAWAY, RST_STREAM]
    peer.send(frame(DATA, END_STREAM, 1, b"x"))
    assert peer.seen[-1] == ("data", 1, b"x", True)


def test_a_body_that_is_not_as_long_as_it_said(peer: Peer) -> None:
    long = [*REQUEST, (b"content-length", b"3")]
    peer.send(request(1, headers=long))
    assert peer.send(frame(DATA, END_STREAM, 1, b"xx"))[-1][0] == RST_STREAM
    peer.send(request(3, headers=long))
    assert peer.send(frame(DATA, 0, 3, b"xxxx"))[-1][0] == RST_STREAM


@given(st.binary(max_size=300), st.booleans())
def test_rubbish_never_does_more_than_break_the_connection(rubbish: bytes, greeted: bool) -> None:
    peer = Peer()
    try:
        peer.send((HELLO if greeted else PREFACE) + rubbish)
    except ConnectionBroken:
        return


@given(st.lists(st.binary(max_size=60), max_size=8), st.lists(st.integers(1, 30), max_size=40))
def test_messages_are_put_together_however_they_are_cut(bodies: list[bytes], sizes: list[int]) -> None:
    messages = Messages(b"", 100)
    data = b"".join(framed(body) for body in bodies)
    found: list[bytes] = []
    for size in [*sizes, len(data)]:
        found += messages.feed(data[:size])
        data = data[size:]
    assert found == bodies
    assert not messages.partial
    assert messages.waiting == 0


def test_a_large_answer_is_not_copied_for_every_frame(peer: Peer) -> None:
    """A hundred mebibytes in frames of sixteen kibibytes: copying what is left for each would take minutes."""
    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: (1 << 31) - 1}) + window_update(0, (1 << 31) - 100_000))
    peer.send(request(1))
    peer.frames()
    peer.connection.send_data(peer.streams[1], b"x" * (100 << 20))
    whole, sent = 100 << 20, 0
    while peer.connection.has_output:
        turn = len(peer.connection.take_output())
        assert turn < 2 << 20
        sent += turn
    assert sent == whole + 9 * whole // 16_384
