"""How reported state is kept in the cluster, and which transaction adds to it.

    /reported/NODE          the place, INCARNATION.SEQ, of the last batch of this node that is in
    /reported/NODE/KEY      what the node reported under this key

A node is the only writer of its keys. Its batches may come twice, late, and by several ways; each is applied only if it
is later than the last one, under the condition that no other has come in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.status import Code, Refusal, RequestError

PREFIX = b"/reported/"
LOCAL = "local/"  # what a node reports below are the keys of its site
MAX_KEYS = 60  # of a node that wait; with the place they fit a transaction of etcd's default size
MAX_VALUE = 4096  # bytes
MAX_BATCHES = 1000  # of a request
_OPS = 120  # of a transaction
_NODE = re.compile(r"[^/\x00-\x20\x7f]{1,253}")
_KEY = re.compile(r"[^/\x00-\x20\x7f][^\x00-\x20\x7f]{0,199}")
_NUMBERS = 1 << 63


class Place(NamedTuple):
    """The order of the batches of one node."""

    incarnation: int
    seq: int

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.seq}"

    @classmethod
    def read(cls, value: bytes) -> Place:
        """What is no place was not written by us, and is before all."""
        found = re.fullmatch(rb"(\d{1,19})\.(\d{1,19})", value)
        return cls(int(found[1]), int(found[2])) if found else cls(0, 0)


class Known(NamedTuple):
    """What is in the cluster of a node: the place, and the revision of the key that says it (0: none)."""

    place: Place
    revision: int


def place_key(node: str) -> bytes:
    return PREFIX + node.encode()


def check_entry(entry: holdfast_pb2.ReportedEntry) -> None:
    """Raise RequestError if what is reported is invalid."""
    if not _KEY.fullmatch(entry.key):
        raise _invalid(f"the key {entry.key[:40]!r}: 1 to 200 characters without spaces, not beginning with a slash")
    if len(entry.value) > MAX_VALUE:
        raise _invalid(f"the value of {entry.key}: it has {len(entry.value)} bytes, {MAX_VALUE} may be reported")


def check_batches(request: holdfast_pb2.DeliverRequest) -> None:
    """Raise RequestError if what a replica delivers is invalid."""
    if len(request.batches) > MAX_BATCHES:
        raise _invalid(f"{len(request.batches)} batches: {MAX_BATCHES} may come together")
    for batch in request.batches:
        if not _NODE.fullmatch(batch.node):
            raise _invalid(f"the node {batch.node[:40]!r}: a name has 1 to 253 characters without slashes and spaces")
        if len(batch.entries) > MAX_KEYS or batch.incarnation >= _NUMBERS or batch.seq >= _NUMBERS:
            raise _invalid(f"a batch of {batch.node}: at most {MAX_KEYS} reports, and numbers of 63 bits")
        for entry in batch.entries:
            check_entry(entry)
        if len({entry.key for entry in batch.entries}) < len(batch.entries):
            raise _invalid(f"a batch of {batch.node} has several reports of one key")


def _invalid(what: str) -> RequestError:
    return RequestError(Refusal(Code.INVALID_ARGUMENT, f"holdfast: a report is invalid: {what}"))


def newest(batches: Iterable[holdfast_pb2.ReportedBatch]) -> list[holdfast_pb2.ReportedBatch]:
    """The last batch of each node: it has all of those before."""
    found: dict[str, holdfast_pb2.ReportedBatch] = {}
    for batch in batches:
        known = found.get(batch.node)
        if known is None or _place(batch) > _place(known):
            found[batch.node] = batch
    return list(found.values())


def packs(batches: Iterable[holdfast_pb2.ReportedBatch]) -> Iterator[list[holdfast_pb2.ReportedBatch]]:
    """Batches that fit one transaction each."""
    pack: list[holdfast_pb2.ReportedBatch] = []
    size = 0
    for batch in batches:
        ops = len(batch.entries) + 1
        if pack and size + ops > _OPS:
            yield pack
            pack, size = [], 0
        pack.append(batch)
        size += ops
    if pack:
        yield pack


def transaction(batches: Iterable[holdfast_pb2.ReportedBatch], known: Mapping[str, Known]) -> rpc_pb2.TxnRequest | None:
    """What adds those of these batches that are not in yet, if `known` is still so; None if all are in."""
    txn = rpc_pb2.TxnRequest()
    for batch in batches:
        before = known[batch.node]
        if _place(batch) <= before.place:
            continue
        key = place_key(batch.node)
        txn.compare.add(key=key, target=rpc_pb2.Compare.MOD, result=rpc_pb2.Compare.EQUAL, mod_revision=before.revision)
        put = txn.success.add().request_put
        put.key, put.value = key, str(_place(batch)).encode()
        for entry in batch.entries:
            at = key + b"/" + entry.key.encode()
            if entry.deleted:
                txn.success.add().request_delete_range.key = at
            else:
                put = txn.success.add().request_put
                put.key, put.value = at, entry.value
    return txn if txn.compare else None


def _place(batch: holdfast_pb2.ReportedBatch) -> Place:
    return Place(batch.incarnation, batch.seq)
