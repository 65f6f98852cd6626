"""Limits on how much a transaction that writes may compare and read.

Every member executes it in one go, so it is refused if it looks at too much. Finding that out may take as many reads as
the transaction itself, or more, because both branches of nested transactions count; so it is done in slices.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice

from holdfast.keyrange import bounds
from holdfast.kv import requests
from holdfast.kv.slices import Sliced
from holdfast.kv.space import WRITTEN, KeySpace
from holdfast.proto import rpc_pb2
from holdfast.status import Code, Refusal, RequestError

MAX_READ = 10_000  # rows that a transaction that writes may read; each KiB of a row counts as one more
MAX_COMPARED = 10_000  # rows that the compares of any transaction may examine, counted in the same way
PAST = 10  # cost of a row of an old revision, in current rows; it is counted by reading it
PAST_STEPS = 100  # rows of an old revision that are counted together

TOO_MUCH_READ = Refusal(
    Code.INVALID_ARGUMENT,
    f"holdfast: a transaction that writes would read more than {MAX_READ} keys, or KiB; read them first, and compare",
)
TOO_MUCH_COMPARED = Refusal(
    Code.INVALID_ARGUMENT, f"holdfast: the compares of the transaction look at more than {MAX_COMPARED} keys, or KiB"
)


class TxnCheck(Sliced):
    """Raises RequestError if a transaction that writes would look at too much. The state may change meanwhile.

    `cost`: afterwards, how many rows it looks at, reads and writes when it is executed, at most.
    """

    def __init__(self, space: KeySpace, request: rpc_pb2.TxnRequest) -> None:
        super().__init__()
        self._space = space
        self._request = request
        self._compared = 0
        self.cost = 0

    def steps(self) -> Iterator[int]:
        request = self._request
        yield from self._compares(request)
        read = yield from self._rows_read(request, 0)
        self.cost = self._compared + read + rows_written(self._space, request)

    # ---- compares ------------------------------------------------------------------------------------------

    def _compares(self, request: rpc_pb2.TxnRequest) -> Iterator[int]:
        """Count the rows that compares examine, those of nested transactions in both branches."""
        for compare in request.compare:
            if compare.range_end:
                yield from self._compare(compare)
            else:
                self._examined(1)
        for op in (*request.success, *request.failure):
            if op.WhichOneof("request") == "request_txn":
                yield from self._compares(op.request_txn)

    def _compare(self, compare: rpc_pb2.Compare) -> Iterator[int]:
        for key in self._space.walk(*bounds(compare.key, compare.range_end)):
            row = self._space.get(key)
            if row is None:
                continue  # removed meanwhile
            self._examined(cost := requests.cost(row))
            yield cost
            if not requests.holds(compare, row):
                return

    def _examined(self, cost: int) -> None:
        self._compared += cost
        if self._compared > MAX_COMPARED:
            raise RequestError(TOO_MUCH_COMPARED)

    # ---- ranges --------------------------------------------------------------------------------------------

    def _rows_read(self, request: rpc_pb2.TxnRequest, before: int) -> Generator[int, None, int]:
        """`before` and the rows that ranges read in the larger branch."""
        most = before
        for ops in (request.success, request.failure):
            total = before
            for op in ops:
                kind = op.WhichOneof("request")
                if kind == "request_range":
                    total = yield from self._rows_of_range(op.request_range, total)
                elif kind == "request_txn":
                    total = yield from self._rows_read(op.request_txn, total)
            most = max(most, total)
        return most

    def _rows_of_range(self, request: rpc_pb2.RangeRequest, total: int) -> Generator[int, None, int]:
        space = self._space
        if 0 < request.revision != space.reading_revision:
            return (yield from self._rows_of_the_past(request, total))
        if request.count_only:
            return _allowed(total + 1)
        start, end = bounds(request.key, request.range_end)
        count = space.count(start, end)
        if request.limit > 0 and requests.in_key_order(request):
            count = min(count, request.limit)
        _allowed(total + count)
        for key in islice(space.walk(start, end), count):
            cost = requests.cost(space.get(key))
            total = _allowed(total + cost)
            yield cost
        return total

    def _rows_of_the_past(self, request: rpc_pb2.RangeRequest, total: int) -> Generator[int, None, int]:
        try:
            scan = self._space.scan(request)
        except RequestError:
            return total  # the transaction itself will be refused
        self.floor = scan.floor
        finished = False
        while not finished:
            total = _allowed(total + PAST_STEPS * PAST)
            finished = scan.advance(PAST_STEPS) > 0
            yield PAST_STEPS
        self.floor = None
        return total


def _allowed(total: int) -> int:
    if total > MAX_READ:
        raise RequestError(TOO_MUCH_READ)
    return total


def rows_written(space: KeySpace, request: rpc_pb2.TxnRequest) -> int:
    """The cost of all puts and deletions of both branches, in rows read."""
    total = 0
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind == "request_put":
            total += WRITTEN
        elif kind == "request_delete_range":
            total += rows_deleted(space, op.request_delete_range)
        elif kind == "request_txn":
            total += rows_written(space, op.request_txn)
    return total


def rows_deleted(space: KeySpace, request: rpc_pb2.DeleteRangeRequest) -> int:
    """The cost of a deletion, in rows read."""
    return WRITTEN * space.count(*bounds(request.key, request.range_end))
