"""v3electionpb.Election: the owner of the oldest key under a name is the leader while its lease lives."""

from __future__ import annotations

import asyncio
import contextlib

from google.protobuf.message import Message

from holdfast.api.base import Serving
from holdfast.api.local import Local, is_delete
from holdfast.api.queueing import (
    LEASE_SECONDS,
    QueueService,
    delete_if_created_at,
    events,
    first,
    if_created_at,
    take_place,
    unknown_error,
    wait_turn,
)
from holdfast.front.calls import Call, Kind
from holdfast.keyrange import prefix_end
from holdfast.proto import election_pb2, rpc_pb2
from holdfast.status import RequestError

_NO_LEADER = "election: no leader"
_NOT_LEADER = "election: not leader"
_MISSING = '"leader" field must be provided'


class ElectionService(QueueService):
    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        self.router.unary("/v3electionpb.Election/Campaign", self.campaign)
        self.router.unary("/v3electionpb.Election/Proclaim", self.proclaim)
        self.router.unary("/v3electionpb.Election/Leader", self.leader)
        self.router.unary("/v3electionpb.Election/Resign", self.resign)
        self.router.stream("/v3electionpb.Election/Observe", Kind.SERVER_STREAM, lambda call: _Observation(self, call))

    def campaign(self, call: Call, body: bytes) -> None:
        request = election_pb2.CampaignRequest.FromString(body)

        async def work(local: Local) -> Message:
            lease = request.lease or await local.grant(LEASE_SECONDS)
            place = await take_place(local, request.name, lease, request.value)
            try:
                if place.value != request.value:
                    await _proclaim(local, place.key, place.created, lease, request.value)
                header = await self.kept_alive(local, lease, wait_turn(local, request.name, place))
            except BaseException:
                self.leave(local, place)
                raise
            leader = election_pb2.LeaderKey(name=request.name, key=place.key, rev=place.created, lease=lease)
            return election_pb2.CampaignResponse(header=header, leader=leader)

        self.serve(call, work)

    def proclaim(self, call: Call, body: bytes) -> None:
        request = election_pb2.ProclaimRequest.FromString(body)
        if not request.HasField("leader"):
            raise unknown_error(_MISSING)
        leader = request.leader

        async def work(local: Local) -> Message:
            header = await _proclaim(local, leader.key, leader.rev, leader.lease, request.value)
            return election_pb2.ProclaimResponse(header=header)

        self.serve(call, work)

    def leader(self, call: Call, body: bytes) -> None:
        request = election_pb2.LeaderRequest.FromString(body)

        async def work(local: Local) -> Message:
            answer = await first(local, request.name)
            if not answer.kvs:
                raise unknown_error(_NO_LEADER)
            return election_pb2.LeaderResponse(header=answer.header, kv=answer.kvs[0])

        self.serve(call, work)

    def resign(self, call: Call, body: bytes) -> None:
        request = election_pb2.ResignRequest.FromString(body)
        if not request.HasField("leader"):
            raise unknown_error(_MISSING)

        async def work(local: Local) -> Message:
            header = await delete_if_created_at(local, request.leader.key, request.leader.rev)
            return election_pb2.ResignResponse(header=header)

        self.serve(call, work)


async def _proclaim(local: Local, key: bytes, created: int, lease: int, value: bytes) -> rpc_pb2.ResponseHeader:
    txn = if_created_at(key, created)
    put = txn.success.add().request_put
    put.key, put.value, put.lease = key, value, lease
    answer = await local.txn(txn)
    if not answer.succeeded:
        raise unknown_error(_NOT_LEADER)
    return answer.header


class _Observation:
    """An Observe call: sends the current leader's key and value, and every later change."""

    def __init__(self, service: ElectionService, call: Call) -> None:
        service.member(call)
        self._service = service
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def on_message(self, body: bytes) -> None:
        request = election_pb2.LeaderRequest.FromString(body)
        self._task = self._service.tasks.spawn(self._run(request.name))

    async def _run(self, name: bytes) -> None:
        local = Local(self._service.router, self._call)
        try:
            while True:
                await self._follow(local, name)
        except RequestError as error:
            self._service.router.fail(self._call.id, error.refusal)

    async def _follow(self, local: Local, name: bytes) -> None:
        """Report one leader until its key is deleted."""
        prefix = name + b"/"
        answer = await first(local, name)
        revision = answer.header.revision
        kv = answer.kvs[0] if answer.kvs else None
        if kv is None:
            begin = revision + 1
            async with contextlib.aclosing(events(local, prefix, prefix_end(prefix), begin)) as coming:
                async for event, _ in coming:
                    if not is_delete(event):
                        kv, revision = event.kv, event.kv.mod_revision
                        break
        assert kv is not None
        answer.header.revision = revision
        await self._tell(answer.header, kv)
        async with contextlib.aclosing(events(local, kv.key, b"", revision + 1)) as coming:
            async for event, header in coming:
                if is_delete(event):
                    return
                header.revision = event.kv.mod_revision
                await self._tell(header, event.kv)

    async def _tell(self, header: rpc_pb2.ResponseHeader, kv: object) -> None:
        await self._writable.wait()
        response = election_pb2.LeaderResponse(header=header, kv=kv)  # type: ignore[arg-type]
        self._service.router.send(self._call.id, response.SerializeToString())

    def on_half_close(self) -> None:
        """Nothing to do: clients half-close after their one request."""

    def on_cancelled(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def on_over(self) -> None:
        self._writable.clear()

    def on_writable(self) -> None:
        self._writable.set()
