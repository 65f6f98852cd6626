"""Read-only transactions in slices.

A request of two kilobytes can compare or ask for a hundred ranges of the whole store. Executed in one go, it would
delay heartbeats. So a read-only transaction that is not small compares and reads at one revision, from history, over
many turns of the loop.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from holdfast.keyrange import bounds
from holdfast.kv import requests
from holdfast.kv.rows import Current
from holdfast.kv.scan import RangeScan, Row
from holdfast.kv.slices import Sliced
from holdfast.kv.space import KeySpace
from holdfast.kv.txn_check import MAX_COMPARED, TOO_MUCH_COMPARED
from holdfast.proto import kv_pb2, rpc_pb2
from holdfast.status import Code, Refusal, RequestError

AT_ONCE = 250  # rows that a read-only transaction may look at in one go; a KiB of a row counts as one more
MAX_ANSWER_BYTES = 64 << 20  # of a read-only transaction: it is encoded in one go

TOO_MUCH_ANSWERED = Refusal(
    Code.RESOURCE_EXHAUSTED,
    f"holdfast: the answer of the transaction would be larger than {MAX_ANSWER_BYTES >> 20} MiB; use Range, in pages",
)


class TxnScan(Sliced):
    """The execution of a read-only transaction at `revision`, the current one. Begin it, advancing it once, before
    anything else is applied. Raises RequestError."""

    def __init__(self, space: KeySpace, request: rpc_pb2.TxnRequest) -> None:
        super().__init__()
        self._space = space
        self._request = request
        self.revision = space.reading_revision
        self.response = rpc_pb2.TxnResponse()
        self._compared = 0
        self._bytes = 0

    def steps(self) -> Iterator[int]:
        request = self._request
        small = _cost_if_small(self._space, request)
        if small is not None:
            self.response.CopyFrom(requests.txn(self._space, (), request))
            yield small
            return
        self.floor = self.revision
        path: list[bool] = []
        yield from self._decide(request, path)
        ranges: list[tuple[rpc_pb2.RangeResponse, RangeScan]] = []

        def later(request: rpc_pb2.RangeRequest, into: rpc_pb2.RangeResponse) -> None:
            into.header.revision = self.revision
            ranges.append((into, self._space.scan_at(request, self.revision)))

        requests.answer_reads(self._space, request, path, self.revision, self.response, later)
        self.floor = min((scan.revision for _, scan in ranges), default=self.revision)
        ranges.reverse()
        while ranges:  # what is answered is not kept twice
            into, scan = ranges.pop()
            for cost in scan.steps():
                self.held = self._bytes + scan.held
                yield cost
            yield from self._fill(into, scan)

    # ---- compares ------------------------------------------------------------------------------------------

    def _decide(self, request: rpc_pb2.TxnRequest, path: list[bool]) -> Iterator[int]:
        """Append the outcome of this transaction's compares and of those nested in the chosen branch, in order."""
        at = len(path)
        path.append(True)
        for compare in request.compare:
            if not (yield from self._holds(compare)):
                path[at] = False
                break
        for op in request.success if path[at] else request.failure:
            if op.WhichOneof("request") == "request_txn":
                yield from self._decide(op.request_txn, path)

    def _holds(self, compare: rpc_pb2.Compare) -> Generator[int, None, bool]:
        found = False
        for row in self._space.rows_at(*bounds(compare.key, compare.range_end), self.revision):
            if row is None:
                yield 1
                continue
            found = True
            current = _current(row)
            self._compared += (cost := requests.cost(current))
            if self._compared > MAX_COMPARED:
                raise RequestError(TOO_MUCH_COMPARED)
            yield cost
            if not requests.holds(compare, current):
                return False
        return found or requests.holds(compare, None)

    # ---- answers -------------------------------------------------------------------------------------------

    def _fill(self, response: rpc_pb2.RangeResponse, scan: RangeScan) -> Iterator[int]:
        kvs, response.more, response.count = scan.result()
        for kv in kvs:
            self._bytes += len(kv)
            if self._bytes > MAX_ANSWER_BYTES:
                raise RequestError(TOO_MUCH_ANSWERED)
            response.kvs.append(kv_pb2.KeyValue.FromString(kv))
            yield 1 + (len(kv) >> 10)


def _current(row: Row) -> Current:
    lease = kv_pb2.KeyValue.FromString(row.kv).lease
    return Current(row.create, row.mod, 0, row.version, lease, row.kv)


def _cost_if_small(space: KeySpace, request: rpc_pb2.TxnRequest) -> int | None:
    """The cost of executing a transaction in one go, counting both branches; None if it is more than AT_ONCE."""
    total, spans = 0, list(_looked_at(request))
    for key, range_end in spans:
        total += space.count(*bounds(key, range_end)) if range_end else 1
        if total > AT_ONCE:
            return None
    total = 0
    for key, range_end in spans:
        for each in space.iterate(*bounds(key, range_end)) if range_end else (key,):
            total += requests.cost(space.get(each))
            if total > AT_ONCE:
                return None
    return total


def _looked_at(request: rpc_pb2.TxnRequest) -> Iterator[tuple[bytes, bytes]]:
    """(key, range_end) of everything that a transaction looks at in both branches. A read of an old revision counts as
    one of all keys: what it costs is not known in advance."""
    for compare in request.compare:
        yield compare.key, compare.range_end
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind == "request_txn":
            yield from _looked_at(op.request_txn)
        elif kind == "request_range" and op.request_range.revision > 0:
            yield b"\x00", b"\x00"
        elif kind == "request_range" and not op.request_range.count_only:
            yield op.request_range.key, op.request_range.range_end
