"""Calls that a service makes to other services of this server on behalf of its caller: with the caller's rights,
through the same checks, and cancelled when the caller's call ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

from google.protobuf.message import Message

from holdfast.api.identity import FORWARDED, ON_BEHALF, VIA
from holdfast.api.router import Router
from holdfast.front.calls import Action, Call, Cancelled, Fail, Open, Reply, Send, Unary
from holdfast.front.calls import Message as StreamMessage
from holdfast.proto import kv_pb2, rpc_pb2
from holdfast.status import (
    COMPACTED,
    PERMISSION_DENIED,
    Code,
    Refusal,
    RequestError,
)

R = TypeVar("R", bound=Message)

# The caller's metadata that services use, which is passed on.
PASSED_ON = ("token", "authorization", "hasleader", "client-api-version", FORWARDED, ON_BEHALF, VIA)


class _Answers:
    """A `router.Sink` that queues the answers for a coroutine."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Refusal] = asyncio.Queue()

    def on_action(self, action: Action) -> bool:
        if isinstance(action, Reply | Send):
            self._queue.put_nowait(action.body)
        elif isinstance(action, Fail):
            self._queue.put_nowait(Refusal(action.code, action.text))
        return False

    async def next(self) -> bytes:
        answer = await self._queue.get()
        if isinstance(answer, Refusal):
            raise RequestError(answer)
        return answer


class Local:
    """Calls on behalf of one caller. All raise RequestError if refused."""

    def __init__(self, router: Router, caller: Call) -> None:
        self._router = router
        self._peer = caller.peer
        self._metadata = {name: caller.metadata[name] for name in PASSED_ON if name in caller.metadata}

    @contextlib.contextmanager
    def _opened(self, method: str) -> Iterator[tuple[Call, _Answers]]:
        """A call and its answers. The call is cancelled at the end, unless it is over by then."""
        answers = _Answers()
        call = self._router.open_local(method, answers, peer=self._peer, metadata=self._metadata)
        try:
            yield call, answers
        finally:
            self._router.on_event(Cancelled(call.id, "done"))
            self._router.close_local(call.id)

    async def unary(self, method: str, request: Message, response: type[R]) -> R:
        with self._opened(method) as (call, answers):
            self._router.on_event(Unary(call, request.SerializeToString()))
            return response.FromString(await answers.next())

    async def range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        return await self.unary("/etcdserverpb.KV/Range", request, rpc_pb2.RangeResponse)

    async def txn(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        return await self.unary("/etcdserverpb.KV/Txn", request, rpc_pb2.TxnResponse)

    async def delete(self, key: bytes) -> rpc_pb2.DeleteRangeResponse:
        request = rpc_pb2.DeleteRangeRequest(key=key)
        return await self.unary("/etcdserverpb.KV/DeleteRange", request, rpc_pb2.DeleteRangeResponse)

    async def grant(self, ttl_seconds: int) -> int:
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl_seconds)
        return (await self.unary("/etcdserverpb.Lease/LeaseGrant", request, rpc_pb2.LeaseGrantResponse)).ID

    async def keep_alive(self, lease: int, every_seconds: float) -> None:
        """Keep the lease alive until cancelled, or until the lease is gone."""
        body = rpc_pb2.LeaseKeepAliveRequest(ID=lease).SerializeToString()
        with self._opened("/etcdserverpb.Lease/LeaseKeepAlive") as (call, answers):
            self._router.on_event(Open(call))
            while True:
                self._router.on_event(StreamMessage(call.id, body))
                if rpc_pb2.LeaseKeepAliveResponse.FromString(await answers.next()).TTL <= 0:
                    return
                await asyncio.sleep(every_seconds)

    async def watch(self, key: bytes, range_end: bytes, start: int) -> AsyncGenerator[rpc_pb2.WatchResponse]:
        """Events from revision `start` on. Close the iterator when done."""
        create = rpc_pb2.WatchCreateRequest(key=key, range_end=range_end, start_revision=start)
        with self._opened("/etcdserverpb.Watch/Watch") as (call, answers):
            self._router.on_event(Open(call))
            self._router.on_event(
                StreamMessage(call.id, rpc_pb2.WatchRequest(create_request=create).SerializeToString())
            )
            while True:
                response = rpc_pb2.WatchResponse.FromString(await answers.next())
                if response.canceled:
                    raise RequestError(_refusal(response))
                if response.events:
                    yield response


def _refusal(response: rpc_pb2.WatchResponse) -> Refusal:
    if response.compact_revision:
        return COMPACTED
    if response.cancel_reason == PERMISSION_DENIED.in_go_words():
        return PERMISSION_DENIED
    return Refusal(Code.UNKNOWN, response.cancel_reason)


def is_delete(event: kv_pb2.Event) -> bool:
    return event.type == kv_pb2.Event.DELETE
