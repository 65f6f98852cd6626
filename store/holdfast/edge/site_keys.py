"""Which keys belong to a site: those below /local/SITE/, which one replica of the site writes, and nobody else.

They are not keys of the cluster: they have revisions of their own, and are written also while the site is cut off. A
request is about keys of the site or about keys of the cluster, never about both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.keyrange import Range, bounds, prefix_end
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.reported import LOCAL, check_entry
from holdfast.status import Code, Refusal, RequestError

ALL_SITES = b"/local/"
MAX_KEYS = 1000
MAX_SITE = 63  # characters in the name of a site, as in a label of Kubernetes
_NAME = re.compile(rf"[A-Za-z0-9]([A-Za-z0-9._-]{{0,{MAX_SITE - 2}}}[A-Za-z0-9])?")
_MIXED = "holdfast: a transaction is about keys of the site or about keys of the cluster, not about both"


@dataclass(frozen=True, slots=True)
class Site:
    """`writer` is the name of the replica that writes the site's keys, `address` (host:port) where the others reach
    it."""

    name: str
    writer: str
    address: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} is no name of a site: 1 to {MAX_SITE} letters, digits, '-', '_' and '.', with a letter "
                "or a digit at each end"
            )


class SiteKeys:
    """The keys of one site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.prefix = ALL_SITES + site.name.encode() + b"/"
        self._range = bounds(self.prefix, prefix_end(self.prefix))

    def has(self, range: Range) -> bool:
        """Whether all of this range are keys of the site. Raises RequestError if they are keys of other sites."""
        if _inside(range, self._range):
            return True
        if _inside(range, bounds(ALL_SITES, prefix_end(ALL_SITES))):
            mine = self.prefix.decode()
            text = (
                f"holdfast: this replica is of the site {self.site.name}, and has of all keys below /local/ only those "
                f"below {mine}; what other sites have is reported to the cluster, below /reported/"
            )
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, text))
        return False

    def has_all(self, txn: rpc_pb2.TxnRequest) -> bool:
        """Whether this transaction is about keys of the site. Raises RequestError if about others as well."""
        found = {self.has(range) for range in _ranges(txn)}
        if len(found) > 1:
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, _MIXED))
        return found == {True}

    def check_put(self, request: rpc_pb2.PutRequest) -> None:
        """Raise RequestError if such a key cannot be written, because it could not be reported."""
        if request.lease:
            text = f"holdfast: keys below {self.prefix.decode()} have no leases: leases belong to the cluster"
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, text))
        try:
            check_entry(holdfast_pb2.ReportedEntry(key=reported_as(request.key), value=request.value))
        except (UnicodeDecodeError, RequestError) as error:
            why = error.refusal.message if isinstance(error, RequestError) else "the key is not UTF-8"
            text = (
                f"holdfast: {request.key[:100]!r} cannot be written: keys of a site are reported to the cluster; {why}"
            )
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, text)) from None


def reported_as(key: bytes) -> str:
    """The key below the node's place under which a key of the site is reported. Raises UnicodeDecodeError."""
    return LOCAL + key.removeprefix(ALL_SITES).decode()


def puts_of(txn: rpc_pb2.TxnRequest) -> Iterator[rpc_pb2.PutRequest]:
    """All puts of both branches, of nested transactions as well."""
    for op in (*txn.success, *txn.failure):
        if op.HasField("request_put"):
            yield op.request_put
        elif op.HasField("request_txn"):
            yield from puts_of(op.request_txn)


def _ranges(txn: rpc_pb2.TxnRequest) -> Iterator[Range]:
    for compare in txn.compare:
        yield bounds(compare.key, compare.range_end)
    for op in (*txn.success, *txn.failure):
        if op.HasField("request_txn"):
            yield from _ranges(op.request_txn)
        elif op.HasField("request_put"):
            yield bounds(op.request_put.key, b"")
        elif op.HasField("request_range"):
            yield bounds(op.request_range.key, op.request_range.range_end)
        elif op.HasField("request_delete_range"):
            yield bounds(op.request_delete_range.key, op.request_delete_range.range_end)


def _inside(range: Range, outer: Range) -> bool:
    (low, high), (first, end) = range, outer
    return low >= first and (end is None or (high is not None and high <= end))
