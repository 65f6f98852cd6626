"""The keys and values of a simulated cluster: as much of etcd's API as the operator uses."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.proto import kv_pb2, rpc_pb2

MAX_TXN_OPS = 128


class TooManyOps(Exception):
    """The transaction has more operations than the store takes."""


@dataclass(slots=True)
class KeyValues:
    revision: int = 1
    keys: dict[bytes, kv_pb2.KeyValue] = field(default_factory=dict)
    _wrote: bool = False  # in the transaction that is under way

    def range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        found = [self.keys[key] for key in self._within(request.key, request.range_end)]
        response = rpc_pb2.RangeResponse(count=len(found))
        response.header.revision = self.revision
        response.kvs.extend(found[: request.limit or None])
        response.more = len(response.kvs) < len(found)
        return response

    def put(self, request: rpc_pb2.PutRequest) -> rpc_pb2.PutResponse:
        self.revision += 1
        response = self._put(request)
        self._wrote = False
        return response

    def txn(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        """All operations at one revision, those of nested transactions too."""
        _check(request)
        self.revision += 1
        before = self.revision
        response = self._txn(request)
        if not self._wrote:
            self.revision = before - 1
        self._wrote = False
        response.header.revision = self.revision
        return response

    def _txn(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        succeeded = all(self._compare(compare) for compare in request.compare)
        response = rpc_pb2.TxnResponse(succeeded=succeeded)
        for op in request.success if succeeded else request.failure:
            kind, answer = op.WhichOneof("request"), response.responses.add()
            if kind == "request_put":
                answer.response_put.CopyFrom(self._put(op.request_put))
            elif kind == "request_delete_range":
                answer.response_delete_range.deleted = self._delete(op.request_delete_range)
            elif kind == "request_txn":
                answer.response_txn.CopyFrom(self._txn(op.request_txn))
            else:
                answer.response_range.CopyFrom(self.range(op.request_range))
        return response

    def _within(self, start: bytes, end: bytes) -> list[bytes]:
        if not end:
            return [start] if start in self.keys else []
        return sorted(key for key in self.keys if key >= start and (end == b"\0" or key < end))

    def _put(self, request: rpc_pb2.PutRequest) -> rpc_pb2.PutResponse:
        self._wrote = True
        before = self.keys.get(request.key)
        self.keys[request.key] = kv_pb2.KeyValue(
            key=request.key,
            value=request.value,
            create_revision=before.create_revision if before is not None else self.revision,
            mod_revision=self.revision,
            version=before.version + 1 if before is not None else 1,
        )
        response = rpc_pb2.PutResponse()
        response.header.revision = self.revision
        return response

    def _delete(self, request: rpc_pb2.DeleteRangeRequest) -> int:
        gone = self._within(request.key, request.range_end)
        for key in gone:
            del self.keys[key]
            self._wrote = True
        return len(gone)

    def _compare(self, compare: rpc_pb2.Compare) -> bool:
        """Only equality, which is all that the operator asks for."""
        kv = self.keys.get(compare.key)
        if compare.target == rpc_pb2.Compare.MOD:
            return (kv.mod_revision if kv is not None else 0) == compare.mod_revision
        if compare.target == rpc_pb2.Compare.CREATE:
            return (kv.create_revision if kv is not None else 0) == compare.create_revision
        if compare.target == rpc_pb2.Compare.VERSION:
            return (kv.version if kv is not None else 0) == compare.version
        return kv is not None and kv.value == compare.value


def _check(request: rpc_pb2.TxnRequest) -> None:
    """The limit counts for each transaction by itself; the nested ones have theirs."""
    for ops in (request.success, request.failure):
        if len(ops) > MAX_TXN_OPS:
            raise TooManyOps
        for op in ops:
            if op.WhichOneof("request") == "request_txn":
                _check(op.request_txn)
