"""Protobuf frames on a connection between members: reads and writes them, and opens connections.

A frame is the length of a message (4 bytes, big-endian) and the message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

from google.protobuf.message import Message as Proto

from holdfast.proto import raft_pb2
from holdfast.tls import PeerTls

LOWEST_PROTOCOL, PROTOCOL = 1, 2  # with 2, both sides of a connection for messages send `IDLE` frames
MAX_FRAME_BYTES = 64 << 20
READ_BUFFER_BYTES = 1 << 20
IDLE = bytes(4)  # a frame without a message
_PIECE_BYTES = 256 << 10
MAX_MESSAGES = 10_000  # of a frame; a turn sends far fewer
MAX_PARTS = 500_000  # of a frame: its messages, their bodies, and the entries or commands in them
SHOWN_CHARACTERS = 300  # of what a peer says, in a log line


class ProtocolError(Exception):
    """The peer violates the protocol."""


def frame(message: Proto) -> bytes:
    body = message.SerializeToString()
    return len(body).to_bytes(4, "big") + body


def write_frame(writer: asyncio.StreamWriter, message: Proto) -> None:
    """Write a frame to the connection. Raises ConnectionResetError if it is closed: the peer may have ended it a moment
    ago, and for that uvloop raises a RuntimeError, which callers do not handle as a broken connection."""
    if writer.is_closing():
        raise ConnectionResetError("the other side has ended the connection")
    writer.write(frame(message))


async def read_frame(
    reader: asyncio.StreamReader, limit: int = MAX_FRAME_BYTES, heard: Callable[[], None] | None = None
) -> bytes:
    """The body of the next frame. `heard` is called for every piece that arrives, because a long frame takes time."""
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > limit:
        raise ProtocolError(f"a frame of {size} bytes; at most {limit} are taken")
    if heard is not None:
        heard()
    if size <= _PIECE_BYTES:
        return await reader.readexactly(size)
    pieces: list[bytes] = []
    left = size
    while left:
        piece = await reader.readexactly(min(left, _PIECE_BYTES))
        if heard is not None:
            heard()
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def messages_of(body: bytes) -> raft_pb2.PeerFrame:
    """Decode a frame for messages. Raises ProtocolError if it has too many parts: a peer may be broken, and millions of
    empty messages fit in a frame, which would take minutes to decode and process."""
    if len(body) > _PIECE_BYTES and _parts(body, 0, len(body), 3, MAX_PARTS) > MAX_PARTS:
        raise ProtocolError(f"a frame of more than {MAX_PARTS} parts")
    found = raft_pb2.PeerFrame.FromString(body)
    if len(found.messages) > MAX_MESSAGES:
        raise ProtocolError(f"a frame of {len(found.messages)} messages; at most {MAX_MESSAGES} are taken")
    return found


def _parts(body: bytes, at: int, end: int, depth: int, most: int) -> int:
    """How many length-delimited fields there are between `at` and `end`, down to `depth` (of a frame: its messages,
    their bodies, and the entries of those). Stops beyond `most`, and at what is not well-formed, which decoding will
    refuse."""
    count = 0
    while at < end and count <= most:
        tag, at = _varint(body, at, end)
        kind = tag & 7
        if kind == 2:
            size, at = _varint(body, at, end)
            count += 1
            if depth > 1:
                count += _parts(body, at, min(end, at + size), depth - 1, most - count)
            at += size
        elif kind == 0:
            _, at = _varint(body, at, end)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            break
    return count


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = shift = 0
    while at < end:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 56:
            break
        shift += 7
    return value, at


def shown(text: str) -> str:
    """What a peer says, for a log line: it must not look like other lines, or change how they look."""
    cut = text[:SHOWN_CHARACTERS]
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return plain + ("…" if len(text) > SHOWN_CHARACTERS else "")


async def connect(url: str, tls: PeerTls | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    if parts.scheme == "https" and tls is None:
        raise ProtocolError(f"{url} wants TLS; give --peer-cert-file, --peer-key-file and --peer-trusted-ca-file")
    if tls is None or parts.scheme != "https":
        return await asyncio.open_connection(parts.hostname, parts.port, limit=READ_BUFFER_BYTES)
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port, ssl=tls.context(), limit=READ_BUFFER_BYTES
    )
    if why := tls.names.refusal(writer.get_extra_info("peercert")):
        writer.close()
        raise ProtocolError(f"{url}: {why}")
    return reader, writer
