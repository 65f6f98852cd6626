"""A power cut for real processes: what was written and not synced is lost, completely or in part.

`powercut.c`, preloaded into the server, keeps an undo journal of each change that is not synced yet. After kill -9 the
journal is read here and the changes are undone, newest first: all of them, or each with a probability of one half (a
disk writes its cache in any order). What the server synced stays; the server's correctness depends on only that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from random import Random
from struct import Struct

_HEAD = Struct("<cIIQQQ")
_SOURCE = Path(__file__).with_name("powercut.c")


class CannotBuild(Exception):
    """There is no C compiler, so power cuts cannot be tested."""


@dataclass(slots=True)
class _Change:
    kind: bytes
    path: str
    second: str
    offset: int
    data: bytes
    before: int


class PowerCut:
    """Journals below `directory`, which must not be on the disks whose power is cut."""

    def __init__(self, directory: Path, chance: Random) -> None:
        self._directory = directory
        self._chance = chance
        self._watched: dict[str, Path] = {}
        directory.mkdir(parents=True, exist_ok=True)
        self._library = directory / "powercut.so"
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise CannotBuild("no C compiler (cc): install gcc, or run without --power-cuts")
        words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_SOURCE), "-ldl", "-lpthread"]
        built = subprocess.run(words, check=False, capture_output=True, text=True)
        if built.returncode:
            raise CannotBuild(f"powercut.c does not compile: {built.stderr}")

    def environment(self, name: str, watched: Path) -> dict[str, str]:
        """The environment to start the server with. `watched` is the directory of its files."""
        self._watched[name] = watched
        watched.mkdir(parents=True, exist_ok=True)
        return {
            "LD_PRELOAD": str(self._library),
            "HOLDFAST_POWERCUT_DIR": str(watched),
            "HOLDFAST_POWERCUT_JOURNAL": str(self._journal(name)),
        }

    def _journal(self, name: str) -> Path:
        return self._directory / f"{name}.journal"

    def begin(self, name: str) -> None:
        """Before a new start: everything that is in the files now counts as durable."""
        self._journal(name).unlink(missing_ok=True)
        kept = self._watched[name]
        shutil.rmtree(kept.with_name(kept.name + ".kept"), ignore_errors=True)

    def lose_unsynced(self, name: str) -> int:
        """Undo what was not synced. Returns the number of changes undone. Call it after the process is gone."""
        undo = _unsynced(_read(self._journal(name)))
        everything = self._chance.random() < 0.5
        taken = 0
        for change in reversed(undo):
            # Changes of names are undone in order or not at all: a later one may depend on an earlier one.
            if everything or change.kind not in b"WT" or self._chance.random() < 0.5:
                _take_back(change)
                taken += 1
        self.begin(name)
        return taken


def _read(journal: Path) -> list[_Change]:
    data = journal.read_bytes() if journal.exists() else b""
    changes: list[_Change] = []
    at = 0
    while at + _HEAD.size <= len(data):
        kind, one, two, offset, size, before = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        end = at + one + two + size
        if end > len(data):
            break  # killed while writing this record, before the change itself
        path, second = data[at : at + one].decode(), data[at + one : at + one + two].decode()
        changes.append(_Change(kind, path, second, offset, data[at + one + two : end], before))
        at = end
    return changes


def _unsynced(changes: list[_Change]) -> list[_Change]:
    """The changes that no later sync made durable. A renamed file keeps its history."""
    pending: list[_Change] = []
    for change in changes:
        if change.kind == b"S":
            # Its content, its size and its own creation.
            pending = [c for c in pending if not (c.path == change.path and c.kind in b"WTC")]
        elif change.kind == b"D":
            pending = [c for c in pending if not (c.kind in b"CRU" and os.path.dirname(c.path) == change.path)]
        else:
            if change.kind == b"R":
                for earlier in pending:
                    if earlier.kind in b"WTC" and earlier.path == change.path:
                        earlier.path = change.second
            pending.append(change)
    return pending


def _take_back(change: _Change) -> None:
    path = Path(change.path)
    if not path.parent.is_dir():
        return  # the whole directory was removed afterwards, as one that is not in use any more; that stays so
    if change.kind == b"W" and path.exists():
        with path.open("r+b") as file:
            file.seek(change.offset)
            file.write(change.data)
            if file.seek(0, os.SEEK_END) > change.before:
                file.truncate(change.before)
    elif change.kind == b"T" and path.exists():
        with path.open("r+b") as file:
            file.truncate(change.before)
            file.seek(change.offset)
            file.write(change.data)
    elif change.kind == b"C":
        path.unlink(missing_ok=True)
    elif change.kind == b"R":
        second = Path(change.second)
        if second.exists():
            second.rename(path)
        if change.data:
            os.link(change.data.decode(), second)
    elif change.kind == b"U" and not path.exists():
        os.link(change.data.decode(), path)
