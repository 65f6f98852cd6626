"""gRPC on HTTP/2: what its headers say, and messages out of a stream's bytes (the document "gRPC over HTTP2")."""

from __future__ import annotations

import re
import zlib

from holdfast.front.http2.frames import literal
from holdfast.status import Code

_STATUS_200 = b"\x88"  # in the static table
ANSWER_HEADERS = _STATUS_200 + literal(b"content-type", b"application/grpc")
OK_TRAILERS = literal(b"grpc-status", b"0")

_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNIT_NS = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}


class BadMessage(Exception):
    """What came is no sequence of messages as agreed. `code` is what the call ends with."""

    def __init__(self, code: Code, what: str) -> None:
        super().__init__(what)
        self.code = code


def timeout_ns(value: bytes) -> int | None:
    """Of a grpc-timeout header; None if it is not one."""
    match = _TIMEOUT.fullmatch(value)
    return int(match[1]) * _UNIT_NS[match[2]] if match else None


def failure(code: int, text: str) -> bytes:
    """The trailers of a call that failed."""
    block = literal(b"grpc-status", str(code).encode())
    return block + literal(b"grpc-message", _percent(text)) if text else block


def _percent(text: str) -> bytes:
    out = bytearray()
    for byte in text.encode("utf-8", "replace"):
        if 0x20 <= byte <= 0x7E and byte != 0x25:
            out.append(byte)
        else:
            out += b"%%%02X" % byte
    return bytes(out)


def framed(body: bytes) -> bytes:
    """A message as it goes on a stream."""
    return b"\x00" + len(body).to_bytes(4, "big") + body


class Messages:
    """Puts the messages of one direction of a call together."""

    __slots__ = ("_encoding", "_limit", "_rest")

    def __init__(self, encoding: bytes, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._rest = b""

    def take(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises BadMessage."""
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        found: list[bytes] = []
        while end - at >= 5:
            size = int.from_bytes(data[at + 1 : at + 5], "big")
            if size > self._limit:
                raise BadMessage(
                    Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size} vs. {self._limit})"
                )
            if end - at - 5 < size:
                break
            body = data[at + 5 : at + 5 + size]
            found.append(self._inflate(body) if data[at] else body)
            at += 5 + size
        self._rest = data[at:]
        return found

    @property
    def partial(self) -> bool:
        """Whether a message has begun and is not whole."""
        return bool(self._rest)

    def _inflate(self, body: bytes) -> bytes:
        if self._encoding != b"gzip":
            name = self._encoding.decode("latin-1") or "no encoding"
            raise BadMessage(
                Code.UNIMPLEMENTED, f'grpc: Decompressor is not installed for grpc-encoding "{name}"; gzip is'
            )
        stream = zlib.decompressobj(31)
        try:
            inflated = stream.decompress(body, self._limit + 1)
        except zlib.error as error:
            raise BadMessage(Code.INTERNAL, f"grpc: failed to decompress the received message: {error}") from error
        if len(inflated) > self._limit:
            raise BadMessage(
                Code.RESOURCE_EXHAUSTED, f"grpc: received message after decompression larger than max ({self._limit})"
            )
        if not stream.eof:
            raise BadMessage(Code.INTERNAL, "grpc: failed to decompress the received message: it is cut off")
        return inflated
