"""Header blocks of requests: decoded by hpack, checked (RFC 9113, section 8), and cached where that is safe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

from hpack import Decoder, HPACKError

from holdfast.front.http2.frames import ConnectionBroken, ErrorCode

MAX_HEADER_BYTES = 64 << 10
MAX_KNOWN_BLOCKS = 64
MAX_TABLE_UPDATES = 2  # at the beginning of a block (RFC 7541, section 4.2)

Headers = Sequence[tuple[bytes, bytes]]


_NOT_METADATA = frozenset((b"content-type", b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding"))


class Block:
    """A decoded header block. Derived values are computed once, because all calls of one client to one method have the
    same block."""

    def __init__(self, fields: Headers) -> None:
        self.fields = fields
        # Content-length of the request, -1 if there is none; None if these are not valid request headers.
        self.body_length = _body_length(fields)

    @cached_property
    def trailing(self) -> bool:
        """Whether these fields are valid trailers."""
        return all(_is_field(name, value) for name, value in self.fields)

    @cached_property
    def by_name(self) -> Mapping[bytes, bytes]:
        return dict(self.fields)

    @cached_property
    def path(self) -> str:
        return self.by_name[b":path"].decode("latin-1")

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The gRPC custom metadata, without binary values."""
        return {
            name.decode("latin-1"): value.decode("utf-8", "surrogateescape")
            for name, value in self.fields
            if name[:1] != b":" and name not in _NOT_METADATA and name[-4:] != b"-bin"
        }


class HeaderDecoder:
    """The HPACK decoder of one connection."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=MAX_HEADER_BYTES)
        self.known: dict[bytes, Block] = {}  # blocks decoded since the last change of the table

    def decode(self, block: bytes) -> Block:
        known = self.known.get(block)
        if known is not None:
            return known
        _check_table_updates(block)
        try:
            fields: Headers = list(self._decoder.decode(block, raw=True))
        except HPACKError as error:
            raise ConnectionBroken(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        decoded = Block(fields)
        if block and min(block) >= 0x80:
            # Only one-byte references to the tables: decoding it changed no table, and its meaning is the same until a
            # table changes. Calls of one client to one method look like this from the second one on.
            if len(self.known) >= MAX_KNOWN_BLOCKS:
                self.known.clear()
            self.known[block] = decoded
        else:
            self.known.clear()
        return decoded


def _check_table_updates(block: bytes) -> None:
    """Limit the table size updates of a block: hpack accepts any number of them, and each costs time."""
    at, count = 0, 0
    while at < len(block) and block[at] & 0xE0 == 0x20:
        count += 1
        if count > MAX_TABLE_UPDATES:
            raise ConnectionBroken(ErrorCode.COMPRESSION_ERROR, "a header block of table size updates")
        if block[at] & 0x1F == 0x1F:  # the number continues in the following bytes
            at += 1
            while at < len(block) and block[at] & 0x80:
                at += 1
        at += 1


_PSEUDO = (b":method", b":scheme", b":path", b":authority")
_FORBIDDEN = (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
_NOT_IN_A_VALUE = re.compile(rb"[\x00\r\n]")
_LENGTH = re.compile(rb"[0-9]{1,18}")


def _is_field(name: bytes, value: bytes) -> bool:
    """Whether a field is valid among the headers or trailers of a request, pseudo-headers aside (RFC 9113, 8.2)."""
    return (
        _NAME.fullmatch(name) is not None
        and _NOT_IN_A_VALUE.search(value) is None
        and name not in _FORBIDDEN
        and (name != b"te" or value == b"trailers")
    )


def _body_length(headers: Headers) -> int | None:
    """The content-length, -1 if there is none; None if these are not valid request headers (RFC 9113, section 8.3)."""
    seen: set[bytes] = set()
    regular = False
    length = -1
    for name, value in headers:
        if name[:1] == b":":
            if regular or name not in _PSEUDO or name in seen or _NOT_IN_A_VALUE.search(value) is not None:
                return None
            if name == b":path" and not value:
                return None
            seen.add(name)
            continue
        regular = True
        if not _is_field(name, value):
            return None
        if name == b"content-length":
            if _LENGTH.fullmatch(value) is None or length not in (-1, int(value)):
                return None
            length = int(value)
    return length if len(seen.intersection(_PSEUDO[:3])) == 3 else None
