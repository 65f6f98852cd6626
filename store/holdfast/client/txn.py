"""Transactions with a fluent interface: if these compares hold, then do this, else that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from holdfast.client.values import KeyValue, range_start, to_bytes
from holdfast.client.values import range_end as _range_end
from holdfast.proto import rpc_pb2

Compare = rpc_pb2.Compare
Op = rpc_pb2.RequestOp


class _Field:
    """The left side of a compare: `key("/a").version == 1`."""

    def __init__(self, key: bytes, target: str, name: str) -> None:
        self._key = key
        self._target = target
        self._name = name

    def _compare(self, result: str, value: int | bytes | str) -> Compare:
        compare = Compare(key=self._key)
        compare.result = Compare.CompareResult.Value(result)  # type: ignore[assignment]
        compare.target = Compare.CompareTarget.Value(self._target)  # type: ignore[assignment]
        setattr(compare, self._name, to_bytes(value) if isinstance(value, str | bytes) else value)
        return compare

    def __eq__(self, value: int | bytes | str) -> Compare:  # type: ignore[override]
        return self._compare("EQUAL", value)

    def __ne__(self, value: int | bytes | str) -> Compare:  # type: ignore[override]
        return self._compare("NOT_EQUAL", value)

    def __lt__(self, value: int | bytes | str) -> Compare:
        return self._compare("LESS", value)

    def __gt__(self, value: int | bytes | str) -> Compare:
        return self._compare("GREATER", value)

    __hash__ = None  # type: ignore[assignment]


class Key:
    """The fields of a key that a transaction can compare. A missing key has version, revisions and lease 0, and no
    value."""

    def __init__(self, key: str | bytes) -> None:
        self._key = to_bytes(key)

    @property
    def version(self) -> _Field:
        return _Field(self._key, "VERSION", "version")

    @property
    def create_revision(self) -> _Field:
        return _Field(self._key, "CREATE", "create_revision")

    @property
    def mod_revision(self) -> _Field:
        return _Field(self._key, "MOD", "mod_revision")

    @property
    def value(self) -> _Field:
        return _Field(self._key, "VALUE", "value")

    @property
    def lease(self) -> _Field:
        return _Field(self._key, "LEASE", "lease")


class Ops:
    """The operations of transactions."""

    @staticmethod
    def put(key: str | bytes, value: str | bytes, *, lease: int = 0) -> Op:
        return Op(request_put=rpc_pb2.PutRequest(key=to_bytes(key), value=to_bytes(value), lease=lease))

    @staticmethod
    def get(key: str | bytes, *, prefix: bool = False) -> Op:
        start = to_bytes(key)
        return Op(
            request_range=rpc_pb2.RangeRequest(
                key=range_start(start, prefix=prefix), range_end=_range_end(start, prefix=prefix, end=None)
            )
        )

    @staticmethod
    def delete(key: str | bytes, *, prefix: bool = False) -> Op:
        start = to_bytes(key)
        end = _range_end(start, prefix=prefix, end=None)
        return Op(request_delete_range=rpc_pb2.DeleteRangeRequest(key=range_start(start, prefix=prefix), range_end=end))


@dataclass(frozen=True, slots=True)
class TxnResult:
    """`responses` has an entry for each executed operation: the keys of a get, the revision of a put, or the number of
    keys deleted."""

    succeeded: bool
    revision: int
    responses: list[list[KeyValue] | int]


class Txn:
    """A transaction, built step by step; nothing is sent before `commit`."""

    def __init__(self, send: Callable[[rpc_pb2.TxnRequest], Awaitable[rpc_pb2.TxnResponse]]) -> None:
        self._send = send
        self._request = rpc_pb2.TxnRequest()

    def if_(self, *compares: Compare) -> Txn:
        self._request.compare.extend(compares)
        return self

    def then(self, *ops: Op) -> Txn:
        self._request.success.extend(ops)
        return self

    def else_(self, *ops: Op) -> Txn:
        self._request.failure.extend(ops)
        return self

    async def commit(self) -> TxnResult:
        response = await self._send(self._request)
        return TxnResult(response.succeeded, response.header.revision, [_result(r) for r in response.responses])


def _result(response: rpc_pb2.ResponseOp) -> list[KeyValue] | int:
    kind = response.WhichOneof("response")
    if kind == "response_range":
        return [KeyValue.of(kv) for kv in response.response_range.kvs]
    if kind == "response_delete_range":
        return response.response_delete_range.deleted
    return response.response_put.header.revision
