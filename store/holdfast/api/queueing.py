"""The queue behind etcd's locks and elections: keys under a prefix, ordered by creation; the oldest one holds it.

A waiter watches only the key just before its own, so that a release wakes one waiter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple

from google.protobuf.message import Message

from holdfast.api.base import Service, Serving
from holdfast.api.local import Local, is_delete
from holdfast.front.calls import Call
from holdfast.keyrange import prefix_end
from holdfast.proto import kv_pb2, rpc_pb2
from holdfast.status import Code, Refusal, RequestError
from holdfast.tasks import Tasks

LEASE_SECONDS = 60  # TTL of a lease that is granted for a client without one
KEEP_ALIVE_SECONDS = 5.0


class Place(NamedTuple):
    """The caller's key in the queue, created at revision `created`."""

    key: bytes
    created: int
    header: rpc_pb2.ResponseHeader
    value: bytes


def create_if_absent(key: bytes, value: bytes, lease: int) -> rpc_pb2.TxnRequest:
    txn = if_created_at(key, 0)
    put = txn.success.add().request_put
    put.key, put.value, put.lease = key, value, lease
    txn.failure.add().request_range.key = key
    return txn


def if_created_at(key: bytes, revision: int) -> rpc_pb2.TxnRequest:
    """A transaction with the condition that `key` was created at `revision` (0: that it does not exist)."""
    txn = rpc_pb2.TxnRequest()
    txn.compare.add(key=key, target=rpc_pb2.Compare.CREATE, result=rpc_pb2.Compare.EQUAL, create_revision=revision)
    return txn


async def delete_if_created_at(local: Local, key: bytes, revision: int) -> rpc_pb2.ResponseHeader:
    txn = if_created_at(key, revision)
    txn.success.add().request_delete_range.key = key
    return (await local.txn(txn)).header


async def take_place(local: Local, name: bytes, lease: int, value: bytes) -> Place:
    """Enter the queue `name`. If the lease already has a place there, return that one."""
    key = name + b"/" + f"{lease & ((1 << 64) - 1):x}".encode()
    answer = await local.txn(create_if_absent(key, value, lease))
    if answer.succeeded:
        return Place(key, answer.header.revision, answer.header, value)
    there = answer.responses[0].response_range.kvs[0]
    return Place(key, there.create_revision, answer.header, there.value)


async def wait_turn(local: Local, name: bytes, place: Place) -> rpc_pb2.ResponseHeader:
    """Wait until `place` is the first one. Returns the header of the read that showed it."""
    before = _one_under(name, rpc_pb2.RangeRequest.DESCEND)
    before.max_create_revision = place.created - 1
    while True:
        answer = await local.range(before)
        if not answer.kvs:
            return answer.header
        async with contextlib.aclosing(events(local, answer.kvs[0].key, b"", answer.header.revision + 1)) as coming:
            async for event, _ in coming:
                if is_delete(event):
                    break


async def first(local: Local, name: bytes) -> rpc_pb2.RangeResponse:
    """The first place in the queue `name`, if any."""
    return await local.range(_one_under(name, rpc_pb2.RangeRequest.ASCEND))


def _one_under(name: bytes, order: rpc_pb2.RangeRequest.SortOrder) -> rpc_pb2.RangeRequest:
    """A request for the oldest (ASCEND) or newest (DESCEND) place in the queue `name`."""
    prefix = name + b"/"
    return rpc_pb2.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_order=order,
        sort_target=rpc_pb2.RangeRequest.CREATE,
    )


async def events(
    local: Local, key: bytes, range_end: bytes, start: int
) -> AsyncGenerator[tuple[kv_pb2.Event, rpc_pb2.ResponseHeader]]:
    async with contextlib.aclosing(local.watch(key, range_end, start)) as responses:
        async for response in responses:
            for event in response.events:
                yield event, response.header


class QueueService(Service):
    """A service with calls that may wait long: each runs as a task, cancelled when its client gives up."""

    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        self.tasks = Tasks()

    def serve(self, call: Call, work: Callable[[Local], Awaitable[Message]]) -> None:
        """Run `work` in a task, and answer the call with its result."""
        self.member(call)

        async def run() -> None:
            try:
                answer = await work(Local(self.router, call))
            except RequestError as error:
                self.router.fail(call.id, error.refusal)
            else:
                self.router.reply(call.id, answer.SerializeToString())

        task = self.tasks.spawn(run())
        self.router.on_cancel(call, task.cancel)

    async def kept_alive(
        self, local: Local, lease: int, waiting: Awaitable[rpc_pb2.ResponseHeader]
    ) -> rpc_pb2.ResponseHeader:
        """Await `waiting`, and keep the lease alive meanwhile."""
        keeping = asyncio.ensure_future(local.keep_alive(lease, KEEP_ALIVE_SECONDS))
        try:
            return await waiting
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError, RequestError):
                await keeping

    def leave(self, local: Local, place: Place) -> None:
        """Delete the place in the background, even if the caller has been cancelled."""

        async def work() -> None:
            with contextlib.suppress(RequestError):  # then it is deleted when its lease expires
                await delete_if_created_at(local, place.key, place.created)

        self.tasks.spawn(work())


def unknown_error(text: str) -> RequestError:
    """An error like those from etcd's client library: without etcd's prefix, and with code UNKNOWN."""
    return RequestError(Refusal(Code.UNKNOWN, text))
