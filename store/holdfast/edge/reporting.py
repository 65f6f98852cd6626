"""holdfast.v1.Reported at a replica: takes the reports of its node, and delivers them together with those of the
replicas below, at most once a second, to the server that it follows.

A replica below waits for its answer until the cluster has what it delivered, so only the node's own replica has to keep
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from holdfast.api.methods import DELIVER, REPORT
from holdfast.api.router import Router
from holdfast.edge.access import Access
from holdfast.edge.core import ReplicaCore
from holdfast.edge.local_reports import LocalReports
from holdfast.edge.outbox import Outbox
from holdfast.edge.reasons import Reasons
from holdfast.front.calls import Call
from holdfast.proto import holdfast_pb2
from holdfast.reported import LOCAL, MAX_BATCHES, check_batches, check_entry, newest, place_key
from holdfast.status import Code, Refusal, RequestError

log = logging.getLogger("holdfast.edge")

INTERVAL_SECONDS = 1.0
MOST_BYTES = 1 << 20  # of a request; it may be exceeded by what one replica below delivers together
LONGEST_PAUSE = 60.0  # after deliveries have failed
_FULL = Refusal(Code.UNAVAILABLE, "holdfast: the disk of the replica takes no writes, so the report cannot be kept")
_TOO_MANY = Refusal(Code.RESOURCE_EXHAUSTED, f"holdfast: {MAX_BATCHES} batches of replicas below wait here already")

Ask = Callable[[str, bytes], Awaitable[bytes]]


class Reporting:
    """`ask` calls the server that the replica follows now; it raises RequestError. `durable` makes durable what was
    written, and returns whether it is."""

    def __init__(
        self,
        router: Router,
        core: ReplicaCore,
        outbox: Outbox,
        access: Access,
        *,
        ask: Ask,
        durable: Callable[[], Awaitable[bool]],
        node: str,
        local: LocalReports | None = None,
    ) -> None:
        self._local = local
        self._router = router
        self._core = core
        self._outbox = outbox
        self._access = access
        self._ask = ask
        self._durable = durable
        self._node = node
        self._reasons = Reasons(log, logging.INFO)
        self._below: dict[int, tuple[Call, list[holdfast_pb2.ReportedBatch]]] = {}  # calls that wait
        self._wanted = asyncio.Event()
        self._again = asyncio.Event()
        if not outbox.empty or local is not None:
            self._wanted.set()
        router.unary(REPORT, self.report)
        router.unary(DELIVER, self.deliver)

    @property
    def waiting(self) -> int:
        """Of how many keys the cluster does not have the newest report yet."""
        return len({*self._outbox.keys, *(self._local.due if self._local is not None else ())})

    def report(self, call: Call, body: bytes) -> None:
        request = holdfast_pb2.ReportRequest.FromString(body)
        entry = holdfast_pb2.ReportedEntry(key=request.key, value=request.value, deleted=request.deleted)
        check_entry(entry)
        if self._local is not None and entry.key.startswith(LOCAL):
            text = f"holdfast: what {self._node} reports below {LOCAL} are the keys of its site; choose another key"
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, text))
        self._access.caller(call).require_write(place_key(self._node) + b"/" + entry.key.encode())
        if self._core.stalled:
            raise RequestError(_FULL)
        seq = self._outbox.put(entry)
        self._wanted.set()
        if not self._core.settle():
            raise RequestError(_FULL)
        response = holdfast_pb2.ReportResponse(incarnation=self._outbox.incarnation, seq=seq)
        self._router.reply(call.id, response.SerializeToString())

    def deliver(self, call: Call, body: bytes) -> None:
        request = holdfast_pb2.DeliverRequest.FromString(body)
        check_batches(request)
        if not request.batches:
            self._router.reply(call.id, holdfast_pb2.DeliverResponse().SerializeToString())
            return
        caller = self._access.caller(call)
        for batch in request.batches:
            caller.require_write(place_key(batch.node))
            for entry in batch.entries:
                caller.require_write(place_key(batch.node) + b"/" + entry.key.encode())
        if sum(len(batches) for _, batches in self._below.values()) + len(request.batches) > MAX_BATCHES:
            raise RequestError(_TOO_MANY)
        self._below[call.id] = call, list(request.batches)
        self._router.on_cancel(call, lambda: self._below.pop(call.id, None))
        self._wanted.set()

    def look(self) -> None:
        """Keys of the site have changed."""
        self._wanted.set()

    def try_again(self) -> None:
        """The way to the cluster has changed: do not wait longer than usual."""
        self._again.set()

    async def run(self) -> None:
        pause = INTERVAL_SECONDS
        while True:
            await self._wanted.wait()
            await asyncio.sleep(INTERVAL_SECONDS * random.uniform(0.75, 1.25))
            self._wanted.clear()
            self._again.clear()
            if await self._deliver():
                pause = INTERVAL_SECONDS
                continue
            self._wanted.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._again.wait()
                    pause = INTERVAL_SECONDS
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _deliver(self) -> bool:
        """Returns whether the cluster has all that the node itself reported."""
        if self._local is not None and not self._core.stalled:
            self._local.feed()
        own = self._outbox.batch()
        if own is not None and not await self._durable():
            own = None
        parts = [_Part(id, batches) for id, (_, batches) in self._below.items()]
        if own is not None:
            parts.insert(0, _Part(0, [own]))
        done = True
        for group in _groups(parts):
            if not await self._send(group) and len(group) > 1:
                for part in group:  # what is wrong with one of them does not hold up the others
                    await self._send([part])
        for part in parts:
            done &= self._answer(part)
        refused = any(isinstance(part.answer, Refusal) for part in parts)
        if parts and not refused and self._reasons.over():
            log.info("reports are delivered again")
        self._router.flush()
        if own is None and not self._outbox.empty:
            done = False
        if done and (not self._outbox.empty or self._below):
            self._wanted.set()
        return done

    async def _send(self, group: list[_Part]) -> bool:
        """Deliver these together. Returns False if it may be because of one of them that they are refused."""
        request = holdfast_pb2.DeliverRequest(batches=newest(batch for part in group for batch in part.batches))
        try:
            answer: bytes | Refusal = await self._ask(DELIVER, request.SerializeToString())
        except RequestError as error:
            answer = error.refusal
        for part in group:
            part.answer = answer
        return isinstance(answer, bytes) or answer.code is Code.UNAVAILABLE

    def _answer(self, part: _Part) -> bool:
        """Tell whoever waits. Returns False if these are reports of the node itself, and they are not delivered."""
        if isinstance(part.answer, Refusal):
            self._reasons.say(f"reports are not delivered yet: {part.answer.message}")
        if part.call == 0:
            if isinstance(part.answer, Refusal):
                return False
            self._outbox.delivered(part.batches[0])
            self._core.settle()
            if self._local is not None:
                self._local.feed()
        elif self._below.pop(part.call, None) is not None:
            if isinstance(part.answer, Refusal):
                self._router.fail(part.call, part.answer)
            else:
                self._router.reply(part.call, part.answer)
        return True


@dataclass(slots=True)
class _Part:
    """What is delivered for one call of a replica below, or (0) for this node."""

    call: int
    batches: list[holdfast_pb2.ReportedBatch]
    answer: bytes | Refusal = _FULL


def _groups(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Parts that fit one request."""
    group: list[_Part] = []
    size = 0
    for part in parts:
        bytes_ = sum(batch.ByteSize() for batch in part.batches)
        if group and size + bytes_ > MOST_BYTES:
            yield group
            group, size = [], 0
        group.append(part)
        size += bytes_
    if group:
        yield group
