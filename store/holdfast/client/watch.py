"""A watch that survives lost connections and frozen servers: it resumes at the next revision, at another address.

A server that is silent may have nothing to say, or be frozen with its connection open. After SILENT_SECONDS without a
word it is asked whether it answers at all, if there is another address to go to.

While no server serves it, it waits. The log says why, once for each reason: WARNING if a server gave it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio

from holdfast.client.calls import PAUSE_SECONDS
from holdfast.client.closed import ChannelClosed
from holdfast.client.connection import Connection
from holdfast.client.errors import Compacted, Unavailable, refusal, refused
from holdfast.client.stream import Stream, abandon
from holdfast.client.values import Event
from holdfast.proto import rpc_pb2
from holdfast.status import COMPACTED, for_people, known_reason, said_by_server, without_go_words

_PATH = "/etcdserverpb.Watch/Watch"
SILENT_SECONDS = 2.5
log = logging.getLogger("holdfast.client")


class Watched:
    """A watch seen from outside. `confirmed` is called with each revision up to which the server says that it sent
    everything."""

    def __init__(self, confirmed: Callable[[int], None]) -> None:
        self.confirmed = confirmed
        self.stream: Stream | None = None  # while there is one
        self._asking = asyncio.Lock()  # gRPC takes one message at a time

    async def ask(self) -> None:
        """Ask the server how far it has sent everything. A server that is behind does not answer."""
        async with self._asking:
            if self.stream is not None:
                # The watch notices these, too.
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, ChannelClosed):
                    await self.stream.write(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))


async def watch(
    connection: Connection,
    key: bytes,
    range_end: bytes,
    *,
    start_revision: int,
    previous: bool,
    watched: Watched | None = None,
    cluster_id: int = 0,
) -> AsyncIterator[list[Event]]:
    """Yield batches of events in the order of their revisions, each event once. Ends only by an error or by the caller.

    `cluster_id`: of the cluster whose revision `start_revision` is; 0: of the first that answers. Raises Compacted if
    the revision to resume at is compacted, or another cluster answers, whose revisions mean something else; Refused if
    the server refuses the watch.
    """
    following = start_revision
    renewed = False  # the credentials were refused once and have been renewed
    waits = _Waits(key)
    while True:
        for address in await connection.order(stream=True):
            try:
                who = await connection.who()
                leading = (("hasleader", "true"),) if len(connection.endpoints) > 1 else ()
                stream = await connection.stream(
                    address, _PATH, rpc_pb2.WatchRequest, rpc_pb2.WatchResponse, (*who, *leading)
                )
            except Unavailable as error:
                waits.unconnected(error)
                continue
            connection.picker.stream_began(address)
            try:
                create = rpc_pb2.WatchCreateRequest(
                    key=key, range_end=range_end, start_revision=following, prev_kv=previous, progress_notify=True
                )
                await stream.write(rpc_pb2.WatchRequest(create_request=create))
                if watched is not None:
                    watched.stream = stream
                async for response in _read(stream, connection, address):
                    if response.canceled and not renewed and connection.void(who, known_reason(response.cancel_reason)):
                        renewed = True
                        break
                    _raise_if_ended(response)
                    connection.seen.note(response.header)
                    cluster_id = _same_cluster(cluster_id, response.header.cluster_id)
                    renewed = False
                    waits.over()
                    if response.created and not following:
                        following = response.header.revision + 1
                    if response.events:
                        following = response.events[-1].kv.mod_revision + 1
                        yield [Event.of(event) for event in response.events]
                    elif not response.created:
                        following = max(following, response.header.revision + 1)
                        if watched is not None:
                            watched.confirmed(response.header.revision)
            except (ChannelClosed, asyncio.InvalidStateError):
                pass  # again, at the next address
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
                    raise refused(error) from None
                if not waits.ended(error.details() or ""):
                    await connection.drop(address)
            finally:
                if watched is not None:
                    watched.stream = None
                stream.cancel()
                connection.picker.stream_ended(address)
        await asyncio.sleep(PAUSE_SECONDS)


async def _read(stream: Stream, connection: Connection, address: str) -> AsyncIterator[rpc_pb2.WatchResponse]:
    """Responses until the stream ends, or the server answers nothing any more."""
    while True:
        reading = asyncio.ensure_future(stream.read())  # cancelling it would end the call
        try:
            while not (await asyncio.wait((reading,), timeout=SILENT_SECONDS))[0]:
                if len(connection.metrics()) > 1 and not await connection.alive(address):
                    return
            response = await reading
        finally:
            abandon(reading)
        if response is grpc.aio.EOF:
            return
        yield response


class _Waits:
    """Why a watch is not served now, for the log."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._reasons: Counter[str] = Counter()

    def over(self) -> None:
        self._reasons.clear()

    def unconnected(self, error: Unavailable) -> None:
        """It is said if it happens again: a server may only be starting."""
        self._because(str(error), logging.INFO, 2)

    def ended(self, details: str) -> bool:
        """The stream has ended with this error. Returns whether the server said that, and not the connection."""
        by_server = said_by_server(details)
        if by_server:
            self._because(for_people(details), logging.WARNING, 1)
        return by_server

    def _because(self, reason: str, level: int, times: int) -> None:
        self._reasons[reason] += 1
        if self._reasons[reason] == times:
            log.log(level, "the watch of %s waits: %s", self._key.decode("utf-8", "backslashreplace"), reason)


def _same_cluster(before: int, now: int) -> int:
    """The cluster whose changes are watched; 0: not known yet, as of a replica that has no data. Raises Compacted."""
    if before and now and now != before:
        code, text = grpc.StatusCode.OUT_OF_RANGE, "the history to resume from is of another cluster"
        raise Compacted(code, f"{text}: it was {before:x}, and {now:x} answers", COMPACTED)
    return before or now


def _raise_if_ended(response: rpc_pb2.WatchResponse) -> None:
    if not response.canceled:
        return
    reason = response.cancel_reason
    known = known_reason(reason)
    if response.compact_revision or known == COMPACTED:
        raise Compacted(
            grpc.StatusCode.OUT_OF_RANGE,
            f"the history to resume from is compacted up to revision {response.compact_revision}",
            COMPACTED,
        )
    text = without_go_words(reason) or "the server ended the watch"
    raise refusal(grpc.StatusCode.FAILED_PRECONDITION, text, known)
