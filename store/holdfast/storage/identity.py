"""The identity of the node that owns a data directory: minted once per volume, never copied and never minted again.

FORMAT          "holdfast data 2": a program that does not know the number refuses to start
LOCK            held by the process that uses the directory
identity.json   volume, member and cluster id, and the incarnation: the number of this start (`storage.sealed`)
log/  state/    see `storage.log` and `storage.state`
log.synced      how far the log is durable (`storage.mark`)
state.synced    how far the state of a replica is durable (`storage.mark`)
making/         a log and a state that are incomplete, or complete but not moved to their final place yet
DAMAGED         damage that an earlier run found (`storage.damage`)
RESTORING       empty; a restore has begun and is not finished

A missing file does not make a directory empty: with a log, a state or a cluster id it belongs to a node. If something
is missing or inconsistent, starting refuses and removes nothing. Only the content of `making/` may be removed, as long
as the identity does not say that it is complete.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from holdfast.member.messages import MAX_INCARNATION
from holdfast.storage.damage import REPLACE, Damaged, mark_damaged, refuse_known_damage
from holdfast.storage.files import (
    MAKE_ROOM,
    NO_ROOM,
    TAKES_NOTHING,
    free_bytes,
    make_private,
    sync_directory,
    write_atomically,
)
from holdfast.storage.migration import migrate
from holdfast.storage.sealed import Fields, SealedFile

log = logging.getLogger("holdfast.storage")

FORMAT = "holdfast data 2\n"
FORMAT_1 = "holdfast data 1\n"

_MADE = ("log.synced", "log", "state")
_OURS = ("identity.json", "founding.json", "making", "state.synced", *_MADE)
RESTORING = "RESTORING"
STATE_MARK = "state.synced"
SITE = "local"  # the keys of a site, at a replica: they stay when everything else is removed
_NOBODYS = ("LOCK", "FORMAT.new", "lost+found", RESTORING, SITE, f"{SITE}.new")
_EPOCH = 1_767_225_600  # 2026-01-01


ROOM_TO_START = 8 << 20  # free space below which a start removes the spare segment
MOST_MINUTES = MAX_INCARNATION // 2  # the year 2041


class DataDirectoryError(Exception):
    """The data directory cannot be used. The message names it and says what to do."""


class NothingTaken(DataDirectoryError):
    """The disk is full, or mounted read-only. A replica can still serve from it, see `ReadOnlyDirectory`."""


def check_start(path: Path, incarnation: int) -> None:
    """Raise DataDirectoryError if this number of a start does not fit into what members send."""
    if incarnation >= MAX_INCARNATION:
        raise DataDirectoryError(
            f"{path}: the starts are counted up to {incarnation - 1}, probably because the clock was once far ahead; "
            "no number is left. Its data is whole, but this member cannot be started again: remove it from the "
            "cluster, and add it anew with an empty directory"
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """`cluster_id` 0: belongs to no cluster yet. `incarnation` numbers the starts, so that proposals of an earlier run
    are never taken for proposals of this one."""

    volume_id: int
    member_id: int = 0
    cluster_id: int = 0
    incarnation: int = 0
    kind: str = "member"  # or "replica"
    opened: bool = True  # False: a founder whose founding is not yet recorded; it serves no clients
    made: bool = False  # the log and state (of a replica: the state) have been created, so they must exist

    @staticmethod
    def of(found: Fields, file: Path) -> Identity:
        """Raises Damaged."""
        kinds = {field.name: type(field.default) for field in fields(Identity)} | {"volume_id": int}
        if any(type(value) is not kinds.get(name) for name, value in found.items()) or not found.get("volume_id"):
            raise Damaged(f"{file} is no identity of a volume: {found}; {REPLACE}")
        return Identity(**found)


class DataDirectory:
    """An opened and locked data directory."""

    def __init__(self, path: Path, kind: str = "member", *, restoring: bool = False) -> None:
        """`restoring`: to restore a snapshot into it. Unless the directory holds a member already, nothing else opens
        it before the restore is finished. Raises DataDirectoryError or Damaged; nothing has been removed then."""
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            kind_of_error = NothingTaken if error.errno in TAKES_NOTHING else DataDirectoryError
            raise kind_of_error(f"cannot use the data directory {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataDirectoryError(
                f"the data directory {path} is in use by another process; stop it or choose another --data-dir"
            ) from error
        self._file = SealedFile(path / "identity.json")
        try:
            refuse_known_damage(path)
            made = _made(path)
            if restoring and not made:
                self._mark_restoring()
            elif not made:
                refuse_unfinished(path)
            make_private(path)
            self._format()
            self.identity = self._load(kind)
        except OSError as error:
            self.close()
            if error.errno in NO_ROOM:
                raise NothingTaken(f"no room in the data directory {path}; {MAKE_ROOM}") from error
            if error.errno in TAKES_NOTHING:
                raise NothingTaken(f"the data directory {path} is on a disk that is mounted read-only") from error
            raise DataDirectoryError(f"cannot use the data directory {path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _mark_restoring(self) -> None:
        """An empty file, so that it can be made on a full disk."""
        os.close(os.open(self.path / RESTORING, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sync_directory(self.path)

    def _format(self) -> None:
        found = read_format(self.path)
        if found is None:
            write_atomically(self.path / "FORMAT", FORMAT.encode())
        elif found == 1:
            migrate(self.path, FORMAT)

    def _load(self, kind: str) -> Identity:
        known = read_identity(self.path, self._file) or Identity(volume_id=mint_id(), kind=kind)
        if known.kind != kind:
            raise DataDirectoryError(f"{self.path} belongs to a {known.kind}, not to a {kind}")
        for lack in self._file.lacks if known.incarnation else ():
            log.warning("%s; what was written last is known from the other one, and both are written anew", lack)
        _free_the_spare(self.path)
        # The clock ensures that a number is not used twice, even if both files were restored from a backup. One that is
        # far ahead is wrong, and must not use up the numbers.
        minutes = (int(time.time()) - _EPOCH) // 60
        started = self._at_start(known, max(known.incarnation + 1, minutes if minutes < MOST_MINUTES else 0))
        self._store(started)
        sync_directory(self.path)
        self._settle()
        return started

    def _at_start(self, known: Identity, incarnation: int) -> Identity:
        check_start(self.path, incarnation)
        return replace(known, incarnation=incarnation)

    # ---- creating log and state ----------------------------------------------------------------------------

    def begin_making(self) -> Path:
        """An empty directory in which to create a log and a state. They come into use by `join` or `made`."""
        place = self.path / "making"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def _settle(self) -> None:
        """Move the created parts to their final place if the identity says that they are complete; else remove them.
        Can be repeated after a crash at any point."""
        if self.identity.made and (self.path / RESTORING).exists():
            (self.path / RESTORING).unlink()
            sync_directory(self.path)
        place = self.path / "making"
        if not place.exists():
            return
        if self.identity.made:
            for part in _MADE:
                if (place / part).exists():
                    os.rename(place / part, self.path / part)
            sync_directory(self.path)
            sync_directory(place)
        shutil.rmtree(place)

    def made(self) -> None:
        """Put the created parts in use: they are complete and durable."""
        self._count(replace(self.identity, made=True))

    def join(self, *, cluster_id: int, member_id: int, opened: bool = True) -> None:
        """Belong to a cluster from now on, and put the created log and state in use. Once set, the ids never change."""
        known = self.identity
        if known.cluster_id not in (0, cluster_id) or known.member_id not in (0, member_id):
            raise DataDirectoryError(
                f"{self.path} belongs to member {known.member_id:x} of cluster {known.cluster_id:x}, "
                f"not to member {member_id:x} of cluster {cluster_id:x}"
            )
        self._count(replace(known, cluster_id=cluster_id, member_id=member_id, opened=opened, made=True))

    def _count(self, identity: Identity) -> None:
        sync_directory(self.path / "making")
        sync_directory(self.path)
        self._store(identity)
        self._settle()

    # ---- the rest ------------------------------------------------------------------------------------------

    def count_on(self, incarnation: int) -> int:
        """Ensure that the incarnation is higher than `incarnation`, of which traces were found. Returns it."""
        if self.identity.incarnation <= incarnation:
            log.warning(
                "%s is an older copy: it counts %d starts, but there is something of start %d; it is written anew",
                self._file.path,
                self.identity.incarnation - 1,
                incarnation,
            )
            self._store(self._at_start(self.identity, incarnation + 1))
        return self.identity.incarnation

    def open_for_clients(self) -> None:
        self._store(replace(self.identity, opened=True))

    def _store(self, identity: Identity) -> None:
        self.identity = identity
        self._file.write(asdict(identity))

    def mark_damaged(self, line: str) -> None:
        """Record damage, so that every later start refuses to use this directory: see `storage.damage`."""
        mark_damaged(self.path, line)

    def close(self) -> None:
        os.close(self._lock)


class ReadOnlyDirectory:
    """The data directory of a replica on a disk that takes nothing: locked, and left as it is."""

    def __init__(self, path: Path, kind: str) -> None:
        """Raises DataDirectoryError or Damaged, also if there is nothing in the directory yet."""
        self.path = path
        try:
            self._lock = os.open(path / "LOCK", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataDirectoryError(f"cannot use the data directory {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            refuse_known_damage(path)
            identity = read_identity(path, SealedFile(path / "identity.json"))
            if read_format(path) != 2 or identity is None or not identity.made or identity.kind != kind:
                raise DataDirectoryError(f"{path} holds nothing that a {kind} could serve")
            self.identity = identity
        except OSError as error:
            self.close()
            raise DataDirectoryError(f"cannot use the data directory {path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def mark_damaged(self, line: str) -> None:
        """It cannot be recorded."""

    def close(self) -> None:
        os.close(self._lock)


def read_format(path: Path) -> int | None:
    """The format of the directory; None if it is empty. Changes nothing."""
    file = path / "FORMAT"
    if not file.exists():
        others = sorted(p.name for p in path.iterdir() if p.name not in _NOBODYS)
        ours = [name for name in others if name.removesuffix(".copy") in _OURS]
        if ours:
            raise Damaged(
                f"{file} is missing, but {path} holds {', '.join(ours)}: its format is not known. If it was written by "
                f"this version, write the line {FORMAT.strip()!r} to it; otherwise {REPLACE}"
            )
        if others:
            raise DataDirectoryError(
                f"{path} is neither empty nor a data directory of holdfast (it holds {others[0]}); "
                "choose another --data-dir"
            )
        return None
    found = file.read_bytes()
    if found in (FORMAT.encode(), FORMAT_1.encode()):
        return 2 if found == FORMAT.encode() else 1
    if re.fullmatch(rb"holdfast data \d+\n", found):
        raise DataDirectoryError(
            f"{path} has the format {found.decode().strip()!r}, this program knows {FORMAT.strip()!r}; "
            "use a version of holdfast that knows it"
        )
    raise Damaged(
        f"{file} is damaged: it holds {found[:32]!r}. If the directory was written by this version, write the line "
        f"{FORMAT.strip()!r} to it; otherwise {REPLACE}"
    )


def read_identity(path: Path, file: SealedFile) -> Identity | None:
    """The identity in the directory; None if there is none yet. Changes nothing. Raises Damaged if it is inconsistent
    with the directory's content."""
    found = file.read(f"whose directory this is, is not known; {REPLACE}")
    held = [part for part in _MADE if _holds(path / part)]
    if found is None:
        if SealedFile(path / "founding.json").exists:
            held.append("founding.json")
        if held:
            raise Damaged(
                f"{file.path} is missing, but {path} holds {' and '.join(held)}: whose they are, is not known; restore "
                f"the file, or {REPLACE}"
            )
        return None
    identity = Identity.of(found, file.path)
    if held and not identity.made:
        raise Damaged(
            f"{file.path} says that this volume belongs to no cluster yet, but {path} holds {' and '.join(held)}: it "
            f"is older than they are; restore the newest one, or {REPLACE}"
        )
    return identity


def refuse_unfinished(path: Path) -> None:
    """Raise DataDirectoryError if a restore into the directory has begun and did not finish. Changes nothing."""
    if (path / RESTORING).exists() and not _made(path):
        raise DataDirectoryError(
            f"a restore into {path} has begun and is not finished: run `holdfast snapshot restore` into it again, or "
            "empty the directory"
        )


def _made(path: Path) -> bool:
    """Whether the directory belongs to a node that has its log and its state."""
    return read_format(path) == 2 and getattr(read_identity(path, SealedFile(path / "identity.json")), "made", False)


def _free_the_spare(path: Path) -> None:
    """If there is hardly any room, remove the log's spare segment, whose content means nothing. So a start on a full
    disk has the room that it needs to serve reads."""
    spare = path / "log" / "spare"
    if free_bytes(path) < ROOM_TO_START and spare.exists():
        spare.unlink()
        sync_directory(spare.parent)


def _holds(part: Path) -> bool:
    return any(part.iterdir()) if part.is_dir() else part.exists()


def mint_id() -> int:
    """A random id, not 0, that fits a signed 64-bit integer, so that every client can represent it."""
    return int.from_bytes(os.urandom(8), "big") >> 1 or 1
