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

    def range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        found = [self.keys[key] for key in self._within(request.key, request.range_end)]
        response = rpc_pb2.RangeResponse(count=len(found))
        response.header.revision = self.revision
        response.kvs.extend(found[: request.limit or None])
        response.more = len(response.kvs) < len(found)
        return response

    def put(self, request: rpc_pb2.PutRequest) -> rpc_pb2.PutResponse:
        self.revision += 1
        return self._put(request)

    def txn(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        if len(request.success) > MAX_TXN_OPS or len(request.failure) > MAX_TXN_OPS:
            raise TooManyOps
        succeeded = all(self._compare(compare) for compare in request.compare)
        ops = request.success if succeeded else request.failure
        if any(op.WhichOneof("request") != "request_range" for op in ops):
            self.revision += 1
        response = rpc_pb2.TxnResponse(succeeded=succeeded)
        for op in ops:
            kind = op.WhichOneof("request")
            if kind == "request_put":
                response.responses.add().response_put.CopyFrom(self._put(op.request_put))
            elif kind == "request_delete_range":
                response.responses.add().response_delete_range.deleted = self._delete(op.request_delete_range)
            else:
                response.responses.add().response_range.CopyFrom(self.range(op.request_range))
        response.header.revision = self.revision
        return response

    def _within(self, start: bytes, end: bytes) -> list[bytes]:
        if not end:
            return [start] if start in self.keys else []
        return sorted(key for key in self.keys if key >= start and (end == b"\0" or key < end))

    def _put(self, request: rpc_pb2.PutRequest) -> rpc_pb2.PutResponse:
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
