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


class RangeScan:
    """The execution of one Range request from `reader`, which must not change until it is finished.

    `revision` is the one to read at. `count` is the number of live keys in the range if that is current, else None.
    """

    def __init__(self, reader: Reader, request: rpc_pb2.RangeRequest, *, revision: int, count: int | None) -> None:
        check_sort(request)
        self._request = request
        start, end = bounds(request.key, request.range_end)
        self._rows: Iterator[Row | None]
        if count is not None:
            self._rows = _newest(reader, start, end)
        else:
            self._rows = _at_revision(reader, start, end, revision)
        self.revision = revision
        self._known_count = count
        self.seen = 0  # rows read
        self._chosen: list[Row] = []
        r = request
        self._filtered = bool(
            r.min_mod_revision or r.max_mod_revision or r.min_create_revision or r.max_create_revision
        )
        self._sorted = r.sort_order != r.NONE or r.sort_target != r.KEY
        # NONE with the target KEY, or ascending by key, is the natural order.
        if r.sort_target == r.KEY and r.sort_order in (r.NONE, r.ASCEND):
            self._sorted = False
        # With a sort or a filter the whole range is read before the limit is applied. With a target but order NONE
        # the limit is applied first, in key order, as in etcd.
        self._cut_early = r.limit if r.limit > 0 and not (self._sorted and r.sort_order) and not self._filtered else 0

    def advance(self, budget: int) -> bool:
        """Read more rows. Each costs 1, plus 1 for each KiB of it, out of `budget`. True: finished."""
        request = self._request
        if request.count_only and self._known_count is not None:
            return True
        cut = self._cut_early
        for row in self._rows:
            if row is None:
                budget -= 1
                if budget <= 0:
                    return False
                continue
            self.seen += 1
            if cut and len(self._chosen) >= cut:
                if self._known_count is not None:
                    return True
            elif not request.count_only and (not self._filtered or self._passes(row)):
                self._chosen.append(row)
            budget -= 1 + (len(row.kv) >> 10)
            if budget <= 0:
                return False
        return True

    def _passes(self, row: Row) -> bool:
        r = self._request
        return (
            (not r.min_mod_revision or row.mod >= r.min_mod_revision)
            and (not r.max_mod_revision or row.mod <= r.max_mod_revision)
            and (not r.min_create_revision or row.create >= r.min_create_revision)
            and (not r.max_create_revision or row.create <= r.max_create_revision)
        )

    def result(self) -> tuple[list[bytes], bool, int]:
        """(serialised KeyValues, more, count). Call only when `advance` has returned True."""
        request = self._request
        count = self._known_count if self._known_count is not None else self.seen
        if request.count_only:
            return [], False, count
        rows = self._chosen
        if self._sorted:
            rows = _sort(rows, request)
        more = False
        if request.limit > 0 and len(rows) > request.limit:
            rows, more = rows[: request.limit], True
        elif self._cut_early and count > len(rows):
            more = True
        if request.keys_only:
            return [_without_value(row.kv) for row in rows], more, count
        return [row.kv for row in rows], more, count


def _newest(reader: Reader, start: bytes, end: bytes | None) -> Iterator[Row]:
    found: Iterable[tuple[bytes, bytes]]
    if end == start + b"\x00":
        value = reader.get(Family.CUR, start)
        found = [(start, value)] if value is not None else []
    else:
        found = reader.scan(Family.CUR, start, end)
    for key, value in found:
        row = unpack_current(value)
        yield Row(key, row.create, row.mod, row.version, row.kv)


def _at_revision(reader: Reader, start: bytes, end: bytes | None, revision: int) -> Iterator[Row | None]:
    """Yields None for a step that found no row, so that it is charged to the budget, too."""
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


def _sort(rows: list[Row], request: rpc_pb2.RangeRequest) -> list[Row]:
    r = rpc_pb2.RangeRequest
    descending = request.sort_order == r.DESCEND
    if request.sort_target == r.VALUE:
        return sorted(rows, key=lambda row: kv_pb2.KeyValue.FromString(row.kv).value, reverse=descending)
    name = {r.KEY: "key", r.VERSION: "version", r.CREATE: "create", r.MOD: "mod"}[request.sort_target]
    return sorted(rows, key=attrgetter(name), reverse=descending)


def _without_value(kv: bytes) -> bytes:
    parsed = kv_pb2.KeyValue.FromString(kv)
    parsed.ClearField("value")
    return parsed.SerializeToString()
