"""Keeps the newest known keys of a prefix in a file, for a start while no server answers.

The file is replaced as a whole, and the one before is kept beside it (`FILE.1`): a file that was torn or damaged is
noticed by its checksum, and the older one is read. That a state without changes was current later, too, is in a small
file of its own (`FILE.at`). All are readable by their owner only.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.client.errors import ClientError
from holdfast.proto import rpc_pb2

_MAGIC = b"holdfast last-good 1\n"
_HEAD = struct.Struct(">QII")  # when it was current (ms since 1970), bytes of the prefix, bytes of the keys
_DIGEST = 16
_CONFIRMED = struct.Struct(f">{_DIGEST}sQ")  # which file, and when it was current last


class NotThatPrefix(ClientError):
    """The file holds another prefix."""


@dataclass(frozen=True, slots=True)
class LastGood:
    found: rpc_pb2.RangeResponse
    current_at: float  # seconds since 1970: the state was current then, or later
    digest: bytes  # of the file

    @property
    def age(self) -> float:
        return max(0.0, time.time() - self.current_at)


def save(path: Path, prefix: bytes, found: rpc_pb2.RangeResponse, age: float = 0.0) -> bytes:
    """`age`: of the state, in seconds. Returns the digest of the file. Raises OSError; the files are then as they
    were."""
    body = found.SerializeToString()
    head = _HEAD.pack(int((time.time() - age) * 1000), len(prefix), len(body)) + prefix
    digest = hashlib.blake2b(_MAGIC + head + body, digest_size=_DIGEST).digest()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(_MAGIC + digest + head + body)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        path.replace(_before(path))
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return digest


def confirm(path: Path, digest: bytes, age: float) -> None:
    """Record that the state of the file with this digest is only `age` seconds old. If that is lost, by a power cut or
    otherwise, the state counts as older than it is. Raises OSError."""
    body = _CONFIRMED.pack(digest, int((time.time() - age) * 1000))
    fresh = path.with_name(f"{path.name}.at.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(body + hashlib.blake2b(body, digest_size=_DIGEST).digest())
    fresh.replace(_at(path))


def _confirmed_at(path: Path, digest: bytes) -> float:
    """When the file with this digest was current, as far as is recorded beside it; 0: nothing is."""
    try:
        data = _at(path).read_bytes()
    except OSError:
        return 0.0
    body = data[: _CONFIRMED.size]
    if len(data) < _CONFIRMED.size or hashlib.blake2b(body, digest_size=_DIGEST).digest() != data[_CONFIRMED.size :]:
        return 0.0
    known, at = _CONFIRMED.unpack(body)
    return at / 1000 if known == digest else 0.0


def load(path: Path, prefix: bytes) -> LastGood | None:
    """The newest file that is whole; None if there is none. Raises NotThatPrefix."""
    for candidate in (path, _before(path)):
        try:
            if not candidate.is_file():  # reading a pipe would wait for a writer
                continue
            found = _parse(candidate.read_bytes(), prefix, candidate)
        except OSError:
            continue
        if found is not None:
            return replace(found, current_at=max(found.current_at, _confirmed_at(path, found.digest)))
    return None


def _at(path: Path) -> Path:
    return path.with_name(f"{path.name}.at")


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _parse(data: bytes, prefix: bytes, path: Path) -> LastGood | None:
    begin = len(_MAGIC) + _DIGEST
    if len(data) < begin + _HEAD.size or not data.startswith(_MAGIC):
        return None
    rest, digest = data[begin:], data[len(_MAGIC) : begin]
    if hashlib.blake2b(_MAGIC + rest, digest_size=_DIGEST).digest() != digest:
        return None
    at, prefix_bytes, _ = _HEAD.unpack_from(rest)
    held = rest[_HEAD.size : _HEAD.size + prefix_bytes]
    if held != prefix:
        raise NotThatPrefix(f"{path} holds the keys of {held!r}, not of {prefix!r}: use another file")
    return LastGood(rpc_pb2.RangeResponse.FromString(rest[_HEAD.size + prefix_bytes :]), at / 1000, digest)
