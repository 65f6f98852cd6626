"""Checks whether a request's principal has the rights for everything that the request touches.

A command is checked before it is proposed and again when it is applied. The second check decides, because a role may
have been revoked in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from holdfast.auth.store import AuthStore, Principal
from holdfast.proto import holdfast_pb2, rpc_pb2

Leased = Mapping[int, Iterable[bytes]]  # lease id -> attached keys


def check_put(auth: AuthStore, who: Principal, request: rpc_pb2.PutRequest, leased: Leased) -> None:
    _check_key(auth, who, request)
    if request.lease:
        check_lease(auth, who, request.lease, leased)


def check_put_sequential(
    auth: AuthStore, who: Principal, request: holdfast_pb2.PutSequentialRequest, leased: Leased
) -> None:
    """The number is not known yet, so it needs the right to write any."""
    auth.require_write(who, request.prefix + b"0", request.prefix + b":")  # the byte after "9"
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
    """Check all compares and both branches, because the branch that was not taken reveals something, too."""
    leases: set[int] = set()
    _check_operations(auth, who, request, leased, leases)
    for lease in leases:  # once each: hundreds of puts may attach to a lease that has hundreds of thousands of keys
        check_lease(auth, who, lease, leased)


def _check_operations(
    auth: AuthStore, who: Principal, request: rpc_pb2.TxnRequest, leased: Leased, leases: set[int]
) -> None:
    """Check everything but the leases of puts; add those to `leases`."""
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
    """Revoking, renewing or attaching to a lease affects all keys attached to it, so it needs write rights to them."""
    auth.require_current(who)
    for key in leased.get(lease, ()):
        auth.require_write(who, key)
