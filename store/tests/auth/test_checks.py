"""How often a transaction has the keys of a lease checked."""

from __future__ import annotations

from collections import UserDict

from holdfast.auth.checks import check_txn
from holdfast.auth.store import NOBODY, AuthStore
from holdfast.kv.store import MemoryStore, Pending
from holdfast.proto import rpc_pb2


class _Leased(UserDict[int, list[bytes]]):
    """Counts how often the keys of a lease are asked for."""

    asked = 0

    def __getitem__(self, lease: int) -> list[bytes]:
        self.asked += 1
        return super().__getitem__(lease)


def test_a_lease_that_many_puts_join_is_checked_once() -> None:
    """Or a hundred puts would go through the hundreds of thousands of keys that hang on it a hundred times."""
    leased = _Leased({7: [b"a"], 8: [b"b"]})
    puts = [
        rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"%d" % n, lease=7 if n % 2 else 8)) for n in range(100)
    ]
    nested = rpc_pb2.RequestOp(request_txn=rpc_pb2.TxnRequest(success=puts[:50], failure=puts))
    check_txn(AuthStore(Pending(MemoryStore())), NOBODY, rpc_pb2.TxnRequest(success=[*puts, nested]), leased)
    assert leased.asked == 2
