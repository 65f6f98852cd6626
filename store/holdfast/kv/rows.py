"""The layout of key versions in the store. Numbers are big-endian, so that rows sort by them.

CUR  user key                            -> create, mod, sub, version, lease | serialised KeyValue
REV  revision | sub                      -> type, previous revision | sub    | serialised KeyValue
IDX  escaped key | ~revision | ~sub      -> 1 if that version is a tombstone, else 0

`sub` counts the changes within one revision. A range response is made of the serialised KeyValues as stored.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from holdfast.proto import kv_pb2

PUT = 0
DELETE = 1
Version = tuple[int, int]  # the place of a change in history: its revision, and its number within that
NO_REVISION: Version = (0, 0)

_CUR = Struct(">qqIqq")
_REV_KEY = Struct(">qI")
_REV = Struct(">BqI")
_INV = Struct(">QI")
_MAX64 = (1 << 64) - 1
_MAX32 = (1 << 32) - 1
CUR_HEAD = _CUR.size
_LEASE = Struct(">q")  # the end of _CUR
LEASE_AT = slice(CUR_HEAD - _LEASE.size, CUR_HEAD)  # where a packed Current has its lease
NO_LEASE = bytes(_LEASE.size)
REV_HEAD = _REV.size
_KEY_TAG = kv_pb2.KeyValue.DESCRIPTOR.fields_by_name["key"].number << 3 | 2  # its wire type: length-delimited


class Current(NamedTuple):
    """The newest version of a live key."""

    create: int
    mod: int
    sub: int
    version: int
    lease: int
    kv: bytes  # serialised KeyValue


class Change(NamedTuple):
    """What one revision did to one key; becomes a watch event."""

    key: bytes
    type: int  # PUT or DELETE
    revision: int
    kv: bytes  # serialised KeyValue after the change; of a tombstone only key and mod_revision
    create: bool  # a put of a key that was not there
    previous: bytes | None  # serialised KeyValue before the change, if there was one and it is not compacted


def pack_current(row: Current) -> bytes:
    return _CUR.pack(row.create, row.mod, row.sub, row.version, row.lease) + row.kv


def unpack_current(value: bytes) -> Current:
    create, mod, sub, version, lease = _CUR.unpack_from(value)
    return Current(create, mod, sub, version, lease, value[CUR_HEAD:])


def lease_of(value: bytes) -> int:
    """The lease of a packed Current, without the rest: an index of all keys is built at each start."""
    lease: int = _LEASE.unpack(value[LEASE_AT])[0]
    return lease


def revision_key(revision: int, sub: int = 0) -> bytes:
    return _REV_KEY.pack(revision, sub)


def unpack_revision_key(key: bytes) -> tuple[int, int]:
    revision, sub = _REV_KEY.unpack(key)
    return revision, sub


def pack_revision(type_: int, previous: tuple[int, int], kv: bytes) -> bytes:
    return _REV.pack(type_, *previous) + kv


def unpack_revision(value: bytes) -> tuple[int, tuple[int, int], bytes]:
    type_, revision, sub = _REV.unpack_from(value)
    return type_, (revision, sub), value[REV_HEAD:]


def escape(key: bytes) -> bytes:
    """Encode `key` so that no escaped key is a prefix of another, and they sort like the keys."""
    return key.replace(b"\x00", b"\x00\xff") + b"\x00\x00"


def unescape(escaped: bytes) -> bytes:
    return escaped[:-2].replace(b"\x00\xff", b"\x00")


def index_key(key: bytes, revision: int, sub: int) -> bytes:
    return escape(key) + _INV.pack(_MAX64 - revision, _MAX32 - sub)


def index_from(escaped: bytes, revision: int) -> bytes:
    """Where the versions of a key up to `revision` begin in the index, the newest first."""
    return escaped + _INV.pack(_MAX64 - revision, 0)


def index_after(escaped: bytes) -> bytes:
    """A position after all versions of a key and before those of the next key."""
    return escaped[:-1] + b"\x01"


def unpack_index_key(row: bytes) -> tuple[bytes, int, int]:
    """The escaped key, the revision and the sub of an IDX row."""
    revision, sub = _INV.unpack_from(row, len(row) - _INV.size)
    return row[: -_INV.size], _MAX64 - revision, _MAX32 - sub


def encode_kv(key: bytes, value: bytes, create: int, mod: int, version: int, lease: int) -> bytes:
    return kv_pb2.KeyValue(
        key=key, value=value, create_revision=create, mod_revision=mod, version=version, lease=lease
    ).SerializeToString()


def encode_tombstone(key: bytes, mod: int) -> bytes:
    return kv_pb2.KeyValue(key=key, mod_revision=mod).SerializeToString()


def key_of(kv: bytes) -> bytes:
    """The key of a serialised KeyValue. Short keys, the first field, are read without parsing the rest: history is read
    a row at a time, and its values may be large."""
    if len(kv) > 1 and kv[0] == _KEY_TAG and kv[1] < 0x80:
        return kv[2 : 2 + kv[1]]
    return kv_pb2.KeyValue.FromString(kv).key
