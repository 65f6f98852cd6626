"""Finds damage in a data directory without changing it, by reading every part in full.

In a directory that is in use, only the small files are read: its log and state change meanwhile, and the process that
uses them checks them itself.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rocksdict import Rdict, ReadOptions

from holdfast.kv.store import StateDamaged
from holdfast.machine import applied
from holdfast.member.recovery import Replay
from holdfast.storage.damage import DAMAGE, MARK, Damaged, known_damage
from holdfast.storage.identity import (
    STATE_MARK,
    DataDirectoryError,
    Identity,
    check_start,
    read_format,
    read_identity,
    refuse_unfinished,
)
from holdfast.storage.log import DurableLog
from holdfast.storage.mark import Mark
from holdfast.storage.peek import Rows, peek
from holdfast.storage.sealed import SealedFile
from holdfast.storage.state import StateDirectory, lost_rows

NEVER_AGAIN = "it must not serve with this identity again: it may have acknowledged writes that it no longer has\n"
REPLACED = """the way back is a new identity:
  1. remove this member from the cluster:  holdfast member remove {id} --endpoints ANOTHER_MEMBER
  2. empty the volume (keep a copy of the directory if the cluster has lost its quorum)
  3. add a new member in its place:  holdfast member add PEER_URL --endpoints ANOTHER_MEMBER
  4. start it with --initial-cluster-state existing, and let it vote:
                                           holdfast member promote NEW_ID --endpoints ANOTHER_MEMBER
`holdfast member list` shows the ids. An operator does all of this by itself once the volume is empty.
A member alone in its cluster has nobody to take its data from: restore a snapshot (holdfast snapshot restore)."""
UNFINISHED = "the way back: run `holdfast snapshot restore` into it again, or empty the directory"
EMPTIED = "the way back: remove all but local/, the keys of its site, from the replica's directory, and it follows anew"
RESTORE = "restore"


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    good: bool
    line: str


@dataclass(frozen=True, slots=True)
class Report:
    findings: list[Finding]
    safe: bool  # to start
    advice: str


def examine(path: Path) -> Report:
    """Examine a data directory. Raises DataDirectoryError if it is not one."""
    if not path.is_dir():
        raise DataDirectoryError(f"{path} is not a directory")
    with _Lock(path) as free:
        line = "free" if free else "held by a running process, so log and state are left to it"
        findings = [Finding("lock", True, line)]
        identity: list[Identity] = []
        for part, look in _parts(path, identity, whole=free):
            try:
                findings.append(Finding(part, True, look()))
            except DataDirectoryError:
                raise
            except DAMAGE as error:
                findings.append(Finding(part, False, str(error)))
    safe = all(finding.good for finding in findings)
    replica = bool(identity) and identity[0].kind == "replica"
    unfinished = any(finding.part == RESTORE and not finding.good for finding in findings)
    known = f"{identity[0].member_id:x}" if identity and identity[0].member_id else "ID"
    if safe:
        return Report(findings, safe, "")
    if unfinished:
        return Report(findings, safe, UNFINISHED)
    return Report(findings, safe, EMPTIED if replica else NEVER_AGAIN + REPLACED.format(id=known))


def _parts(path: Path, identity: list[Identity], *, whole: bool) -> Iterator[tuple[str, Callable[[], str]]]:
    ends: list[int] = []  # index of the entry before the log's first, and of the state's last entry
    yield "mark of damage", lambda: _mark(path)
    yield "format", lambda: _format(path)
    yield "identity", lambda: _identity(path, identity)
    yield RESTORE, lambda: _restoring(path)
    known = identity[0] if identity else None
    if whole and (known is None or known.made):  # identity unknown: examine what there is
        if known is None or known.kind == "member":
            yield "log", lambda: _log(path / "log", ends)
        yield "state", lambda: _state(path, ends)
        if len(ends) == 2:
            yield "log and state", lambda: _fit(*ends)


def _mark(path: Path) -> str:
    line = known_damage(path)
    if line:
        raise StateDamaged(f"{path / MARK}: an earlier run found damage: {line}")
    return "none"


def _format(path: Path) -> str:
    form = read_format(path)
    if form == 1:
        raise DataDirectoryError(f"{path} has the format before this one; start it once, or use its version's tools")
    return "an empty directory" if form is None else f"holdfast data {form}"


def _restoring(path: Path) -> str:
    try:
        refuse_unfinished(path)
    except DataDirectoryError as error:
        raise Damaged(str(error)) from error
    return "none under way"


def _identity(path: Path, into: list[Identity]) -> str:
    file = SealedFile(path / "identity.json")
    found = read_identity(path, file)
    if found is None:
        return "none yet"
    into.append(found)
    check_start(path, found.incarnation + 1)
    lacks = f" (but {file.lacks[0]}: it is written anew at a start)" if file.lacks else ""
    if found.kind == "replica":
        return f"replica, volume {found.volume_id:x}{lacks}"
    if not found.cluster_id:
        return f"volume {found.volume_id:x}, of no cluster yet{lacks}"
    return f"member {found.member_id:x} of cluster {found.cluster_id:x}, start {found.incarnation}{lacks}"


def _log(directory: Path, ends: list[int]) -> str:
    durable = DurableLog(directory)
    try:
        log = Replay(durable.replay(read_only=True)).log
        ends.append(log.base_index)
        count = "1 segment" if durable.segments == 1 else f"{durable.segments} segments"
        return (
            f"{count}, entries after {log.base_index} up to {log.last}, known to be durable up to position "
            f"{durable.marked_at}"
        )
    finally:
        durable.close()


def _fit(begins: int, ends: int) -> str:
    if begins > ends:
        raise StateDamaged(f"the log begins after entry {begins}, the state ends at {ends}: entries are missing")
    return f"the state ends at entry {ends}, and the log goes on from there"


def _state(path: Path, ends: list[int]) -> str:
    place = StateDirectory(path / "state").current()
    count, size, end = peek(place, _read_all)
    ends.append(end)
    if (path / STATE_MARK).exists():
        _all_synced(place, path / STATE_MARK)
    return f"generation {place.name}, {count} rows of {size} bytes, all of them read"


def _all_synced(place: Path, file: Path) -> None:
    """Raise Damaged or StateDamaged if a replica's state has lost what was synced."""
    mark = Mark(file, read_only=True)
    try:
        lost = peek(place, lambda db: lost_rows(db, mark))
    finally:
        mark.close()
    if lost:
        raise StateDamaged(f"{place}: the state is damaged ({lost})")


def _read_all(db: Rdict) -> tuple[int, int, int]:
    """(number of rows, their bytes, index of the last applied entry)"""
    reading = ReadOptions()
    reading.fill_cache(False)
    rows = db.iter(reading)
    count = size = 0
    rows.seek_to_first()
    while rows.valid():
        count += 1
        size += len(rows.key()) + len(rows.value())
        rows.next()
    rows.status()
    return count, size, applied(Rows(db))[0]


class _Lock:
    """Holds the directory's lock during the examination; yields whether it was free."""

    def __init__(self, path: Path) -> None:
        self._file = path / "LOCK"
        self._fd = -1

    def __enter__(self) -> bool:
        try:
            self._fd = os.open(self._file, os.O_RDONLY)
        except OSError:
            return True  # the directory has not been used yet, or the file cannot be opened
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
