"""Sealed files, small files that define a directory: identity, pointer to the state, view of the founders.

Each is a JSON object with a checksum, stored twice. The copy is written first, so it is never older than the file. Of
the readable ones, the one with the higher number was written last, and using it is always safe. A missing file is
distinguished from an unreadable one: only if both file and copy are missing was nothing ever written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import google_crc32c

from holdfast.storage.damage import Damaged
from holdfast.storage.files import write_atomically

VERSION = 2

Fields = dict[str, Any]


class SealedFile:
    """`path` and its copy. Reading changes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.copy = path.with_name(path.name + ".copy")
        self.lacks: list[str] = []  # problems with the file or its copy at the last reading
        self._written = 0

    @property
    def exists(self) -> bool:
        return self.path.exists() or self.copy.exists()

    def read(self, meaning: str) -> Fields | None:
        """What was last written; None if nothing was. Raises Damaged, whose message ends with `meaning`, which says
        what the loss means."""
        found: list[tuple[int, Fields]] = []
        self.lacks = []
        for file in (self.path, self.copy):
            try:
                found.append(_unseal(file.read_bytes()))
            except FileNotFoundError:
                self.lacks.append(f"{file} is missing")
            except (IsADirectoryError, ValueError, TypeError, KeyError, RecursionError) as error:
                self.lacks.append(f"{file} is damaged ({error})")
        if found:
            self._written, fields = max(found, key=lambda one: one[0])
            return fields
        if not self.exists:
            return None
        raise Damaged(f"{' and '.join(self.lacks)}: {meaning}")

    def write(self, fields: Fields) -> None:
        """Replace the file and its copy durably. Call `read` first."""
        self._written += 1
        data = _seal(self._written, fields)
        write_atomically(self.copy, data)
        write_atomically(self.path, data)


def _seal(written: int, fields: Fields) -> bytes:
    body = {"version": VERSION, "written": written, "fields": fields}
    return json.dumps({**body, "crc32c": _sum(body)}, sort_keys=True).encode() + b"\n"


def _sum(body: Fields) -> str:
    return f"{google_crc32c.value(json.dumps(body, sort_keys=True).encode()):08x}"


def _unseal(data: bytes) -> tuple[int, Fields]:
    body = json.loads(data)
    if not isinstance(body, dict):
        raise ValueError("it is no JSON object")
    if body.pop("crc32c") != _sum(body) or _seal(body["written"], body["fields"]) != data:
        raise ValueError("its checksum is wrong")
    written, fields = body["written"], body["fields"]
    if body["version"] != VERSION or not isinstance(written, int) or not isinstance(fields, dict):
        raise ValueError(f"its version is {body['version']!r}")
    return written, fields
