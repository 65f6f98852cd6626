"""Which cachable prefixes a command may change, told before it is appended."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from holdfast.keyrange import Range, bounds
from holdfast.machine.cachable import prefix_range
from holdfast.proto import raft_pb2, rpc_pb2


class Ranged(Protocol):
    start: bytes
    end: bytes | None


class Prefix:
    """All keys with a prefix."""

    def __init__(self, prefix: bytes) -> None:
        self.start, self.end = prefix_range(prefix)


Z = TypeVar("Z", bound=Ranged)


class Zones(Generic[Z]):
    """Zones of keys without overlaps, found by the ranges that they touch."""

    def __init__(self, zones: Iterable[Z]) -> None:
        self._zones = sorted(zones, key=lambda zone: zone.start)
        self._starts = [zone.start for zone in self._zones]

    def touched(self, start: bytes, end: bytes | None) -> Iterator[Z]:
        """The zones that have keys in [start, end)."""
        at = max(0, bisect_right(self._starts, start) - 1)
        for zone in self._zones[at:]:
            if end is not None and zone.start >= end:
                return
            if zone.end is None or zone.end > start:
                yield zone

    def around(self, start: bytes, end: bytes | None) -> Z | None:
        """The zone that has all of [start, end)."""
        for zone in self.touched(start, start + b"\x00"):
            if zone.end is None or (end is not None and end <= zone.end):
                return zone
        return None


def may_wait(command: raft_pb2.Command, zones: Zones[Prefix]) -> bool:
    """Whether the command may have to wait for caches, by its own words."""
    return any(True for start, end in written(command) for _ in zones.touched(start, end))


def written(command: raft_pb2.Command) -> Iterator[Range]:
    """The ranges that `command` writes by its own words: those of a lease that it revokes are not among them."""
    kind = command.WhichOneof("op")
    if kind == "put":
        yield bounds(command.put.key, b"")
    elif kind == "delete_range":
        yield bounds(command.delete_range.key, command.delete_range.range_end)
    elif kind == "txn":
        for op in _operations(command.txn):
            if op.HasField("request_put"):
                yield bounds(op.request_put.key, b"")
            elif op.HasField("request_delete_range"):
                yield bounds(op.request_delete_range.key, op.request_delete_range.range_end)
    elif kind == "put_sequential":
        yield prefix_range(command.put_sequential.prefix)
    elif kind == "cachable" and not command.cachable.allowed:
        yield prefix_range(command.cachable.prefix)


def attached(command: raft_pb2.Command) -> Iterator[int]:
    """The leases to which `command` may attach keys."""
    kind = command.WhichOneof("op")
    if kind == "put":
        yield command.put.lease
    elif kind == "put_sequential":
        yield command.put_sequential.lease
    elif kind == "txn":
        for op in _operations(command.txn):
            yield op.request_put.lease


def _operations(txn: rpc_pb2.TxnRequest) -> Iterator[rpc_pb2.RequestOp]:
    """The operations of all branches, also of nested transactions."""
    for op in (*txn.success, *txn.failure):
        if op.HasField("request_txn"):
            yield from _operations(op.request_txn)
        else:
            yield op
