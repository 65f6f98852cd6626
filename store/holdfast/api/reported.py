"""holdfast.v1.Reported/Deliver at a member: enters what nodes report into the key space, with the rights of the replica
that delivers it."""

from __future__ import annotations

from holdfast.api.base import Service, Serving
from holdfast.api.local import Local
from holdfast.api.methods import DELIVER, REPORT
from holdfast.front.calls import Call
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.reported import Known, Place, check_batches, newest, packs, place_key, transaction
from holdfast.status import Code, Refusal, RequestError
from holdfast.tasks import Tasks

TRIES = 8
_BUSY = Refusal(Code.UNAVAILABLE, "holdfast: other batches of the same nodes come at the same time; deliver it again")
_AT_A_MEMBER = Refusal(
    Code.FAILED_PRECONDITION,
    "holdfast: a report is made at the node's replica, which keeps it until the cluster has it; this is a member",
)


class ReportedService(Service):
    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        self._tasks = Tasks()
        self.router.unary(DELIVER, self.deliver)
        self.router.unary(REPORT, self.report)

    def report(self, call: Call, body: bytes) -> None:
        raise RequestError(_AT_A_MEMBER)

    def deliver(self, call: Call, body: bytes) -> None:
        request = holdfast_pb2.DeliverRequest.FromString(body)
        check_batches(request)
        self.member(call)
        work = self._tasks.spawn(self._deliver(call, request))
        self.router.on_cancel(call, work.cancel)

    async def _deliver(self, call: Call, request: holdfast_pb2.DeliverRequest) -> None:
        local = Local(self.router, call)
        response = holdfast_pb2.DeliverResponse(header=self.header(self.member(call)))
        try:
            for pack in packs(newest(request.batches)):
                header = await _enter(local, pack)
                if header is not None:
                    response.header.CopyFrom(header)
        except RequestError as error:
            self.router.fail(call.id, error.refusal)
        else:
            self.router.reply(call.id, response.SerializeToString())
        self.router.flush()


async def _enter(local: Local, pack: list[holdfast_pb2.ReportedBatch]) -> rpc_pb2.ResponseHeader | None:
    """Enter these batches, unless they are in. Returns the header of the transaction, if one was needed."""
    for _ in range(TRIES):
        known = {batch.node: await _known(local, batch.node) for batch in pack}
        txn = transaction(pack, known)
        if txn is None:
            return None
        answer = await local.txn(txn)
        if answer.succeeded:
            return answer.header
    raise RequestError(_BUSY)


async def _known(local: Local, node: str) -> Known:
    found = await local.range(rpc_pb2.RangeRequest(key=place_key(node)))
    if not found.kvs:
        return Known(Place(0, 0), 0)
    return Known(Place.read(found.kvs[0].value), found.kvs[0].mod_revision)
