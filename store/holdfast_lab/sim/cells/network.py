"""A client of a simulated cell: what it sends may be lost, late, or arrive twice, and answers may be lost as well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

from holdfast.cells.clock import now
from holdfast.client.client import Client
from holdfast.client.errors import OutcomeUnknown, Refused, Unavailable
from holdfast.client.txn import Op, Txn
from holdfast.client.values import KeyValue, RangeResult, to_bytes
from holdfast.keyrange import prefix_end
from holdfast.proto import rpc_pb2
from holdfast.status import Refusal

from holdfast_lab.sim.cells.cell import Answered, Cell, SimCell
from holdfast_lab.sim.cells.follow import SimConnection
from holdfast_lab.sim.cells.weather import Weather

Answer = TypeVar("Answer")
CALL_SECONDS = 3.0  # then the client gives up


class SimClient:
    """What the cells' code uses of a Client."""

    def __init__(self, cell: Cell, weather: Weather) -> None:
        self._cell = cell
        self._weather = weather
        self._leases: list[SimLease] = []
        self.connection = SimConnection(cell, weather) if isinstance(cell, SimCell) else None

    async def close(self) -> None:
        for lease in self._leases:
            lease.stop()

    async def _call(self, ask: Callable[[Answered[Answer]], None], unanswered: Exception) -> Answer:
        loop, weather, cell = asyncio.get_running_loop(), self._weather, self._cell
        answered: asyncio.Future[Answer] = loop.create_future()

        def arrive() -> None:
            if cell.up:
                ask(answer)

        def answer(found: Answer | Refusal) -> None:
            if not weather.happens(weather.lost):
                loop.call_later(weather.delay(), come_back, found)

        def come_back(found: Answer | Refusal) -> None:
            if answered.done():
                return
            if isinstance(found, Refusal):
                answered.set_exception(Refused(found.code, found.message))
            else:
                answered.set_result(found)

        if not weather.happens(weather.lost):
            loop.call_later(weather.delay(), arrive)
        if weather.happens(weather.twice):
            loop.call_later(weather.delay(), arrive)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await answered
        except TimeoutError:
            raise unanswered from None

    # ---- as a Client ---------------------------------------------------------------------------------------

    async def commit(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        sent = rpc_pb2.TxnRequest.FromString(request.SerializeToString())
        unknown = OutcomeUnknown(f"{self._cell.name}: no answer")
        return await self._call(partial(self._cell.execute, sent), unknown)

    def txn(self) -> Txn:
        return Txn(self.commit)

    async def range(
        self, key: str | bytes, *, prefix: bool = False, end: bytes | None = None, limit: int = 0
    ) -> RangeResult:
        start = to_bytes(key)
        until = prefix_end(start) if prefix else end or b""
        op = Op(request_range=rpc_pb2.RangeRequest(key=start, range_end=until, limit=limit))
        read = rpc_pb2.TxnRequest(success=[op])
        unanswered = Unavailable(f"{self._cell.name}: no answer")
        answer = await self._call(partial(self._cell.execute, read), unanswered)
        found = answer.responses[0].response_range
        return RangeResult([KeyValue.of(kv) for kv in found.kvs], found.count, found.more, answer.header.revision)

    async def get(self, key: str | bytes) -> KeyValue | None:
        found = await self.range(key)
        return found.kvs[0] if found.kvs else None

    async def status(self) -> rpc_pb2.StatusResponse:
        return rpc_pb2.StatusResponse(header=(await self.commit(rpc_pb2.TxnRequest())).header)

    async def lease(self, ttl: int) -> SimLease:
        unknown = Unavailable(f"{self._cell.name}: no answer")
        id = await self._call(partial(self._cell.grant, ttl), unknown)
        lease = SimLease(self, id, ttl)
        self._leases.append(lease)
        return lease

    async def renew(self, lease: int, ttl: int) -> bool:
        return await self._call(partial(self._cell.renew, lease, ttl), Unavailable("no answer"))

    async def revoke(self, lease: int) -> None:
        await self._call(partial(self._cell.revoke, lease), Unavailable("no answer"))


class SimLease:
    """A lease that is kept alive until it is stopped."""

    def __init__(self, client: SimClient, id: int, ttl: int) -> None:
        self.id = id
        self._client = client
        self._ttl = ttl
        self._until = now() + ttl
        self._keeping = asyncio.ensure_future(self._keep())

    @property
    def alive(self) -> bool:
        return now() < self._until

    async def _keep(self) -> None:
        while self.alive:
            await asyncio.sleep(self._ttl / 3)
            asked = now()
            try:
                if not await self._client.renew(self.id, self._ttl):
                    self._until = 0.0
                else:
                    self._until = asked + self._ttl
            except Unavailable:
                continue

    def stop(self) -> None:
        self._keeping.cancel()

    async def revoke(self) -> None:
        self.stop()
        self._until = 0.0
        await self._client.revoke(self.id)


def client_of(cell: Cell, weather: Weather) -> Client:
    """It has all of a Client that the code of the cells uses."""
    return cast(Client, SimClient(cell, weather))
