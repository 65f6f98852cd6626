"""The flags of one selector: taken from keys one by one, and written as one flagd document.

Each definition is kept as the text that it has in the document. So a change costs as much as the changed key is large,
and the document is a join.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from holdfast.flags.definition import (
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENT_ELEMENTS,
    MAX_ELEMENTS,
    Invalid,
    check_flag_name,
    check_metadata,
    check_rule_name,
    elements,
    flag,
    parse_object,
    rule,
    shown,
)
from holdfast.flags.selector import EVALUATORS, Selector

# gRPC clients take messages of 4 MiB unless they are told otherwise; the rest is for the context and for framing.
MAX_TEXT_BYTES = (4 << 20) - (64 << 10)
MAX_KEYS = 10_000
STEP_COST = 256  # of a definition, in addition to its size
ELEMENT_COST = 8  # an element takes as long to parse as about so many bytes of a string


class Definitions(NamedTuple):
    """The definitions of a set at one time: by name, texts of the form `"name":{...}`; and the set's metadata."""

    flags: Mapping[str, bytes]
    rules: Mapping[str, bytes]
    metadata: Mapping[str, Any]

    def text(self) -> bytes:
        """The document, the same for the same keys and values."""
        parts = [b'{"flags":', _object(self.flags)]
        if self.rules:
            parts += (b',"$evaluators":', _object(self.rules))
        if self.metadata:
            parts += (b',"metadata":', _dump(self.metadata))
        return b"".join([*parts, b"}"])


def _object(texts: Mapping[str, bytes]) -> bytes:
    return b"{" + b",".join(texts[name] for name in sorted(texts)) + b"}"


class _Part:
    """Definitions of one kind, by name."""

    def __init__(self, check_name: Callable[[str], None], check: Callable[[object], dict[str, Any]]) -> None:
        self._check_name = check_name
        self._check = check
        self.texts: dict[str, bytes] = {}
        self.size = 0  # in bytes

    def __len__(self) -> int:
        return len(self.texts)

    def put(self, name: str, definition: object) -> int:
        """Replace a definition, and return its size. Raises Invalid; then there is none of this name."""
        self.remove(name)
        self._check_name(name)
        text = _dump(name) + b":" + _dump(self._check(definition))
        self.texts[name] = text
        self.size += len(text)
        return len(text)

    def remove(self, name: str) -> None:
        self.size -= len(self.texts.pop(name, b""))


class FlagSet:
    """Flags, shared rules, and what was left out with the reason."""

    def __init__(self, selector: Selector) -> None:
        self._selector = selector
        self._max_elements = MAX_DOCUMENT_ELEMENTS if selector.whole else MAX_ELEMENTS
        self._clear()

    def _clear(self) -> None:
        self._flags, self._rules = _Part(check_flag_name, flag), _Part(check_rule_name, rule)
        self._metadata: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}  # name, or `$evaluators/NAME` -> reason
        self._left_out_bytes = 0
        self._newly: dict[str, str] = {}  # left out since `newly_left_out` was last asked
        self.broken = ""  # why the key of the whole document holds none; empty if it does, or if there is no such key

    @property
    def size(self) -> int:
        """About how many bytes this takes in memory."""
        return self._flags.size + self._rules.size + self._left_out_bytes

    @property
    def too_large(self) -> bool:
        keys = len(self._flags) + len(self._rules) + len(self.left_out)
        return self.size > MAX_TEXT_BYTES or keys > MAX_KEYS

    def take(self, key: bytes, value: bytes | None) -> Iterator[int]:
        """Take a key's new value; None if it was deleted. Yields the cost of each step after it: about its bytes, and
        ELEMENT_COST for each JSON element."""
        value_cost = 0 if value is None else len(value) + ELEMENT_COST * min(elements(value), self._max_elements)
        cost = STEP_COST + len(key) + value_cost
        if self._selector.whole:
            yield from self._take_whole(value, cost)
        else:
            self._take_one(key[len(self._selector.key) :], value)
            yield cost

    def _take_one(self, rest: bytes, value: bytes | None) -> None:
        try:
            name = rest.decode()
        except UnicodeDecodeError:
            name = rest.decode(errors="backslashreplace")
            self._forget_left_out(name)
            if value is not None:
                self._leave_out(name, "its name is not UTF-8")
            return
        part, short = self._flags, name
        if name.startswith(EVALUATORS):
            part, short = self._rules, name.removeprefix(EVALUATORS)
        self._forget_left_out(name)
        part.remove(short)
        if value is None:
            return
        try:
            part.put(short, parse_object(value))
        except Invalid as error:
            self._leave_out(name, str(error))

    def _take_whole(self, value: bytes | None, cost: int) -> Iterator[int]:
        self._clear()
        found = self._parse_whole(value) if value is not None else {}
        yield cost
        for part, prefix, key in ((self._rules, EVALUATORS, "$evaluators"), (self._flags, "", "flags")):
            for name, definition in (found.get(key) or {}).items():
                size = 0
                try:
                    size = part.put(name, definition)
                except Invalid as error:
                    self._leave_out(prefix + name, str(error))
                yield STEP_COST + size

    def _parse_whole(self, value: bytes) -> dict[str, Any]:
        """The document; empty if it is broken."""
        try:
            found = parse_object(value, MAX_DOCUMENT_BYTES, MAX_DOCUMENT_ELEMENTS)
            flags, rules = found.get("flags", {}), found.get("$evaluators") or {}
            if not isinstance(flags, dict) or not isinstance(rules, dict):
                raise Invalid('"flags" and "$evaluators" must be objects')
            if "metadata" in found:
                self._metadata = check_metadata(found["metadata"])
        except Invalid as error:
            self.broken = str(error)
            return {}
        return found

    def _leave_out(self, name: str, reason: str) -> None:
        self.left_out[name] = self._newly[name] = reason
        self._left_out_bytes += len(name)

    def _forget_left_out(self, name: str) -> None:
        if self.left_out.pop(name, None) is not None:
            self._left_out_bytes -= len(name)

    def newly_left_out(self) -> dict[str, str]:
        """What was left out since this was last asked."""
        newly, self._newly = self._newly, {}
        return newly

    def definitions(self) -> Definitions:
        """All that is valid, as it is now."""
        return Definitions(dict(self._flags.texts), dict(self._rules.texts), self._metadata)


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def told(left_out: dict[str, str], most: int) -> list[str]:
    """What was left out and why, in at most so many lines and one that says how many more there are."""
    lines = [f"{shown(name)}: {reason}" for name, reason in list(left_out.items())[:most]]
    return [*lines, f"and {len(left_out) - most} more"] if len(left_out) > most else lines
