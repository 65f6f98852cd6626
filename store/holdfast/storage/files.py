"""Durable file operations: atomic replacement of files, and syncing of directories, for safety in a crash."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from pathlib import Path

log = logging.getLogger("holdfast.storage")

MAKE_ROOM = "make room (some 20 MB are enough to start), then start it again"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
TAKES_NOTHING = (*NO_ROOM, errno.EROFS)
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
PRIVATE_UMASK = 0o077  # for processes that store data: only their user may read it


def make_private(path: Path) -> None:
    """Remove the permissions of group and others from `path` and everything below it. Files of other users are left
    unchanged."""
    open_to_all = False
    for place in (path, *path.rglob("*")):
        mode = stat.S_IMODE(place.lstat().st_mode)
        if mode & PRIVATE_UMASK and not place.is_symlink():
            with contextlib.suppress(PermissionError):
                place.chmod(mode & ~PRIVATE_UMASK & 0o777)
            open_to_all = open_to_all or bool(mode & 0o007 and place.is_file() and place.stat().st_size)
    if open_to_all:
        log.warning("files in %s were readable by every user of this machine; their permissions are now private", path)


def free_bytes(path: Path) -> int:
    """Free bytes for this process on the file system of `path`."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def sync_directory(path: Path) -> None:
    """Make creations, renames and removals in `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data` durably. After a crash it has either the old content or the new."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(fresh, path)
    sync_directory(path.parent)
