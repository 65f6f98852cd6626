"""Answers a Range, from the newest versions or from history, in slices.

A large range is read over many turns of the loop, from one consistent view, so that it delays nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

from holdfast.keyrange import bounds
from holdfast.kv.rows import (
    escape,
    index_after,
    index_from,
    revision_key,
    unescape,
    unpack_current,
    unpack_index_key,
    unpack_revision,
)
from holdfast.kv.slices import Sliced, SlicedSort
from holdfast.kv.store import Family, Reader
from holdfast.proto import kv_pb2, rpc_pb2
from holdfast.status import INVALID_SORT, RequestError

PASSED_OVER = 8  # versions of one key passed over before seeking is cheaper

_ORDERS = rpc_pb2.RangeRequest.SortOrder.values()
_TARGETS = rpc_pb2.RangeRequest.SortTarget.values()


def check_sort(request: rpc_pb2.RangeRequest) -> None:
    """Raise RequestError for an unknown sort order or target."""
    if request.sort_order not in _ORDERS or request.sort_target not in _TARGETS:
        raise RequestError(INVALID_SORT)


class Row(NamedTuple):
    key: bytes
    create: int
    mod: int
    version: int
    kv: bytes  # serialised KeyValue


class RangeScan(Sliced):
    """The execution of one Range request from `reader`, which must not change until it is finished. Each row costs 1,
    plus 1 for each KiB of it.

    `revision` is the one to read at. `count` is the number of live keys in the range if that is current, else None.
    """

    def __init__(self, reader: Reader, request: rpc_pb2.RangeRequest, *, revision: int, count: int | None) -> None:
        check_sort(request)
        super().__init__()
        self._request = r = request
        start, end = bounds(request.key, request.range_end)
        self._rows: Iterator[Row | None]
        if count is not None:
            self._rows = newest_rows(reader, start, end)
        else:
            self._rows = rows_at(reader, start, end, revision)
            self.floor = revision
        self.revision = revision
        self._known_count = count
        self.seen = 0  # rows read
        self._passed = 0  # of them, those that belong to the answer if there is no limit
        self._kvs: list[bytes] = []  # the answer
        self._filtered = bool(
            r.min_mod_revision or r.max_mod_revision or r.min_create_revision or r.max_create_revision
        )
        # NONE with the target KEY, or ascending by key, is the natural order.
        natural = r.sort_target == r.KEY and r.sort_order in (r.NONE, r.ASCEND)
        self._sort = None if natural or r.count_only else _sort(request)
        # With a sort or a filter the whole range is read before the limit is applied. With a target but order NONE
        # the limit is applied first, in key order, as in etcd.
        ordered = not natural and bool(r.sort_order)
        self._cut_early = r.limit if r.limit > 0 and not ordered and not self._filtered else 0

    def steps(self) -> Iterator[int]:
        """Read, sort, and make the answer. Yields the cost of each row."""
        request = self._request
        if request.count_only and self._known_count is not None:
            return
        cut, wanted, filtered = self._cut_early, not request.count_only, self._filtered
        for row in self._rows:
            if row is None:
                yield 1
                continue
            self.seen += 1
            if cut and self._passed >= cut:
                if self._known_count is not None:
                    break
            elif wanted and (not filtered or self._passes(row)):
                self._take(row)
            yield 1 + (len(row.kv) >> 10)
        if self._sort is not None:
            for row in self._sort.merged():
                self._kvs.append(self._shown(row))
                yield 1

    def _passes(self, row: Row) -> bool:
        r = self._request
        return (
            (not r.min_mod_revision or row.mod >= r.min_mod_revision)
            and (not r.max_mod_revision or row.mod <= r.max_mod_revision)
            and (not r.min_create_revision or row.create >= r.min_create_revision)
            and (not r.max_create_revision or row.create <= r.max_create_revision)
        )

    def _take(self, row: Row) -> None:
        self._passed += 1
        self.held += len(row.kv)
        if self._sort is not None:
            self._sort.add(row)
        elif self._request.limit <= 0 or self._passed <= self._request.limit:
            self._kvs.append(self._shown(row))

    def _shown(self, row: Row) -> bytes:
        return _without_value(row.kv) if self._request.keys_only else row.kv

    @property
    def found(self) -> list[bytes]:
        """The serialised KeyValues found so far, of a scan in natural order."""
        return self._kvs

    def result(self) -> tuple[list[bytes], bool, int]:
        """(serialised KeyValues, more, count). Call only when the scan is finished."""
        limit, passed = self._request.limit, self._passed
        count = self._known_count if self._known_count is not None else self.seen
        if self._request.count_only:
            return [], False, count
        more = limit > 0 and (passed > limit or (bool(self._cut_early) and count > passed))
        return self._kvs, more, count


def newest_rows(reader: Reader, start: bytes, end: bytes | None) -> Iterator[Row]:
    found: Iterable[tuple[bytes, bytes]]
    if end == start + b"\x00":
        value = reader.get(Family.CUR, start)
        found = [(start, value)] if value is not None else []
    else:
        found = reader.scan(Family.CUR, start, end)
    for key, value in found:
        row = unpack_current(value)
        yield Row(key, row.create, row.mod, row.version, row.kv)


def rows_at(reader: Reader, start: bytes, end: bytes | None, revision: int) -> Iterator[Row | None]:
    """The rows of a range as of `revision`. Yields None for a step that found no row, so that it is charged to the
    budget, too. The store may change meanwhile, as long as history from `revision` on is not removed."""
    for version in _versions(reader, start, end, revision):
        if version is None or version.tombstone:
            yield None
            continue
        value = reader.get(Family.REV, revision_key(version.mod, version.sub))
        assert value is not None, f"the index names {version.mod}.{version.sub}, history lacks it"
        _, _, kv = unpack_revision(value)
        parsed = kv_pb2.KeyValue.FromString(kv)
        yield Row(unescape(version.escaped), parsed.create_revision, version.mod, parsed.version, kv)


class _Version(NamedTuple):
    escaped: bytes
    mod: int
    sub: int
    tombstone: bool


def _versions(reader: Reader, start: bytes, end: bytes | None, revision: int) -> Iterator[_Version | None]:
    """For each key of the range its newest version at `revision`; None for each key that has newer ones.

    Where a key has many versions, a seek skips the irrelevant ones, so that each step is short. What is written
    meanwhile has a newer revision and is irrelevant, so a seek need not see the same view as the one before.
    """
    at, stop = escape(start), None if end is None else escape(end)
    answered = newer = b""  # the last key whose version was found; the last with a version that is too new
    while True:
        passed = 0
        for row, value in reader.scan(Family.IDX, at, stop):
            escaped, mod, sub = unpack_index_key(row)
            if escaped == answered:
                passed += 1
                if passed == PASSED_OVER:
                    at = index_after(escaped)
                    break
            elif mod <= revision:
                answered, passed = escaped, 0
                yield _Version(escaped, mod, sub, value == b"\x01")
            elif escaped == newer:
                passed += 1
                if passed == PASSED_OVER:
                    at = index_from(escaped, revision)
                    break
            else:
                newer, passed = escaped, 0
                yield None
        else:
            return


def newest_at(reader: Reader, key: bytes, revision: int) -> tuple[int, int] | None:
    """(revision, sub) of the newest change of `key` up to `revision`."""
    escaped = escape(key)
    for row, _ in reader.scan(Family.IDX, index_from(escaped, revision), index_after(escaped)):
        return unpack_index_key(row)[1:]
    return None


def _sort(request: rpc_pb2.RangeRequest) -> SlicedSort[Row]:
    r = rpc_pb2.RangeRequest
    limit, descending = max(0, request.limit), request.sort_order == r.DESCEND
    if request.sort_target == r.VALUE:
        return SlicedSort(lambda row: kv_pb2.KeyValue.FromString(row.kv).value, reverse=descending, limit=limit)
    name = {r.KEY: "key", r.VERSION: "version", r.CREATE: "create", r.MOD: "mod"}[request.sort_target]
    return SlicedSort(attrgetter(name), reverse=descending, limit=limit)


def _without_value(kv: bytes) -> bytes:
    parsed = kv_pb2.KeyValue.FromString(kv)
    parsed.ClearField("value")
    return parsed.SerializeToString()
