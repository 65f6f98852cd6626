"""Which node a data directory belongs to. Minted once per volume, never copied, never made up again.

FORMAT          "holdfast data 1": a program that does not know the number refuses to start
LOCK            held by the process that uses the directory
identity.json   volume, member and cluster id, and how often this volume was started
log/  state/    see `storage.log` and `storage.state`
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from holdfast.storage.damage import mark_damaged, refuse_known_damage
from holdfast.storage.files import sync_directory, write_atomically

FORMAT = "holdfast data 1\n"


class DataDirectoryError(Exception):
    """The data directory cannot be used; says which and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """`cluster_id` 0: belongs to no cluster yet. `incarnation` counts starts, so that what an earlier run of this
    member proposed is never taken for something of this one."""

    volume_id: int
    member_id: int = 0
    cluster_id: int = 0
    incarnation: int = 0
    kind: str = "member"  # or "replica"
    opened: bool = True  # False: a founder whose founding is not yet recorded; it serves no clients


class DataDirectory:
    """An opened and locked data directory."""

    def __init__(self, path: Path, kind: str = "member") -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirectoryError(f"cannot use the data directory {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataDirectoryError(
                f"the data directory {path} is in use by another process; stop it or choose another --data-dir"
            ) from error
        refuse_known_damage(path)
        self._check_format()
        self.identity = self._load(kind)

    def _check_format(self) -> None:
        file = self.path / "FORMAT"
        if not file.exists():
            others = [p.name for p in self.path.iterdir() if p.name not in ("LOCK", "lost+found")]
            if others:
                raise DataDirectoryError(
                    f"{self.path} is neither empty nor a data directory of holdfast (it holds {others[0]}); "
                    "choose another --data-dir"
                )
            write_atomically(file, FORMAT.encode())
        elif (found := file.read_text()) != FORMAT:
            raise DataDirectoryError(
                f"{self.path} has the format {found.strip()!r}, this program knows {FORMAT.strip()!r}; "
                "use a version of holdfast that knows it"
            )

    def _load(self, kind: str) -> Identity:
        file = self.path / "identity.json"
        if file.exists():
            try:
                known = Identity(**json.loads(file.read_text()))
            except (ValueError, TypeError) as error:
                raise DataDirectoryError(
                    f"{file} is damaged: {error}; restore it or start with an empty volume"
                ) from error
            if known.kind != kind:
                raise DataDirectoryError(f"{self.path} belongs to a {known.kind}, not to a {kind}")
        else:
            known = Identity(volume_id=mint_id(), kind=kind)
        started = replace(known, incarnation=known.incarnation + 1)
        self._store(started)
        sync_directory(self.path)
        return started

    def open_for_clients(self) -> None:
        self._store(replace(self.identity, opened=True))

    def join(self, *, cluster_id: int, member_id: int, opened: bool = True) -> None:
        """Belong to a cluster from now on. Once set, neither id changes."""
        known = self.identity
        if known.cluster_id not in (0, cluster_id) or known.member_id not in (0, member_id):
            raise DataDirectoryError(
                f"{self.path} belongs to member {known.member_id:x} of cluster {known.cluster_id:x}, "
                f"not to member {member_id:x} of cluster {cluster_id:x}"
            )
        self._store(replace(known, cluster_id=cluster_id, member_id=member_id, opened=opened))

    def _store(self, identity: Identity) -> None:
        self.identity = identity
        write_atomically(self.path / "identity.json", json.dumps(asdict(identity)).encode())

    def mark_damaged(self, line: str) -> None:
        """Serve no more by this identity, whoever starts it: see `storage.damage`."""
        mark_damaged(self.path, line)

    def close(self) -> None:
        os.close(self._lock)


def mint_id() -> int:
    """A random id that is not 0 and fits a signed 64-bit number, so that every client can hold it."""
    return int.from_bytes(os.urandom(8), "big") >> 1 or 1
