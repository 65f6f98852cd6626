"""Protobuf frames on a connection between members: reads and writes them, and opens connections.

A frame is the length of a message (4 bytes, big-endian) and the message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

from google.protobuf.message import Message as Proto

from holdfast.tls import PeerTls

LOWEST_PROTOCOL, PROTOCOL = 1, 2  # with 2, both sides of a connection for messages send `IDLE` frames
MAX_FRAME_BYTES = 64 << 20
READ_BUFFER_BYTES = 1 << 20
IDLE = bytes(4)  # a frame without a message
_PIECE_BYTES = 256 << 10


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
