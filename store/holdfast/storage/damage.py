"""What is known to be damaged in a data directory, and that it stays known.

A member that has lost any of its log or state may have acknowledged what it no longer has, so it must not serve by its
identity again. Damage that is found while serving is written to the file DAMAGED, and no later start passes it by.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.kv.store import StateDamaged
from holdfast.storage.files import write_atomically

EXIT_CODE = 4  # of a process that found damage
MARK = "DAMAGED"
REPLACE = "remove this member, empty its volume, and add it again as a new one"


class Damaged(Exception):
    """A file was changed, cut or lost after it was durable. The message names it, and says what to do."""


DAMAGE = (Damaged, StateDamaged)


def mark_damaged(directory: Path, line: str) -> None:
    """Remember what was found: every start refuses until the file is removed."""
    write_atomically(directory / MARK, line.encode() + b"\n")


def known_damage(directory: Path) -> str:
    """What an earlier run found; empty if it found nothing."""
    file = directory / MARK
    return file.read_text(errors="replace").strip() or "not said" if file.exists() else ""


def refuse_known_damage(directory: Path) -> None:
    line = known_damage(directory)
    if line:
        raise Damaged(f"{directory / MARK} says that this directory is damaged, see `holdfast doctor`: {line}")
