"""etcdserverpb.KV and holdfast.v1.Keys: reading and writing keys."""

from __future__ import annotations

from holdfast.api.base import Service, Serving
from holdfast.api.quota import Quota, cost_of_put, cost_of_put_sequential, cost_of_txn
from holdfast.api.read_modes import READ, Fresh, described, mode_of
from holdfast.api.wire import range_response
from holdfast.auth.checks import check_txn as check_rights
from holdfast.front.calls import Call
from holdfast.kv import requests
from holdfast.kv.scan import RangeScan
from holdfast.kv.txn_check import TxnCheck, rows_deleted
from holdfast.kv.txn_scan import TxnScan
from holdfast.kv.validate import check_delete, check_put, check_put_sequential, check_range, check_txn
from holdfast.member.driver import Member
from holdfast.member.interface import Answer
from holdfast.proto import holdfast_pb2, raft_pb2, rpc_pb2
from holdfast.status import FUTURE_REVISION, SEQUENCES_UNSUPPORTED, RequestError


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
        router.unary("/holdfast.v1.Keys/PutSequential", self.put_sequential)

    def range(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.RangeRequest.FromString(body)
        check_range(request)
        if READ in call.metadata:
            self._read_by_mode(call, request)
            return
        member = self.member(call, learner=request.serializable)
        if request.serializable:
            self._read(call, member, request)
        else:
            self.when_current(call, member, lambda: self._read(call, member, request))

    def _read_by_mode(self, call: Call, request: rpc_pb2.RangeRequest) -> None:
        """A member does not know how old its state can be, so it confirms that it is current."""
        mode = mode_of(call, serializable=request.serializable)
        member = self.member(call, learner=mode.fresh in (Fresh.LOCAL, Fresh.AT_LEAST))
        mode.check_cluster(self.node.data.identity.cluster_id)
        here = mode.fresh is Fresh.AT_LEAST and member.revision >= mode.position.revision
        if mode.fresh is Fresh.LOCAL or here:
            self._read(call, member, request, mode.fresh)
            return

        self.member(call)  # a learner cannot wait

        def current() -> None:
            if member.revision < mode.position.revision:
                raise RequestError(FUTURE_REVISION)
            self._read(call, member, request, Fresh.AT_LEAST if mode.fresh is Fresh.AT_LEAST else Fresh.LINEARIZABLE)

        self.when_current(call, member, current)

    def _read(
        self, call: Call, member: Member, request: rpc_pb2.RangeRequest, described_as: Fresh | None = None
    ) -> None:
        """`described_as`: the answer says how fresh it is. Raises RequestError."""
        headers: list[bytes] = []
        told: list[tuple[tuple[bytes, bytes], ...]] = []

        def begin() -> RangeScan:
            auth = member.state.auth
            if auth.enabled:
                auth.require_read(self.principal(call, member), request.key, request.range_end)
            headers.append(self.header(member).SerializeToString())
            if described_as is not None:
                bound = "0s" if described_as is Fresh.LINEARIZABLE else "unknown"
                cluster_id = self.node.data.identity.cluster_id
                told.append(described(described_as, cluster_id, member.revision, bound))
            return member.state.space.scan(request)

        def done(scan: RangeScan) -> None:
            kvs, more, count = scan.result()
            self.router.reply(call.id, range_response(headers[0], kvs, more, count), *told)

        cancel = member.scan(
            begin,
            done,
            lambda error: self.router.fail(call.id, error),
            owner=call.peer.address,
            outbox=call.peer.outbox,
        )
        self.router.on_cancel(call, cancel)

    def put(self, call: Call, body: bytes) -> None:
        self.check_size(body)
        request = rpc_pb2.PutRequest.FromString(body)
        check_put(request)
        member = self.member(call)
        self._quota.check(member, cost_of_put(request))
        self.propose_and_answer(call, member, raft_pb2.Command(put=request))

    def put_sequential(self, call: Call, body: bytes) -> None:
        self.check_size(body)
        request = holdfast_pb2.PutSequentialRequest.FromString(body)
        check_put_sequential(request)
        member = self.member(call)
        if member.state.level < 2:
            raise RequestError(SEQUENCES_UNSUPPORTED)
        self._quota.check(member, cost_of_put_sequential(request))
        self.propose_and_answer(call, member, raft_pb2.Command(put_sequential=request))

    def delete_range(self, call: Call, body: bytes) -> None:
        self.check_size(body)
        request = rpc_pb2.DeleteRangeRequest.FromString(body)
        check_delete(request)
        member = self.member(call)
        cost = rows_deleted(member.state.space, request)
        self.propose_and_answer(call, member, raft_pb2.Command(delete_range=request), cost=cost)

    def txn(self, call: Call, body: bytes) -> None:
        self.check_size(body)
        request = rpc_pb2.TxnRequest.FromString(body)
        check_txn(request, self.serving.limits.txn_ops)
        if requests.changes(request):
            self._write_txn(call, self.member(call), request)
            return
        ops = [*request.success, *request.failure]
        if ops and all(op.request_range.serializable for op in ops):
            self._read_txn(call, self.member(call, learner=True), request)
            return
        member = self.member(call)
        self.when_current(call, member, lambda: self._read_txn(call, member, request))

    def _write_txn(self, call: Call, member: Member, request: rpc_pb2.TxnRequest) -> None:
        """Raises RequestError."""

        def checked(check: TxnCheck) -> None:
            cost = cost_of_txn(request)
            if cost:
                self._quota.check(member, cost)
            self.propose_and_answer(call, member, raft_pb2.Command(txn=request), cost=check.cost)

        self.in_slices(call, member, lambda: TxnCheck(member.state.space, request), checked)

    def _read_txn(self, call: Call, member: Member, request: rpc_pb2.TxnRequest) -> None:
        """Raises RequestError."""
        headers: list[rpc_pb2.ResponseHeader] = []

        def begin() -> TxnScan:
            state = member.state
            if state.auth.enabled:
                check_rights(state.auth, self.principal(call, member), request, state.space.leased)
            headers.append(self.header(member))
            return TxnScan(state.space, request)

        def done(scan: TxnScan) -> None:
            scan.response.header.CopyFrom(headers[0])
            self.router.reply(call.id, scan.response.SerializeToString())

        self.in_slices(call, member, begin, done)

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
