"""Records known damage of a data directory, so that it is not forgotten.

A member that has lost a part of its log or state may have acknowledged entries that it no longer has, so it must not
serve with its identity again. Damage found while serving is written to the file DAMAGED, and every later start refuses.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.kv.store import StateDamaged
from holdfast.storage.files import write_atomically

EXIT_CODE = 4  # exit code of a process that found damage
MARK = "DAMAGED"
REPLACE = "remove this member, empty its volume, and add it again as a new one"


class Damaged(Exception):
    """A durable file was changed, truncated or lost. The message names it and says what to do."""


DAMAGE = (Damaged, StateDamaged)


def mark_damaged(directory: Path, line: str) -> None:
    """Record what was found: every start refuses until the file is removed."""
    write_atomically(directory / MARK, line.encode() + b"\n")


def known_damage(directory: Path) -> str:
    """The damage that an earlier run recorded; empty if none."""
    file = directory / MARK
    return file.read_text(errors="replace").strip() or "not said" if file.exists() else ""


def refuse_known_damage(directory: Path) -> None:
    line = known_damage(directory)
    if line:
        raise Damaged(f"{directory / MARK} says that this directory is damaged, see `holdfast doctor`: {line}")
