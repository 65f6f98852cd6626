"""Migrates a data directory from "holdfast data 1" to "holdfast data 2", once, at a start.

In format 1 the small files had no checksums and no copies, and the log had no mark. Nothing else is rewritten: log
segments of the old format stay until they are forgotten. Everything is checked before the first step, every step can be
repeated, and FORMAT is written last, so after a crash at any point the next start migrates again.

In between, the previous version may be started again. So the identity is sealed first, because that version refuses a
sealed identity. It would take a sealed pointer for the name of another state, and remove the state in use. A file that
it has written since is newer than a sealed copy, so a file in the old form takes precedence.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

from holdfast.storage.damage import REPLACE, Damaged
from holdfast.storage.files import write_atomically
from holdfast.storage.log import DurableLog
from holdfast.storage.sealed import Fields, SealedFile

log = logging.getLogger("holdfast.storage")


def migrate(path: Path, now: str) -> None:
    """Migrate the directory; `now` is the new content of FORMAT. Raises Damaged, and then FORMAT is unchanged."""
    identity = SealedFile(path / "identity.json")
    founding = SealedFile(path / "founding.json")
    pointer = SealedFile(path / "state" / "current")
    who = _either(identity, _identity)
    view = _either(founding, _view)
    current = _either(pointer, _generation)
    if who is not None:
        member = who.get("kind") != "replica"
        made = bool(who.get("cluster_id")) if member else current is not None
        _check(path, made=made, current=current)
        if made and member:
            _mark(path / "log")
        who = {**who, "made": made}
    elif _held(path):
        raise Damaged(f"{identity.path} is missing, but {path} holds {' and '.join(_held(path))}; {REPLACE}")
    for file, fields in ((identity, who), (founding, view), (pointer, current)):
        if fields is not None:
            file.write(fields)
    write_atomically(path / "FORMAT", now.encode())
    log.info("the data directory %s has the format %r now", path, now.strip())


def _either(file: SealedFile, old: Callable[[bytes], Fields]) -> Fields | None:
    """The file's content, in the old or the sealed form; None if it is missing."""
    if not file.exists:
        return None
    try:
        return old(file.path.read_bytes())
    except (OSError, ValueError) as error:
        why = error
    try:
        return file.read("")
    except Damaged as damaged:
        raise Damaged(f"{file.path} is damaged ({why}); restore it, or {REPLACE}") from damaged


def _identity(data: bytes) -> Fields:
    fields = json.loads(data)
    if not isinstance(fields, dict) or "volume_id" not in fields:
        raise ValueError("it names no volume")
    return fields


def _view(data: bytes) -> Fields:
    fields = json.loads(data)
    if not isinstance(fields, dict) or not all(isinstance(id, str) for id in fields.values()):
        raise ValueError("it does not give ids by names")
    return fields


def _generation(data: bytes) -> Fields:
    name = data.decode().strip()
    if not re.fullmatch(r"\d{8}", name):
        raise ValueError(f"{name!r} is no generation of the state")
    return {"generation": name}


def _held(path: Path) -> list[str]:
    return [part for part in ("log", "state") if (path / part).exists() and any((path / part).iterdir())]


def _check(path: Path, *, made: bool, current: Fields | None) -> None:
    """Check, before anything is written, that the directory's content is consistent. Raises Damaged."""
    if not made and _held(path):
        raise Damaged(
            f"{path} holds {' and '.join(_held(path))}, but not what says whose they are (identity.json) or which are "
            f"in use (state/current); {REPLACE}"
        )
    if not made:
        return
    place = None if current is None else path / "state" / str(current["generation"])
    if place is None or not place.is_dir() or not any(place.iterdir()):
        raise Damaged(f"{path / 'state' / 'current'} names no state that is there; {REPLACE}")


def _mark(directory: Path) -> None:
    """Read the log by the rules of format 1, and create its mark."""
    durable = DurableLog(directory)
    for _ in durable.replay(unmarked=True):
        pass
    durable.close()
