"""Splits a stream of JSON objects as its bytes arrive, examining each byte once, however small the pieces are.

Only strings and braces are tracked here; the decoder checks whether an object is valid JSON.
"""

from __future__ import annotations

import re

_OUTSIDE = re.compile(rb'["{}]')
_INSIDE = re.compile(rb'["\\]')
_SPACE = re.compile(rb"[ \t\r\n]*")


class NotObjects(ValueError):
    """There is something other than white space between two objects."""


class Objects:
    """The splitter: takes bytes, returns complete objects."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._depth = 0
        self._in_string = False
        self._escaped = False

    @property
    def waiting(self) -> int:
        """Buffered bytes of an incomplete object."""
        return len(self._kept)

    def feed(self, data: bytes) -> list[bytes]:
        """Add `data` and return the objects that are now complete. Raises NotObjects."""
        found: list[bytes] = []
        begin = at = 0  # start of the current object in `data`, and next position to examine
        while at < len(data):
            if not self._depth:
                space = _SPACE.match(data, at)
                at = space.end() if space is not None else at
                if at == len(data):
                    return found
                if data[at] != ord("{"):
                    raise NotObjects("the body is not a sequence of JSON objects")
                begin, at, self._depth = at, at + 1, 1
                continue
            if self._in_string:
                at = self._string(data, at)
                continue
            match = _OUTSIDE.search(data, at)
            if match is None:
                break
            at = match.end()
            if match[0] == b'"':
                self._in_string = True
            elif match[0] == b"{":
                self._depth += 1
            else:
                self._depth -= 1
                if not self._depth:
                    found.append(bytes(self._kept) + data[begin:at])
                    self._kept.clear()
        if self._depth and begin < len(data):
            self._kept += data[begin:]
        return found

    def _string(self, data: bytes, at: int) -> int:
        """The end of the string that contains position `at`, or of `data` if it ends later."""
        if self._escaped:
            self._escaped = False
            return at + 1
        match = _INSIDE.search(data, at)
        if match is None:
            return len(data)
        if match[0] == b'"':
            self._in_string = False
        else:
            self._escaped = True
        return match.end()
