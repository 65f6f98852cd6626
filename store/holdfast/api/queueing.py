"""What etcd's locks and elections are made of: keys under a prefix, in the order of their creation; the first has it.

A waiter waits only for the one before it to go, so that one release wakes one waiter.
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

LEASE_SECONDS = 60  # of a lease that is made for a client that brings none
KEEP_ALIVE_SECONDS = 5.0


class Place(NamedTuple):
    """A key of ours in the queue, since revision `created`."""

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
    """The beginning of a transaction that counts only while `key` is the one that was created then."""
    txn = rpc_pb2.TxnRequest()
    txn.compare.add(key=key, target=rpc_pb2.Compare.CREATE, result=rpc_pb2.Compare.EQUAL, create_revision=revision)
    return txn


async def delete_if_created_at(local: Local, key: bytes, revision: int) -> rpc_pb2.ResponseHeader:
    txn = if_created_at(key, revision)
    txn.success.add().request_delete_range.key = key
    return (await local.txn(txn)).header


async def take_place(local: Local, name: bytes, lease: int, value: bytes) -> Place:
    """Queue up under `name`; again under the same lease: where we stand already."""
    key = name + b"/" + f"{lease & ((1 << 64) - 1):x}".encode()
    answer = await local.txn(create_if_absent(key, value, lease))
    if answer.succeeded:
        return Place(key, answer.header.revision, answer.header, value)
    there = answer.responses[0].response_range.kvs[0]
    return Place(key, there.create_revision, answer.header, there.value)


async def wait_turn(local: Local, name: bytes, place: Place) -> rpc_pb2.ResponseHeader:
    """Until nobody stands before `place`. Returns the header of the read that showed it."""
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
    """Who stands first under `name`."""
    return await local.range(_one_under(name, rpc_pb2.RangeRequest.ASCEND))


def _one_under(name: bytes, order: rpc_pb2.RangeRequest.SortOrder) -> rpc_pb2.RangeRequest:
    """The place under `name` that was taken first or last."""
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
    """A service whose calls wait long: each is a task, ended when its client gives up."""

    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        self.tasks = Tasks()

    def serve(self, call: Call, work: Callable[[Local], Awaitable[Message]]) -> None:
        """Answer with what `work` gives."""
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
        """Wait, and keep the lease alive meanwhile."""
        keeping = asyncio.ensure_future(local.keep_alive(lease, KEEP_ALIVE_SECONDS))
        try:
            return await waiting
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError, RequestError):
                await keeping

    def leave(self, local: Local, place: Place) -> None:
        """Give the place up, whatever becomes of the caller."""

        async def work() -> None:
            with contextlib.suppress(RequestError):  # then its lease ends it
                await delete_if_created_at(local, place.key, place.created)

        self.tasks.spawn(work())


def plainly(text: str) -> RequestError:
    """As etcd gives errors of its client's library: without its prefix and code."""
    return RequestError(Refusal(Code.UNKNOWN, text))
