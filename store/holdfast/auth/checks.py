"""What a request touches, and whether its principal may: asked before it is proposed, and again when it is applied.

The second time counts: between the two a role may have been taken away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from holdfast.auth.store import AuthStore, Principal
from holdfast.proto import rpc_pb2

Leased = Mapping[int, Iterable[bytes]]  # keys by the lease that they are attached to


def check_put(auth: AuthStore, who: Principal, request: rpc_pb2.PutRequest, leased: Leased) -> None:
    _check_key(auth, who, request)
    if request.lease:
        check_lease(auth, who, request.lease, leased)


def _check_key(auth: AuthStore, who: Principal, request: rpc_pb2.PutRequest) -> None:
    auth.require_write(who, request.key)
    if request.prev_kv:
        auth.require_read(who, request.key, b"")


def check_delete(auth: AuthStore, who: Principal, request: rpc_pb2.DeleteRangeRequest) -> None:
    auth.require_write(who, request.key, request.range_end)
    if request.prev_kv:
        auth.require_read(who, request.key, request.range_end)


def check_txn(auth: AuthStore, who: Principal, request: rpc_pb2.TxnRequest, leased: Leased) -> None:
    """All compares and both branches: what a transaction did not do says something, too."""
    leases: set[int] = set()
    _check_operations(auth, who, request, leased, leases)
    for lease in leases:  # each once: hundreds of puts may join one lease, which hundreds of thousands of keys may have
        check_lease(auth, who, lease, leased)


def _check_operations(
    auth: AuthStore, who: Principal, request: rpc_pb2.TxnRequest, leased: Leased, leases: set[int]
) -> None:
    """All but the leases that puts join, which are added to `leases`."""
    for compare in request.compare:
        auth.require_read(who, compare.key, compare.range_end)
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind == "request_range":
            auth.require_read(who, op.request_range.key, op.request_range.range_end)
        elif kind == "request_put":
            _check_key(auth, who, op.request_put)
            if op.request_put.lease:
                leases.add(op.request_put.lease)
        elif kind == "request_delete_range":
            check_delete(auth, who, op.request_delete_range)
        elif kind == "request_txn":
            _check_operations(auth, who, op.request_txn, leased, leases)


def check_lease(auth: AuthStore, who: Principal, lease: int, leased: Leased) -> None:
    """Ending, renewing or joining a lease touches every key that hangs on it."""
    auth.require_current(who)
    for key in leased.get(lease, ()):
        auth.require_write(who, key)


def check_lease_read(auth: AuthStore, who: Principal, lease: int, leased: Leased) -> None:
    for key in leased.get(lease, ()):
        auth.require_read(who, key, b"")
