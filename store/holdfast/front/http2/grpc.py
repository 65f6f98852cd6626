"""gRPC on HTTP/2: what its headers say, and messages out of a stream's bytes (the document "gRPC over HTTP2")."""

from __future__ import annotations

import zlib

from holdfast.front.http2.frames import literal
from holdfast.status import NAME_METADATA, Code, name_of

_STATUS_200 = b"\x88"  # in the static table
ANSWER_HEADERS = _STATUS_200 + literal(b"content-type", b"application/grpc")
OK_TRAILERS = literal(b"grpc-status", b"0")


NOT_GRPC = literal(b":status", b"415")
MAX_TEXT_BYTES = 4096  # of an error, as it is encoded


class BadMessage(Exception):
    """What came is no sequence of messages as agreed. `code` is what the call ends with."""

    def __init__(self, code: Code, what: str) -> None:
        super().__init__(what)
        self.code = code


def failure(code: int, text: str) -> bytes:
    """The trailers of a call that failed."""
    block = literal(b"grpc-status", str(code).encode())
    if not text:
        return block
    name = name_of(code, text)
    if name:
        block += literal(NAME_METADATA.encode(), name.encode())
    return block + literal(b"grpc-message", _percent(text))


def _percent(text: str) -> bytes:
    """As the document says, and no longer than a header can be."""
    out = bytearray()
    for character in text:
        if len(out) >= MAX_TEXT_BYTES:
            return bytes(out) + b"..."
        if " " <= character <= "~" and character != "%":
            out += character.encode()
        else:
            for byte in character.encode("utf-8", "replace"):
                out += b"%%%02X" % byte
    return bytes(out)


def is_grpc(content_type: bytes) -> bool:
    """Whether this is gRPC's content type, given that it begins like it."""
    return content_type[len(b"application/grpc") :][:1] in (b"", b"+", b";")


def framed(body: bytes) -> bytes:
    """A message as it goes on a stream."""
    return b"\x00" + len(body).to_bytes(4, "big") + body


class Messages:
    """Puts the messages of one direction of a call together. `waiting` is how many bytes of one that is not whole yet
    are kept."""

    __slots__ = ("_begun", "_encoding", "_limit", "_needed", "waiting")

    def __init__(self, encoding: bytes, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._begun = bytearray()  # of a message that is not whole, however many pieces it came in
        self._needed = 0  # bytes of the message that has begun, with its prefix, as far as it is known
        self.waiting = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises BadMessage."""
        if self.waiting:
            self._begun += data
            self.waiting = len(self._begun)
            if self.waiting < self._needed:
                return []
            data = bytes(self._begun)
            self._begun, self.waiting = bytearray(), 0
        at, end = 0, len(data)
        found: list[bytes] = []
        self._needed = 5
        while end - at >= 5:
            size = int.from_bytes(data[at + 1 : at + 5], "big")
            if size > self._limit:
                raise BadMessage(
                    Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size} vs. {self._limit})"
                )
            self._needed = 5 + size
            if end - at < self._needed:
                break
            body = data[at + 5 : at + self._needed]
            found.append(self._inflate(body) if data[at] else body)
            at += self._needed
            self._needed = 5
        if at < end:
            self._begun += data[at:]
            self.waiting = end - at
        return found

    @property
    def partial(self) -> bool:
        """Whether a message has begun and is not whole."""
        return self.waiting > 0

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
