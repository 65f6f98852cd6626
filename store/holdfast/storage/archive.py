"""A saved snapshot as one file: a tar archive with a manifest and a RocksDB checkpoint, then its SHA-256.

The archive is a multiple of 512 bytes long, and the SHA-256 has 32 bytes, which is what etcdctl checks in a snapshot.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path

FORMAT = "holdfast snapshot 1"
SUM_BYTES = 32
_CHUNK = 1 << 20
_LIMITS = {"cluster_id": 1 << 64}  # of the manifest's numbers; the others have 63 bits


class ArchiveError(Exception):
    """The file is not a usable snapshot; the message says why."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Identifies the state that a snapshot contains."""

    cluster_id: int
    epoch: int
    revision: int
    index: int
    term: int


def pack(place: Path, archive: Path, manifest: Manifest) -> None:
    """Make an archive of the checkpoint in `place`, without the SHA-256."""
    fields = {"format": FORMAT, **asdict(manifest), "cluster_id": f"{manifest.cluster_id:x}"}
    text = json.dumps(fields).encode()
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
        for file in sorted(place.iterdir()):
            tar.add(file, f"state/{file.name}")


def verify(file: Path) -> Manifest:
    """Check the SHA-256 over the whole file. Raises ArchiveError."""
    try:
        left = file.stat().st_size - SUM_BYTES
        total = hashlib.sha256()
        with file.open("rb") as source:
            while left > 0:
                chunk = source.read(min(_CHUNK, left))
                if not chunk:
                    break
                total.update(chunk)
                left -= len(chunk)
            if left or source.read() != total.digest():
                raise ArchiveError(f"{file} is damaged, or no snapshot: its sum is wrong")
        with tarfile.open(file) as tar:
            return _manifest(tar, file)
    except (OSError, tarfile.TarError) as error:
        raise ArchiveError(f"{file} cannot be read as a snapshot: {error}") from error


def _manifest(tar: tarfile.TarFile, file: Path) -> Manifest:
    first = tar.next()
    source = tar.extractfile(first) if first is not None and first.name == "manifest.json" else None
    if source is None:
        raise ArchiveError(f"{file} is no snapshot of holdfast: it has no manifest")
    try:
        fields = json.loads(source.read(1 << 16))
        if not isinstance(fields, dict):
            raise TypeError("it is not a JSON object")
        if fields.pop("format") != FORMAT:
            raise ArchiveError(f"{file} has a format that this program does not know; use one that does")
        return _checked(Manifest(**{**fields, "cluster_id": int(fields["cluster_id"], 16)}))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArchiveError(f"{file}: its manifest is wrong: {error}") from error


def _checked(manifest: Manifest) -> Manifest:
    """Raises ValueError."""
    for name, value in asdict(manifest).items():
        if type(value) is not int or not 0 <= value < _LIMITS.get(name, 1 << 63):
            raise ValueError(f"{name} {str(value)[:50]!r} is not possible")
    return manifest


def unpack(file: Path, place: Path) -> None:
    """Extract the files of the checkpoint to `place`. Call `verify` first."""
    with tarfile.open(file) as tar:
        for member in tar:
            name = member.name.removeprefix("state/")
            if member.name == "manifest.json":
                continue
            if not member.isreg() or name == member.name or "/" in name or name in ("", ".", ".."):
                raise ArchiveError(f"{file}: {member.name!r} has no place in a snapshot")
            source = tar.extractfile(member)
            assert source is not None
            with (place / name).open("wb") as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
