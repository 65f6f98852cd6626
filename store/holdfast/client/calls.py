"""Makes unary calls: at one address after the other, or at two at once when the first is slow, until the timeout.

A read is repeated freely, and so is a write named by a session (it takes effect once, see `session.py`). Any other
write is sent only over an established connection and never twice: if the answer is lost, the caller gets
OutcomeUnknown. An attempt that is slow is not cancelled, it gets company: what is slow may be the request itself.

Seconds in which this client's own loop did not run count for no attempt (see `stalls.py`), only for the timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from holdfast.client.closed import ChannelClosed, channel_may_close
from holdfast.client.errors import OutcomeUnknown, Refused, Unavailable, known_of, refused
from holdfast.client.failures import CUT_OFF_SECONDS, Failures
from holdfast.client.login import Headers, Metadata
from holdfast.client.picker import LEAST_ATTEMPT_SECONDS, Budget, Picker
from holdfast.client.position import Seen
from holdfast.client.stalls import Clock, Stalls
from holdfast.proto import rpc_pb2
from holdfast.status import (
    FUTURE_REVISION,
    LEARNER_UNSUPPORTED,
    NO_STATE,
    NOT_A_MEMBER,
    NOT_RECOVERED,
    READ_METADATA,
    REPLICA_DISCONNECTED,
    REPLICA_EMPTY,
    TOO_MANY_REQUESTS,
    WRITER_UNREACHABLE,
    said_by_server,
)

CONNECT_SECONDS = 3.0
PAUSE_SECONDS = 0.05  # before all addresses are tried again; twice as long each time, up to MOST_PAUSE_SECONDS
MOST_PAUSE_SECONDS = 0.2
HEDGED, RETRIED = 0.05, 0.1  # second attempts as a share of the answers: of slow reads, of slow or failed attempts
LEAST_HEDGE_SECONDS = 0.002
LONGEST_ATTEMPT = 2 / 3  # of a call's timeout: then it is late, even if answers have become slow
# Codes by which gRPC may report a broken connection, besides UNAVAILABLE.
_BREAKS = (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
# Errors that a server returns before it has done anything.
_BEFORE_ANYTHING = (
    NOT_A_MEMBER,
    NO_STATE,
    NOT_RECOVERED,
    REPLICA_EMPTY,
    REPLICA_DISCONNECTED,
    WRITER_UNREACHABLE,
    LEARNER_UNSUPPORTED,
)
_READS = ("/etcdserverpb.KV/Range",)
Response = TypeVar("Response", bound=Message)


class Channels(Protocol):
    """What calls need of a connection."""

    endpoints: list[str]
    picker: Picker
    seen: Seen

    async def order(self, *, endpoint: str | None = None, write: bool = False, stream: bool = False) -> list[str]: ...
    def connected(self, address: str) -> grpc.aio.Channel | None: ...
    async def ready(self, address: str, seconds: float) -> grpc.aio.Channel: ...
    async def drop(self, address: str) -> None: ...
    def shown(self, address: str) -> str: ...


@dataclass(slots=True, eq=False)
class _Attempt:
    address: str
    began: float
    stalled: float  # how long the loop had been held up when it began
    answer: Any = None  # a gRPC call, or the task that connects and makes one; both are awaited and cancelled alike
    call: Any = None  # the gRPC call, once there is one
    channel: grpc.aio.Channel | None = None
    sent: bool = False
    hedged: bool = False  # it was slower than most, and given company if the budget allowed it
    late: float = 0.0  # after how many seconds it last had no answer, and was given company if the budget allowed it
    failed: bool = False  # whether that counted against its address


class Caller:
    def __init__(self, channels: Channels, *, hedge: bool, clock: Clock = time.monotonic) -> None:
        """`clock`: not that of the loop, because uvloop's has whole milliseconds, and stands still during a turn."""
        self._channels = channels
        self._clock = clock
        self._hedge = hedge
        self._hedges = Budget(HEDGED, 10)
        self._retries = Budget(RETRIED, 20)
        self._stalls = Stalls(clock)

    async def call(
        self,
        path: str,
        request: Message,
        response: type[Response],
        idempotent: bool,
        seconds: float,
        endpoint: str | None,
        name: Metadata | None,
        who: Metadata,
        headers: Headers | None = None,
    ) -> Response:
        """`idempotent`: sent twice it has the effect of once. `name`: the session's name for it. `headers`: gets those
        of the answer. Raises a ClientError."""
        race = _Race(
            self._channels,
            self._clock,
            self._stalls,
            path,
            request,
            response,
            seconds,
            (*who, *(name or ())),
            idempotent=idempotent,
            named=name is not None,
            endpoint=endpoint,
            headers=headers,
        )
        hedges = self._hedges if self._hedge and path in _READS else None
        self._stalls.began()
        try:
            answer: Response = await race.run(hedges, self._retries)
            self._earn()
            return answer
        except Refused:
            self._earn()
            raise
        finally:
            race.close()
            self._stalls.ended()

    def _earn(self) -> None:
        """A server has answered a call."""
        self._hedges.earn()
        self._retries.earn()


def _says_how_fresh(metadata: Metadata) -> bool:
    return any(name == READ_METADATA for name, _ in metadata)


class _Race:
    """One call: its attempts, of which the first answer counts."""

    def __init__(
        self,
        channels: Channels,
        clock: Clock,
        stalls: Stalls,
        path: str,
        request: Message,
        response: type[Message],
        seconds: float,
        metadata: Metadata,
        *,
        idempotent: bool,
        named: bool,
        endpoint: str | None,
        headers: Headers | None,
    ) -> None:
        self._channels = channels
        self._picker = channels.picker
        self._stalls = stalls
        self._clock = clock
        fresh = _says_how_fresh(metadata)
        # A read that a server may answer from what it has.
        self._local: rpc_pb2.RangeRequest | None = None
        if isinstance(request, rpc_pb2.RangeRequest) and (request.serializable or fresh):
            self._local = request
        self._failures = Failures(patience=0.0 if fresh else CUT_OFF_SECONDS)
        self._path = path
        self._request = request
        self._response = response
        self._seconds = seconds
        self._end = self._clock() + seconds
        self._longest = seconds * LONGEST_ATTEMPT
        self._metadata = metadata
        self._idempotent = idempotent
        self._named = named
        self._endpoint = endpoint
        self._headers = headers
        self._attempts: list[_Attempt] = []
        self._left: list[str] = []  # addresses of this round that were not tried yet
        self._pause = 0.0  # before the next round
        self._round = 0  # how many addresses it has
        self._lost = False  # whether an answer to a named write was lost: it may have taken effect
        self._woken: asyncio.Future[None] | None = None  # while this waits

    @property
    def _repeatable(self) -> bool:
        return self._idempotent or self._named

    async def run(self, hedges: Budget | None, retries: Budget) -> Any:
        await self._start_next()
        while True:
            done = next((attempt for attempt in self._attempts if attempt.answer.done()), None)
            if done is not None:
                self._attempts.remove(done)
                found = await self._take(done)
                if found is not None:
                    return found
                if not self._attempts:
                    if not retries.spend():
                        await self._sleep(PAUSE_SECONDS)
                    await self._start_next()
                continue
            now = self._clock()
            if now >= self._end:
                raise self._too_late()
            at, hedging = self._company(hedges, now)
            if at <= now:
                await self._give_company(hedges if hedging else None, retries, now)
                continue
            await self._wait(min(at, self._end) - now)

    # ---- attempts ------------------------------------------------------------------------------------------

    async def _start_next(self) -> None:
        """Begin at the next address, in the next round if all were tried. Raises Unavailable or OutcomeUnknown."""
        while not self._left:
            cut_off = self._failures.cut_off(self._round, self._clock())
            if cut_off is not None and not self._lost:  # else it may be found out whether the write took effect
                raise cut_off
            await self._sleep(self._pause)
            self._pause = min(MOST_PAUSE_SECONDS, max(PAUSE_SECONDS, 2 * self._pause))
            if self._clock() >= self._end:
                raise self._too_late()
            self._left = await self._channels.order(endpoint=self._endpoint, write=not self._idempotent)
            self._round = len(self._left)
            if not self._left:
                names = self._endpoint or ", ".join(self._channels.endpoints)
                self._failures.note(f"{names} has no address")
        self._start(self._left.pop(0))

    def _start(self, address: str) -> None:
        now = self._clock()
        attempt = _Attempt(address, now, self._stalls.seconds(now))
        channel = self._channels.connected(address)
        if channel is not None:
            attempt.channel, attempt.sent = channel, True
            attempt.answer = attempt.call = self._invoke(channel)
        else:
            attempt.answer = asyncio.ensure_future(self._connect(attempt))
        self._picker.began(address)
        self._attempts.append(attempt)
        attempt.answer.add_done_callback(self._wake)

    def _invoke(self, channel: grpc.aio.Channel) -> Any:
        call: Callable[..., Any] = channel.unary_unary(
            self._path,
            request_serializer=type(self._request).SerializeToString,
            response_deserializer=self._response.FromString,
        )
        return call(self._request, timeout=max(0.001, self._end - self._clock()), metadata=self._metadata)

    async def _connect(self, attempt: _Attempt) -> Message:
        left = self._end - self._clock()
        channel = await self._channels.ready(attempt.address, min(CONNECT_SECONDS, left))
        attempt.channel, attempt.sent = channel, True
        answer: Awaitable[Message] = self._invoke(channel)
        attempt.call = answer
        return await answer

    def _waited(self, attempt: _Attempt, now: float) -> float:
        """For how many seconds its answer could have been taken."""
        return now - attempt.began - (self._stalls.seconds(now) - attempt.stalled)

    @property
    def _attempt_seconds(self) -> float:
        """After which an attempt without an answer is late. It leaves time for others, also if servers were slow."""
        return min(self._picker.attempt_seconds, self._longest)

    def _company(self, hedges: Budget | None, now: float) -> tuple[float, bool]:
        """When the newest attempt gets company, and whether that is a hedge."""
        newest = self._attempts[-1]
        # The only address gets a second connection.
        if not self._repeatable or not (self._left or len(self._picker.addresses) == 1):
            return self._end, False
        begun = now - self._waited(newest, now)
        p95 = self._picker.durations.p95
        if hedges is not None and p95 and self._left and len(self._attempts) == 1 and not newest.hedged:
            return begun + max(LEAST_HEDGE_SECONDS, p95), True
        if newest.late:  # the budget refused it company
            return begun + newest.late + min(LEAST_ATTEMPT_SECONDS, self._longest), False
        return begun + self._attempt_seconds, False

    async def _give_company(self, hedges: Budget | None, retries: Budget, now: float) -> None:
        newest = self._attempts[-1]
        if hedges is not None:
            newest.hedged = True
            allowed = hedges.spend()
        else:
            newest.late = self._waited(newest, now)
            if not newest.failed and self._longest >= LEAST_ATTEMPT_SECONDS:
                newest.failed = True
                self._picker.failed(newest.address, now, newest.late)
            # What waits at an address that answers nobody goes to one that does, whatever the budget.
            there = next((a for a in self._left if self._picker.may_move(newest.address, a)), None)
            if there is not None:
                self._left.remove(there)
                self._start(there)
                return
            allowed = retries.spend()
        if not allowed:
            return
        if self._left:
            self._start(self._left.pop(0))
            return
        # The only address may stand for several servers, as that of a Service does: a new connection may reach another
        # one. The calls on the old connection have time to end.
        if newest.channel is not None and newest.channel is self._channels.connected(newest.address):
            await self._channels.drop(newest.address)
        self._start(newest.address)

    async def _take(self, attempt: _Attempt) -> Any:
        """The answer of an attempt that has ended; None if another may be made. Raises a ClientError."""
        now = self._clock()
        waited = self._waited(attempt, now)
        try:
            with channel_may_close():
                answer = await attempt.answer
                headers = () if self._headers is None else await attempt.call.initial_metadata()
        except grpc.aio.AioRpcError as error:
            answered = error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, *_BREAKS)
            answered = answered or said_by_server(error.details() or "")
            self._picker.ended(attempt.address, now, waited, answered)
            await self._failed(attempt.address, error)
            return None
        except ChannelClosed as error:
            self._picker.ended(attempt.address, now, waited, None)
            if attempt.sent and not self._repeatable:
                raise OutcomeUnknown(str(error)) from None
            self._lost = self._lost or (self._named and attempt.sent)
            self._failures.note(str(error))
            return None
        except Unavailable as error:  # it could not connect: nothing was sent
            self._picker.ended(attempt.address, now, waited, None)
            self._failures.note(str(error), late=now >= self._end)
            return None
        self._picker.ended(attempt.address, now, waited, True)
        seen = self._channels.seen
        if self._local is not None and seen.is_behind(answer.header):
            where = self._channels.shown(attempt.address)
            position = seen.position.revision
            self._failures.note(f"{where} is at revision {answer.header.revision}, and {position} was seen")
            return None
        if self._headers is not None:
            self._headers[:] = headers
        return answer

    async def _failed(self, address: str, error: grpc.aio.AioRpcError) -> None:
        """Return if the call may be tried at another address, raise otherwise."""
        code, details, known = error.code(), error.details() or "", known_of(error)
        self._failures.refused(self._channels.shown(address), code, details, known, self._clock())
        if known == LEARNER_UNSUPPORTED and len(self._picker.addresses) > 1:
            self._picker.failed(address, self._clock())  # prefer the others until it votes
            return
        if self._local is not None and known == FUTURE_REVISION and self._channels.seen.has(self._local.revision):
            return  # the server is behind
        if known == TOO_MANY_REQUESTS and self._attempts:
            return  # the server has too much of this call already: another copy of it is still under way
        before = known in _BEFORE_ANYTHING
        broken = code in _BREAKS and not said_by_server(details)
        if not broken and code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            if self._lost:  # an earlier attempt may have taken effect
                raise OutcomeUnknown(str(refused(error))) from None
            raise refused(error) from None
        if not self._repeatable and not before:
            raise OutcomeUnknown(details or code.name) from None
        self._lost = self._lost or (self._named and not before)
        if code is not grpc.StatusCode.DEADLINE_EXCEEDED and not said_by_server(details):
            await self._channels.drop(address)  # the error is of the connection, not from the server

    # ---- time ----------------------------------------------------------------------------------------------

    def _too_late(self) -> Unavailable | OutcomeUnknown:
        waiting = self._attempts
        late = self._failures.too_late(self._seconds, self._silent(waiting))
        # What is under way now may take effect, too.
        if self._lost or (not self._idempotent and any(attempt.sent for attempt in waiting)):
            return OutcomeUnknown(str(late))
        return late

    def _silent(self, waiting: list[_Attempt]) -> str:
        return f"{self._channels.shown(waiting[-1].address)} is silent" if waiting else "no connection"

    def _wake(self, _: object = None) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def _wait(self, seconds: float) -> None:
        """Until an attempt ends, at most so long."""
        loop = asyncio.get_running_loop()
        self._woken = loop.create_future()
        timer = loop.call_later(seconds, self._wake)
        try:
            await self._woken
        finally:
            self._woken = None
            timer.cancel()

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(max(0.0, min(seconds, self._end - self._clock())))

    def close(self) -> None:
        """Give up what is still under way."""
        now = self._clock()
        for attempt in self._attempts:
            attempt.answer.cancel()
            waited = self._waited(attempt, now)
            silent = now >= self._end and not attempt.failed and waited >= self._attempt_seconds
            self._picker.ended(attempt.address, now, waited, False if silent else None)
        self._attempts = []
