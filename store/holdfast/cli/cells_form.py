"""The text form of transactions between cells and of messages: one compare or write on each line.

    at eu
    if /stock = 1
    delete /stock
    at us
    put /stock 1      # quoted as in a shell

A message is the same without `at`.
"""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from holdfast.cells import Message, part_wire
from holdfast.client.txn import Compare, Key, Op, Ops

_LINES = "if KEY = VALUE, if KEY absent, if KEY exists, put KEY VALUE or delete KEY"


@dataclass(slots=True)
class Part:
    """What is compared and written in one cell."""

    compares: list[Compare] = field(default_factory=list)
    writes: list[Op] = field(default_factory=list)

    def add(self, line: Compare | Op) -> None:
        """Raises ValueError."""
        if isinstance(line, Compare):
            if not line.key:
                raise ValueError("the key is empty")
            self.compares.append(line)
            return
        (write,) = part_wire.writes([line])
        key = part_wire.key_of(write)
        if any(part_wire.key_of(other) == key for other in self.writes):
            raise ValueError(f"the key {_quoted(key)} is written twice")
        self.writes.append(write)


def transaction(text: str, cells: Collection[str]) -> dict[str, Part]:
    """The parts of a transaction, by cell. Raises ValueError, which names the line."""
    parts: dict[str, Part] = {}
    here: Part | None = None
    for number, words in _lines(text):
        try:
            if words[0] == "at":
                here = parts.setdefault(_cell(words, cells), Part())
            elif here is None:
                raise ValueError("say first in which cell: at CELL")
            else:
                here.add(_compare_or_write(words))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    if not parts:
        raise ValueError(f"there is no line: write at CELL, {_LINES}")
    return parts


def message(text: str) -> Message:
    """Raises ValueError, which names the line."""
    part = Part()
    for number, words in _lines(text):
        try:
            if words[0] == "at":
                raise ValueError("a message has no `at`: it is for the cell that the queue leads to")
            part.add(_compare_or_write(words))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    if not part.writes:
        raise ValueError("the message writes nothing: it has no line that begins with put or delete")
    return Message(part.writes, part.compares)


def lines_of(message: Message) -> list[str]:
    """The message in this form."""
    return [*map(_compare_line, message.compares), *map(_write_line, message.writes)]


# ---- lines -------------------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that says something, and its words."""
    for number, line in enumerate(text.split("\n"), 1):
        try:
            words = list(_words(line))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if words:
            yield number, words


def _words(line: str) -> Iterator[str]:
    """As a shell splits them: # begins a comment where a word could begin, and nowhere else."""
    source = io.StringIO(line)
    lexer = shlex.shlex(source, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    while not line[source.tell() :].lstrip().startswith("#"):
        word = lexer.get_token()
        if word is None:
            return
        yield word


def _cell(words: list[str], cells: Collection[str]) -> str:
    match words:
        case [_, cell] if cell in cells:
            return cell
        case [_, cell]:
            raise ValueError(f"{cell} is no cell; there are {', '.join(cells)}")
    raise ValueError("write at CELL")


def _compare_or_write(words: list[str]) -> Compare | Op:
    match [os.fsencode(word) for word in words]:
        case [b"if", key, b"=", value]:
            return Key(key).value == value
        case [b"if", key, b"absent"]:
            return Key(key).version == 0
        case [b"if", key, b"exists"]:
            return Key(key).version > 0
        case [b"put", key, value]:
            return Ops.put(key, value)
        case [b"delete", key]:
            return Ops.delete(key)
    raise ValueError(f"{' '.join(words)!r} cannot be read: write {_LINES}, with quotes around spaces")


def _compare_line(compare: Compare) -> str:
    key = _quoted(compare.key)
    match compare.target, compare.result:
        case Compare.VALUE, Compare.EQUAL:
            return f"if {key} = {_quoted(compare.value)}"
        case Compare.VERSION, Compare.EQUAL if compare.version == 0:
            return f"if {key} absent"
        case Compare.VERSION, Compare.GREATER if compare.version == 0:
            return f"if {key} exists"
    return f"# another compare of {key}: {' '.join(str(compare).split())}"


def _write_line(write: Op) -> str:
    if write.HasField("request_put"):
        return f"put {_quoted(write.request_put.key)} {_quoted(write.request_put.value)}"
    return f"delete {_quoted(write.request_delete_range.key)}"


def _quoted(data: bytes) -> str:
    return shlex.quote(os.fsdecode(data))
