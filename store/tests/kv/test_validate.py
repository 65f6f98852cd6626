"""What is wrong with a request by itself, in etcd's words."""

from __future__ import annotations

import pytest
from holdfast.kv.validate import check_delete, check_put, check_range, check_txn
from holdfast.proto import rpc_pb2
from holdfast.proto.rpc_pb2 import DeleteRangeRequest as Delete
from holdfast.proto.rpc_pb2 import PutRequest as Put
from holdfast.proto.rpc_pb2 import RangeRequest as Range
from holdfast.status import (
    DUPLICATE_KEY,
    EMPTY_KEY,
    KEY_NOT_FOUND,
    LEASE_PROVIDED,
    VALUE_PROVIDED,
    Refusal,
    RequestError,
)


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        (Put(), EMPTY_KEY),
        (Put(key=b"k", value=b"v", ignore_value=True), VALUE_PROVIDED),
        (Put(key=b"k", lease=1, ignore_lease=True), LEASE_PROVIDED),
        (Put(key=b"k", ignore_value=True, ignore_lease=True), None),
        (Delete(), EMPTY_KEY),
        (Delete(key=b"\0", range_end=b"\0"), None),
        (Range(), EMPTY_KEY),
        (Range(key=b"k"), None),
    ],
)
def test_a_request_and_the_same_within_a_transaction(request_: Put | Delete | Range, refusal: Refusal | None) -> None:
    txn = rpc_pb2.TxnRequest()
    operation = txn.failure.add().request_txn.success.add()
    if isinstance(request_, Put):
        operation.request_put.CopyFrom(request_)
    elif isinstance(request_, Delete):
        operation.request_delete_range.CopyFrom(request_)
    else:
        operation.request_range.CopyFrom(request_)
    assert refused(request_) == refused(txn) == refusal


def refused(request: Put | Delete | Range | rpc_pb2.TxnRequest) -> Refusal | None:
    try:
        if isinstance(request, Put):
            check_put(request)
        elif isinstance(request, Delete):
            check_delete(request)
        elif isinstance(request, Range):
            check_range(request)
        else:
            check_txn(request)
    except RequestError as error:
        return error.refusal
    return None


def test_a_transaction_with_an_empty_compare_an_empty_operation_or_one_key_twice() -> None:
    txn = rpc_pb2.TxnRequest()
    txn.compare.add()
    assert refused(txn) == EMPTY_KEY
    txn = rpc_pb2.TxnRequest()
    txn.success.add()
    assert refused(txn) == KEY_NOT_FOUND
    txn = rpc_pb2.TxnRequest()
    for _ in range(2):
        txn.success.add().request_put.key = b"k"
    assert refused(txn) == DUPLICATE_KEY
    txn = rpc_pb2.TxnRequest()
    txn.success.add().request_put.key = b"k"
    txn.failure.add().request_put.key = b"k"
    assert refused(txn) is None
