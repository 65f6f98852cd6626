"""gRPC over HTTP/2: its headers and trailers, and the framing of messages (the document "gRPC over HTTP2")."""

from __future__ import annotations

import zlib

from holdfast.front.http2.frames import literal
from holdfast.status import NAME_METADATA, Code, name_of

_STATUS_200 = b"\x88"  # in the static table
ANSWER_HEADERS = _STATUS_200 + literal(b"content-type", b"application/grpc")
OK_TRAILERS = literal(b"grpc-status", b"0")


NOT_GRPC = literal(b":status", b"415")
MAX_TEXT_BYTES = 4096  # of an error text, percent-encoded


class BadMessage(Exception):
    """The received bytes are not valid gRPC messages. The call ends with status `code`."""

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
    """Percent-encode as the gRPC document specifies, cut off at MAX_TEXT_BYTES so that it fits a header."""
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
    """Whether a content type that begins with application/grpc is that of gRPC."""
    return content_type[len(b"application/grpc") :][:1] in (b"", b"+", b";")


def framed(body: bytes) -> bytes:
    """An uncompressed message with its 5-byte prefix."""
    return prefix(body) + body


def prefix(body: bytes) -> bytes:
    """The 5 bytes before an uncompressed message."""
    return b"\x00" + len(body).to_bytes(4, "big")


class Messages:
    """Assembles the messages of one direction of a call. `waiting`: buffered bytes of an incomplete message."""

    __slots__ = ("_begun", "_encoding", "_limit", "_needed", "waiting")

    def __init__(self, encoding: bytes, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._begun = bytearray()  # the incomplete message, in however many pieces it arrived
        self._needed = 0  # size of the incomplete message with its prefix; 5 until the prefix is complete
        self.waiting = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Add `data` and return the messages that are now complete. Raises BadMessage."""
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
        """Whether a message has begun and is not complete."""
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
