"""The values that the client returns, and conversions of keys and ranges."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.client.freshness import Freshness
from holdfast.client.position import Position
from holdfast.keyrange import prefix_end
from holdfast.proto import kv_pb2


@dataclass(frozen=True, slots=True)
class KeyValue:
    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int

    @classmethod
    def of(cls, kv: kv_pb2.KeyValue) -> KeyValue:
        return cls(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `previous` is set if it was requested and is not compacted."""

    type: str  # "put" or "delete"
    kv: KeyValue
    previous: KeyValue | None

    @classmethod
    def of(cls, event: kv_pb2.Event) -> Event:
        type_ = "delete" if event.type == kv_pb2.Event.DELETE else "put"
        previous = KeyValue.of(event.prev_kv) if event.HasField("prev_kv") else None
        return cls(type_, KeyValue.of(event.kv), previous)


@dataclass(frozen=True, slots=True)
class RangeResult:
    """The result of a read. `count` is the number of keys in the range, including those beyond the limit. `freshness`:
    how old it can be, if the read was serializable or with `max_staleness`, and the server says it."""

    kvs: list[KeyValue]
    count: int
    more: bool
    revision: int
    freshness: Freshness | None = None
    cluster_id: int = 0

    @property
    def position(self) -> Position:
        """What this read has all up to."""
        return Position(self.cluster_id, self.revision)


@dataclass(frozen=True, slots=True)
class PutResult:
    revision: int
    previous: KeyValue | None


@dataclass(frozen=True, slots=True)
class SequentialResult:
    """`key` is the key that was made."""

    key: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class DeleteResult:
    revision: int
    deleted: int
    previous: list[KeyValue]


def to_bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def range_start(key: bytes, *, prefix: bool) -> bytes:
    """The start of a range. With the empty prefix this is the first key; the server refuses a single empty key."""
    return key or (b"\x00" if prefix else b"")


def range_end(key: bytes, *, prefix: bool, end: str | bytes | None) -> bytes:
    """etcd's range_end: `end` if given, with `prefix` the end of all keys that begin with `key`, empty for one key."""
    if end is not None:
        return to_bytes(end)
    return prefix_end(key) if prefix else b""
