"""Header blocks of requests: decoded by hpack, remembered where that is safe, and checked (RFC 9113, section 8)."""

from __future__ import annotations

from collections.abc import Sequence

from hpack import Decoder, HPACKError

from holdfast.front.http2.frames import ConnectionBroken, ErrorCode

MAX_HEADER_BYTES = 64 << 10
MAX_KNOWN_BLOCKS = 64

Headers = Sequence[tuple[bytes, bytes]]


class HeaderDecoder:
    """The decoding side of one connection's header table."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=MAX_HEADER_BYTES)
        self.known: dict[bytes, Headers] = {}  # blocks decoded before, while the table has not changed since

    def decode(self, block: bytes) -> Headers:
        known = self.known.get(block)
        if known is not None:
            return known
        try:
            headers: Headers = list(self._decoder.decode(block, raw=True))
        except HPACKError as error:
            raise ConnectionBroken(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        if block and min(block) >= 0x80:
            # Nothing but references to the tables, one byte each: it changed no table and means the same until one
            # changes. Calls of one client to one method look like this from the second one on.
            if len(self.known) >= MAX_KNOWN_BLOCKS:
                self.known.clear()
            self.known[block] = headers
        else:
            self.known.clear()
        return headers


_PSEUDO = (b":method", b":scheme", b":path", b":authority")
_FORBIDDEN = (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")


def body_length(headers: Headers) -> int | None:
    """None if these are no request's headers (RFC 9113, section 8.3); else the length of its body, -1 = not said."""
    seen: set[bytes] = set()
    regular = False
    length = -1
    for name, value in headers:
        if name[:1] == b":":
            if regular or name not in _PSEUDO or name in seen or (name == b":path" and not value):
                return None
            seen.add(name)
            continue
        regular = True
        if name in _FORBIDDEN or name != name.lower() or (name == b"te" and value != b"trailers"):
            return None
        if name == b"content-length":
            if not value.isdigit():
                return None
            length = int(value)
    return length if len(seen.intersection(_PSEUDO[:3])) == 3 else None
