"""v3lockpb.Lock: mutual exclusion by a lease. The owner of the returned key holds the lock while its lease lives."""

from __future__ import annotations

from google.protobuf.message import Message

from holdfast.api.base import Serving
from holdfast.api.local import Local
from holdfast.api.queueing import LEASE_SECONDS, QueueService, take_place, unknown_error, wait_turn
from holdfast.front.calls import Call
from holdfast.proto import lock_pb2, rpc_pb2


class LockService(QueueService):
    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        self.router.unary("/v3lockpb.Lock/Lock", self.lock)
        self.router.unary("/v3lockpb.Lock/Unlock", self.unlock)

    def lock(self, call: Call, body: bytes) -> None:
        request = lock_pb2.LockRequest.FromString(body)

        async def work(local: Local) -> Message:
            lease = request.lease or await local.grant(LEASE_SECONDS)
            place = await take_place(local, request.name, lease, b"")
            try:
                await self.kept_alive(local, lease, wait_turn(local, request.name, place))
                # The lease may have ended during the wait, and the key with it.
                mine = await local.range(rpc_pb2.RangeRequest(key=place.key))
                if not mine.kvs or mine.kvs[0].create_revision != place.created:
                    raise unknown_error("mutex: session is expired")
            except BaseException:
                self.leave(local, place)
                raise
            return lock_pb2.LockResponse(header=mine.header, key=place.key)

        self.serve(call, work)

    def unlock(self, call: Call, body: bytes) -> None:
        request = lock_pb2.UnlockRequest.FromString(body)

        async def work(local: Local) -> Message:
            return lock_pb2.UnlockResponse(header=(await local.delete(request.key)).header)

        self.serve(call, work)
