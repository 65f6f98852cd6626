"""etcdserverpb.KV: reading and writing keys."""

from __future__ import annotations

from holdfast.api.base import Service, Serving
from holdfast.api.quota import Quota, cost_of_put, cost_of_txn
from holdfast.api.wire import range_response
from holdfast.auth.checks import check_txn as check_rights
from holdfast.front.calls import Call
from holdfast.kv import requests
from holdfast.kv.scan import RangeScan
from holdfast.kv.txn_scan import AT_ONCE, TxnScan, check_compares, check_reads, rows_read
from holdfast.kv.validate import check_delete, check_put, check_range, check_txn
from holdfast.member.driver import Member
from holdfast.member.interface import Answer
from holdfast.proto import raft_pb2, rpc_pb2


class KvService(Service):
    """A linearizable read waits until leadership is confirmed once, then reads locally. Writes go through the log."""

    def __init__(self, serving: Serving, quota: Quota) -> None:
        super().__init__(serving)
        self._quota = quota
        router = self.router
        router.unary("/etcdserverpb.KV/Range", self.range)
        router.unary("/etcdserverpb.KV/Put", self.put)
        router.unary("/etcdserverpb.KV/DeleteRange", self.delete_range)
        router.unary("/etcdserverpb.KV/Txn", self.txn)
        router.unary("/etcdserverpb.KV/Compact", self.compact)

    def range(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.RangeRequest.FromString(body)
        check_range(request)
        member = self.member(call, learner=request.serializable)
        if request.serializable:
            self._read(call, member, request)
        else:
            self.when_current(call, member, lambda: self._read(call, member, request))

    def _read(self, call: Call, member: Member, request: rpc_pb2.RangeRequest) -> None:
        """Raises RequestError."""
        header = self.header(member)

        def done(scan: RangeScan) -> None:
            kvs, more, count = scan.result()
            self.router.reply(call.id, range_response(header.SerializeToString(), kvs, more, count))

        auth = member.state.auth
        if auth.enabled:
            auth.require_read(self.principal(call, member), request.key, request.range_end)
        self.router.on_cancel(call, member.scan(request, done, lambda error: self.router.fail(call.id, error)))

    def put(self, call: Call, body: bytes) -> None:
        self.check_size(body)
        request = rpc_pb2.PutRequest.FromString(body)
        check_put(request)
        member = self.member(call)
        self._quota.check(member, cost_of_put(request))
        self.propose_and_answer(call, member, raft_pb2.Command(put=request))

    def delete_range(self, call: Call, body: bytes) -> None:
        self.check_size(body)
        request = rpc_pb2.DeleteRangeRequest.FromString(body)
        check_delete(request)
        self.propose_and_answer(call, self.member(call), raft_pb2.Command(delete_range=request))

    def txn(self, call: Call, body: bytes) -> None:
        self.check_size(body)
        request = rpc_pb2.TxnRequest.FromString(body)
        check_txn(request, self.serving.limits.txn_ops)
        if requests.changes(request):
            member = self.member(call)
            cost = cost_of_txn(request)
            space = member.state.space
            check_compares(space, request)
            check_reads(space, request)
            if cost:
                self._quota.check(member, cost)
            self.propose_and_answer(call, member, raft_pb2.Command(txn=request))
            return
        ops = [*request.success, *request.failure]
        if ops and all(op.request_range.serializable for op in ops):
            self._read_txn(call, self.member(call, learner=True), request)
            return
        member = self.member(call)
        self.when_current(call, member, lambda: self._read_txn(call, member, request))

    def _read_txn(self, call: Call, member: Member, request: rpc_pb2.TxnRequest) -> None:
        """Raises RequestError."""
        state = member.state
        if state.auth.enabled:
            check_rights(state.auth, self.principal(call, member), request, state.space.leased)
        check_compares(state.space, request)
        if rows_read(state.space, request, AT_ONCE) <= AT_ONCE:
            self.answer(call, member, requests.txn(state.space, state.leases, request))
            return
        header = self.header(member)
        scan = TxnScan(state.space, state.leases, request)

        def done(scan: TxnScan) -> None:
            scan.response.header.CopyFrom(header)
            self.router.reply(call.id, scan.response.SerializeToString())

        self.router.on_cancel(call, member.read_txn(scan, done, lambda error: self.router.fail(call.id, error)))

    def compact(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.CompactionRequest.FromString(body)
        member = self.member(call)
        self.require_admin(call, member)

        def answered(answer: Answer) -> None:
            if self.refuse(call, answer):
                return
            if request.physical:
                member.when_pruned(lambda: self.answer(call, member, rpc_pb2.CompactionResponse()))
            else:
                self.answer(call, member, rpc_pb2.CompactionResponse())

        self.propose(call, member, raft_pb2.Command(compact=request), answered)
