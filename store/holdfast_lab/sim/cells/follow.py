"""The stream of changes of a simulated cell: what production code sends, over a connection that breaks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from google.protobuf.message import Message
from holdfast.cells.clock import now
from holdfast.client.errors import Unavailable
from holdfast.edge.lineage import Lineage
from holdfast.edge.upstream import Followers, Upstream, check_start
from holdfast.kv.space import KeySpace
from holdfast.proto import holdfast_pb2
from holdfast.status import RequestError
from holdfast.watch.hub import Delivery, Hub

from holdfast_lab.sim.cells.cell import SimCell
from holdfast_lab.sim.cells.weather import Weather

TICK_SECONDS = 0.1
CHUNK_ROWS = 3  # of a snapshot, so that it has several
_numbers = itertools.count(1)


class SimConnection:
    """What a follower uses of a Connection."""

    def __init__(self, cell: SimCell, weather: Weather) -> None:
        self._cell = cell
        self._weather = weather
        self.picker = SimpleNamespace(stream_began=lambda _: None, stream_ended=lambda _: None)

    async def order(self, *, stream: bool) -> list[str]:
        return [self._cell.name]

    async def who(self) -> tuple[()]:
        return ()

    def void(self, who: object, reason: object) -> bool:
        return False

    def shown(self, address: str) -> str:
        return address

    async def drop(self, address: str) -> None:
        pass

    async def stream(self, address: str, path: str, request: object, response: object, metadata: object) -> SimStream:
        await asyncio.sleep(self._weather.delay())
        if not self._cell.up or self._weather.happens(self._weather.lost):
            raise Unavailable(f"{address} cannot be reached")
        return SimStream(self._cell, self._weather)


class _Source:
    """A simulated cell as what is followed."""

    users = False
    rights = b""
    term = 1

    def __init__(self, cell: SimCell) -> None:
        self._cell = cell
        self.path = holdfast_pb2.FollowPath(nodes=[1])

    @property
    def lineage(self) -> Lineage:
        return Lineage.of(self._cell.cluster_id, self._cell.epoch, self._cell.first_id)

    @property
    def space(self) -> KeySpace:
        return self._cell.space

    @property
    def hub(self) -> Hub:
        return self._cell.hub

    def poke(self) -> None:
        pass  # it looks at each tick


class SimStream:
    """One call of Follow."""

    def __init__(self, cell: SimCell, weather: Weather) -> None:
        self._cell = cell
        self._weather = weather
        self._number = next(_numbers)
        self._upstream = Upstream(_Source(cell), self._number, Followers(chunk_rows=CHUNK_ROWS))
        self._space = cell.space
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: the stream has ended
        self._ticking: asyncio.Task[None] | None = None
        cell.streams[self._number] = self.deliver

    async def write(self, message: Message) -> None:
        request = holdfast_pb2.FollowRequest.FromString(message.SerializeToString())
        await asyncio.sleep(self._weather.chance.uniform(0.001, 0.02))
        if request.HasField("start"):
            check_start(request.start)
            self._upstream.begin(request.start)
            self._ticking = asyncio.ensure_future(self._tick())
        elif request.HasField("probe"):
            self._send(lambda: self._upstream.probed(request.probe.id, self._space.revision))

    async def read(self) -> Any:
        frame = await self._frames.get()
        if frame is None:
            raise Unavailable("the stream broke")
        await asyncio.sleep(self._weather.chance.uniform(0.0, 0.02))
        return holdfast_pb2.FollowResponse.FromString(frame)

    def cancel(self) -> None:
        self._end()

    # ---- the cell's side -----------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while self._cell.up and self._cell.space is self._space and not self._weather.happens(self._weather.lost / 10):
            self._send(lambda: self._upstream.tick(int(now() * 1e9)))
            while self._upstream.filling:
                self._send(lambda: self._upstream.fill(int(now() * 1e9)))
                await asyncio.sleep(self._weather.chance.uniform(0.0, 0.1))
            self._cell.catch_up()
            await asyncio.sleep(TICK_SECONDS)
        self._end()

    def deliver(self, delivery: Delivery) -> None:
        self._send(lambda: self._upstream.deliver(delivery))

    def _send(self, frames: Callable[[], list[bytes]]) -> None:
        try:
            for frame in frames():
                self._frames.put_nowait(frame)
        except RequestError:
            self._end()

    def _end(self) -> None:
        if self._cell.streams.pop(self._number, None) is None:
            return
        if self._ticking is not None:
            self._ticking.cancel()
        if self._cell.space is self._space:
            self._upstream.close()
        self._frames.put_nowait(None)
