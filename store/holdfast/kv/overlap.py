"""Finds transactions that could put a key twice, or put and delete it; they are refused, as in etcd. The success and
failure branches of one transaction exclude each other, so both may touch the same keys.

A key is represented by its position among all keys that are put, and a delete by the interval of positions in it.
Both are kept sorted, so that comparing two parts takes the time of the smaller one, and not of all pairs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from holdfast.keyrange import bounds
from holdfast.proto import rpc_pb2

Ops = Iterable[rpc_pb2.RequestOp]


def touches_twice(ops: Ops) -> bool:
    """Whether some path through these operations puts a key twice, or puts and deletes it."""
    keys = sorted(set(_put_keys(ops)))
    places = {key: place for place, key in enumerate(keys)}
    return _touched(ops, keys, places) is None


def _put_keys(ops: Ops) -> Iterator[bytes]:
    for op in ops:
        kind = op.WhichOneof("request")
        if kind == "request_put":
            yield op.request_put.key
        elif kind == "request_txn":
            yield from _put_keys(op.request_txn.success)
            yield from _put_keys(op.request_txn.failure)


@dataclass(slots=True)
class _Touched:
    """Positions that are put, and intervals of positions that are deleted, on the paths of a part; both sorted."""

    put: set[int] = field(default_factory=set)
    puts: list[int] = field(default_factory=list)
    deletes: list[tuple[int, int]] = field(default_factory=list)
    furthest: list[int] = field(default_factory=list)  # for each delete, the largest end up to it

    def add(self, puts: list[int], deletes: list[tuple[int, int]]) -> None:
        self.put.update(puts)
        if puts:
            self.puts += puts
            self.puts.sort()
        if deletes:
            self.deletes += deletes
            self.deletes.sort()
            self.furthest = list(accumulate((end for _, end in self.deletes), max))

    def conflicts(self, other: _Touched) -> bool:
        return not self.put.isdisjoint(other.put) or self.puts_within(other) or other.puts_within(self)

    def puts_within(self, other: _Touched) -> bool:
        """Whether `other` deletes a key that is put here."""
        if len(self.puts) > len(other.deletes):
            return any(bisect_left(self.puts, start) < bisect_left(self.puts, end) for start, end in other.deletes)
        for place in self.puts:
            before = bisect_right(other.deletes, place, key=_beginning)
            if before and other.furthest[before - 1] > place:
                return True
        return False


def _beginning(interval: tuple[int, int]) -> int:
    return interval[0]


def _touched(ops: Ops, keys: list[bytes], places: Mapping[bytes, int]) -> _Touched | None:
    """What the paths through `ops` touch; None if one of them touches a key twice."""
    puts: list[int] = []
    deletes: list[tuple[int, int]] = []
    nested: list[rpc_pb2.TxnRequest] = []
    for op in ops:
        kind = op.WhichOneof("request")
        if kind == "request_put":
            puts.append(places[op.request_put.key])
        elif kind == "request_delete_range" and op.request_delete_range.range_end != b"\x00":
            # etcd does not check a range without an end here, so it conflicts with nothing; it is executed in order.
            start, end = bounds(op.request_delete_range.key, op.request_delete_range.range_end)
            first, last = bisect_left(keys, start), len(keys) if end is None else bisect_left(keys, end)
            if first < last:
                deletes.append((first, last))
        elif kind == "request_txn":
            nested.append(op.request_txn)
    all_of_it = _Touched()
    all_of_it.add(puts, deletes)
    if len(all_of_it.put) < len(puts) or all_of_it.puts_within(all_of_it):
        return None
    for txn in nested:
        ways = [_touched(txn.success, keys, places), _touched(txn.failure, keys, places)]
        for way in ways:
            if way is None or all_of_it.conflicts(way):
                return None
        for way in ways:
            assert way is not None
            if len(way.puts) + len(way.deletes) > len(all_of_it.puts) + len(all_of_it.deletes):
                all_of_it, way = way, all_of_it
            all_of_it.add(way.puts, way.deletes)
    return all_of_it
