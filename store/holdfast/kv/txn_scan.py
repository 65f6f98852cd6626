"""Read-only transactions in slices, and limits on how much a transaction that writes may read.

A request of two kilobytes can ask for a hundred ranges of the whole store. Executed in one go, it would delay
heartbeats. So a read-only transaction is decided at once, and then reads at that revision over many turns of the loop,
like a large Range. One that writes must be executed in one go by every member, so it is refused if it reads too much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import islice

from holdfast.keyrange import bounds
from holdfast.kv import requests
from holdfast.kv.scan import RangeScan
from holdfast.kv.space import KeySpace
from holdfast.proto import kv_pb2, rpc_pb2
from holdfast.status import Code, Refusal, RequestError

AT_ONCE = 1000  # rows that a read-only transaction may read in one go
MAX_READ = 10_000  # rows that a transaction that writes may read; each KiB of a row counts as one more
MAX_ANSWER_BYTES = 256 << 20  # of a read-only transaction: more than one Range of a large store needs
MAX_COMPARED = 10_000  # keys that the compares of any transaction may examine
PAST = 10  # cost of a row of an old revision, in current rows; it is counted by reading it

TOO_MUCH_READ = Refusal(
    Code.INVALID_ARGUMENT,
    f"holdfast: a transaction that writes would read more than {MAX_READ} keys, or KiB; read them first, and compare",
)
TOO_MUCH_ANSWERED = Refusal(
    Code.RESOURCE_EXHAUSTED,
    f"holdfast: the answer of the transaction would be larger than {MAX_ANSWER_BYTES >> 20} MiB; use Range, in pages",
)
TOO_MUCH_COMPARED = Refusal(
    Code.INVALID_ARGUMENT, f"holdfast: the compares of the transaction look at more than {MAX_COMPARED} keys"
)


def check_compares(space: KeySpace, request: rpc_pb2.TxnRequest) -> None:
    """Raise RequestError if the compares examine too many keys, counting nested ones in both branches."""
    if _compared(space, request, MAX_COMPARED) > MAX_COMPARED:
        raise RequestError(TOO_MUCH_COMPARED)


def check_reads(space: KeySpace, request: rpc_pb2.TxnRequest) -> None:
    """Raise RequestError if a transaction that writes would read too much."""
    if rows_read(space, request, MAX_READ) > MAX_READ:
        raise RequestError(TOO_MUCH_READ)


def rows_read(space: KeySpace, request: rpc_pb2.TxnRequest, most: int) -> int:
    """How many rows the ranges of `request` read in the larger branch. Counting stops beyond `most`."""
    return max(_rows(space, ops, most) for ops in (request.success, request.failure))


def _rows(space: KeySpace, ops: Iterable[rpc_pb2.RequestOp], most: int) -> int:
    total = 0
    for op in ops:
        kind = op.WhichOneof("request")
        if kind == "request_range":
            total += _rows_of_range(space, op.request_range, most - total)
        elif kind == "request_txn":
            total += rows_read(space, op.request_txn, most - total)
        if total > most:
            break
    return total


def _rows_of_range(space: KeySpace, request: rpc_pb2.RangeRequest, most: int) -> int:
    if 0 < request.revision != space.reading_revision:
        return _rows_of_the_past(space, request, most)
    if request.count_only:
        return 1
    start, end = bounds(request.key, request.range_end)
    count = space.count(start, end)
    if request.limit > 0 and requests.in_key_order(request):
        count = min(count, request.limit)
    return count if count > most else _with_sizes(space, islice(space.iterate(start, end), count), most)


def _with_sizes(space: KeySpace, keys: Iterable[bytes], most: int) -> int:
    total = 0
    for key in keys:
        row = space.get(key)
        total += 1 + (len(row.kv) >> 10 if row is not None else 0)
        if total > most:
            break
    return total


def _rows_of_the_past(space: KeySpace, request: rpc_pb2.RangeRequest, most: int) -> int:
    try:
        scan = space.scan(request)
    except RequestError:
        return 0  # the transaction itself will be refused
    looked = 0
    while looked <= most:
        looked += 100 * PAST
        if scan.advance(100):
            break
    return looked


def _compared(space: KeySpace, request: rpc_pb2.TxnRequest, most: int) -> int:
    total = 0
    for compare in request.compare:
        total += requests.keys_compared(space, compare) if compare.range_end else 1
        if total > most:
            return total
    for op in (*request.success, *request.failure):
        if op.WhichOneof("request") == "request_txn":
            total += _compared(space, op.request_txn, most - total)
            if total > most:
                break
    return total


class TxnScan:
    """The execution of a read-only transaction at `revision`."""

    def __init__(self, space: KeySpace, leases: Collection[int], request: rpc_pb2.TxnRequest) -> None:
        """Raises RequestError."""
        self.revision = space.reading_revision
        self.response = rpc_pb2.TxnResponse()
        self._ranges: list[tuple[rpc_pb2.RangeResponse, RangeScan]] = []  # in reverse order
        requests.txn_by(space, leases, request, self.response, self._later(space))
        self._ranges.reverse()
        self._bytes = 0

    def _later(self, space: KeySpace) -> Callable[[rpc_pb2.RangeRequest, rpc_pb2.RangeResponse], None]:
        def later(request: rpc_pb2.RangeRequest, into: rpc_pb2.RangeResponse) -> None:
            into.SetInParent()
            self._ranges.append((into, space.scan_at(request, self.revision)))

        return later

    @property
    def floor(self) -> int:
        """The oldest revision that is read."""
        return min((scan.revision for _, scan in self._ranges), default=self.revision)

    def advance(self, budget: int) -> bool:
        """Read more rows, for `budget`. True: finished. Raises RequestError if the response becomes too large."""
        if self._ranges:
            into, scan = self._ranges[-1]
            if not scan.advance(budget):
                return False
            fill(into, scan)
            self._ranges.pop()
            self._bytes += into.ByteSize()
            if self._bytes > MAX_ANSWER_BYTES:
                raise RequestError(TOO_MUCH_ANSWERED)
        return not self._ranges


def fill(response: rpc_pb2.RangeResponse, scan: RangeScan) -> None:
    kvs, response.more, response.count = scan.result()
    response.kvs.extend(kv_pb2.KeyValue.FromString(kv) for kv in kvs)
