"""How many operations a transaction may have, with all that are nested in it."""

from __future__ import annotations

import pytest
from holdfast.kv.validate import MAX_TXN_OPS, check_txn
from holdfast.proto import rpc_pb2
from holdfast.status import TOO_MANY_OPS, RequestError


def flat(puts: int, begin: int = 0) -> rpc_pb2.TxnRequest:
    txn = rpc_pb2.TxnRequest()
    for number in range(begin, begin + puts):
        txn.success.add().request_put.key = b"%d" % number
    return txn


def nested(*inner: rpc_pb2.TxnRequest, puts: int = 0) -> rpc_pb2.TxnRequest:
    txn = flat(puts, begin=1 << 20)
    for part in inner:
        txn.success.add().request_txn.CopyFrom(part)
    return txn


def refused(txn: rpc_pb2.TxnRequest) -> bool:
    try:
        check_txn(txn)
    except RequestError as error:
        if error.refusal != TOO_MANY_OPS:
            raise
        return True
    return False


def test_one_level_has_the_limit_for_itself() -> None:
    assert not refused(flat(MAX_TXN_OPS))
    assert refused(flat(MAX_TXN_OPS + 1))


def test_what_is_nested_shares_the_limit_with_what_it_is_nested_in() -> None:
    assert not refused(nested(flat(28), puts=99))
    assert refused(nested(flat(29), puts=99))


@pytest.mark.parametrize(("width", "too_many"), [(15, False), (16, True)])
def test_a_tree_has_a_size_too(width: int, too_many: bool) -> None:
    """64 transactions of 15 puts are 1,024 operations in all, and of 16 more."""
    assert refused(nested(*(flat(width, begin=n * width) for n in range(64)))) is too_many


def test_both_branches_and_the_compares_count() -> None:
    inner = [flat(14, begin=n * 14) for n in range(60)]  # 900 operations with those that hold them
    assert not refused(nested(*inner))
    txn = nested(*inner)
    for number in range(65):
        txn.failure.add().request_put.key = b"f%d" % number
        txn.compare.add().key = b"c%d" % number
    assert refused(txn)
