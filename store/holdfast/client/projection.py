"""Writes the keys of a prefix as files of a directory, all at once: a reader never finds files of two states mixed.

It is done as the kubelet writes volumes of ConfigMaps: the files are in a directory of their own, `..data` is a link to
it, and each visible name is a link into `..data`. A new state is a new directory; one rename of the link `..data`
publishes all of it. A reader that reads several files has to resolve `..data` once; its state stays until the next
change but one. Being killed at any point leaves the old state or the new one, and the next write puts the visible names
right.

The link `..told` names the state of which the program was told last. So a program is told of each change, even if the
writer was not running when it happened, or was killed between publishing it and telling.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from holdfast.client.errors import ClientError

DATA, TOLD, _PARTS = "..data", "..told", "..state-"


class Unfit(ClientError):
    """Some keys cannot be files. The message says which, and why."""


def names(keys: Iterable[bytes], prefix: bytes) -> dict[bytes, PurePosixPath]:
    """The path of each key below the directory. Raises Unfit."""
    found: dict[bytes, PurePosixPath] = {}
    for key in keys:
        rest = key[len(prefix) :].removeprefix(b"/")
        parts = rest.split(b"/")
        for part in parts:
            if not part or part in (b".", b"..") or part.startswith(b"..") or b"\0" in part or len(part) > 255:
                raise Unfit(f"the key {key!r} cannot be a file: {part!r} is no name of one")
        found[key] = PurePosixPath(os.fsdecode(rest))
    paths = set(found.values())
    for key, path in found.items():
        for parent in path.parents:
            if parent in paths:
                raise Unfit(f"the key {key!r} cannot be a file: {str(parent)!r} is one, and no directory")
    return found


class Projection:
    """`mode`: of the files."""

    def __init__(self, directory: Path, prefix: bytes, mode: int = 0o644) -> None:
        self._directory = directory
        self._prefix = prefix
        self._mode = mode
        self._told: str | None = None  # the state of which the program was told by this process

    def write(self, values: Mapping[bytes, bytes]) -> bool:
        """Make the directory hold exactly these keys. Returns whether that changed anything. Raises Unfit, and OSError;
        the directory then holds what it held before."""
        wanted = {path: values[key] for key, path in names(values, self._prefix).items()}
        self._directory.mkdir(parents=True, exist_ok=True)
        visible = {path.parts[0] for path in wanted}
        for link in (self._directory / name for name in visible):
            if not link.is_symlink() and link.exists():
                raise Unfit(f"{link} is there already, and is not ours: use another directory")
        changed = wanted != self._held()
        if changed:
            self._publish(wanted)
        self._show(visible)
        self._clean()
        return changed

    def untold(self) -> bool:
        """Whether the program has to be told of what is published. The very first state it reads by itself."""
        told = self._told or self._target(TOLD)
        return told is not None and told != self._target(DATA)

    def mark_told(self) -> None:
        """The program knows what is published. Raises OSError if that cannot be kept for another process."""
        current = self._target(DATA)
        if current is not None and current != self._told:
            self._told = current
            if current != self._target(TOLD):
                self._link(TOLD, current)

    def _target(self, name: str) -> str | None:
        link = self._directory / name
        return os.readlink(link) if link.is_symlink() else None

    def _link(self, name: str, target: str) -> None:
        """Make a link in the directory, or replace it at once."""
        fresh = self._directory / f"{name}_fresh"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(self._directory / name)

    def _held(self) -> dict[PurePosixPath, bytes] | None:
        """What is published now; None: nothing is."""
        data = self._directory / DATA
        if not data.is_dir():
            return None
        files = (path for path in data.resolve().rglob("*") if path.is_file())
        return {PurePosixPath(path.relative_to(data.resolve())): path.read_bytes() for path in files}

    def _publish(self, wanted: Mapping[PurePosixPath, bytes]) -> None:
        state = Path(tempfile.mkdtemp(prefix=_PARTS, dir=self._directory))
        try:
            self._fill(state, wanted)
        except OSError:
            shutil.rmtree(state, ignore_errors=True)  # on a full disk, retries must not take more and more of it
            raise
        before = self._target(DATA)
        if before is not None and self._target(TOLD) is None:
            self._link(TOLD, before)  # written by a version that kept no `..told`
        self._link(DATA, state.name)
        _sync(self._directory)

    def _fill(self, state: Path, wanted: Mapping[PurePosixPath, bytes]) -> None:
        for path, value in wanted.items():
            file = state / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._mode), "wb") as opened:
                os.fchmod(opened.fileno(), self._mode)  # whatever the umask is
                opened.write(value)
                opened.flush()
                os.fsync(opened.fileno())
        for directory in (state, *(path for path in state.rglob("*") if path.is_dir())):
            directory.chmod(0o755)
            _sync(directory)

    def _show(self, visible: set[str]) -> None:
        """Links for what is there now, and none for what is not. Names that are no links of ours stay."""
        for name in visible:
            link, target = self._directory / name, f"{DATA}/{name}"
            if not link.is_symlink() or os.readlink(link) != target:
                with contextlib.suppress(FileNotFoundError):
                    link.unlink()
                link.symlink_to(target)
        for link in self._directory.iterdir():
            ours = link.is_symlink() and os.readlink(link) == f"{DATA}/{link.name}"
            if ours and link.name not in visible:
                link.unlink()

    def _clean(self) -> None:
        """Remove states that are not published, such as those of a process that was killed; but not the newest of them:
        a program may still read the state that was published just before."""
        current = os.readlink(self._directory / DATA)
        old = [path for path in self._directory.glob(f"{_PARTS}*") if path.name != current]
        old.sort(key=lambda path: path.stat().st_mtime_ns)
        for path in old[:-1]:
            shutil.rmtree(path, ignore_errors=True)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
