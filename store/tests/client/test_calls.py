"""Reads by many calls of one client in virtual time, at servers that are stand-ins: quick, slow, or frozen.

The clock, the servers and their channels are not real; what decides where a call goes and when it is given up is.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import grpc.aio
import pytest
import uvloop
from holdfast.client.calls import Caller
from holdfast.client.errors import Unavailable
from holdfast.client.picker import LEAST_ATTEMPT_SECONDS, Picker
from holdfast.client.position import Seen
from holdfast.client.stalls import Stalls
from holdfast.proto import rpc_pb2
from holdfast.status import TOO_MANY_REQUESTS
from holdfast_lab import virtual_loop
from holdfast_lab.virtual_loop import VirtualLoop

ADDRESSES = ["10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"]
FROZEN = ADDRESSES[0]
QUICK = 0.002
PATH = "/etcdserverpb.KV/Range"


class Servers:
    """The channels of a client, and what is behind them. Nothing is answered by a frozen one until it goes on."""

    def __init__(self) -> None:
        self.endpoints = ADDRESSES
        self.picker = Picker(chance=random.Random(1))
        self.picker.update(dict.fromkeys(ADDRESSES, "members"))
        self.seen = Seen(floor=False)
        self.seconds = QUICK
        self.frozen: set[str] = set()
        self.one_at_a_time = False  # a further call is refused while one is under way
        self._under_way = 0
        self.got: Counter[str] = Counter()

    async def order(self, *, endpoint: str | None = None, write: bool = False, stream: bool = False) -> list[str]:
        return self.picker.order(asyncio.get_running_loop().time(), write=write, stream=stream)

    def connected(self, address: str) -> grpc.aio.Channel:
        return cast(grpc.aio.Channel, _Channel(self, address))

    def refuses(self, answer: asyncio.Future[Any]) -> bool:
        if self.one_at_a_time and self._under_way:
            error = grpc.aio.AioRpcError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), grpc.aio.Metadata(), TOO_MANY_REQUESTS.message
            )
            asyncio.get_running_loop().call_soon(answer.set_exception, error)
            return True
        self._under_way += 1
        answer.add_done_callback(self._ended)
        return False

    def _ended(self, _: object) -> None:
        self._under_way -= 1

    async def ready(self, address: str, seconds: float) -> grpc.aio.Channel:
        return self.connected(address)

    async def drop(self, address: str) -> None:
        pass

    def shown(self, address: str) -> str:
        return address


class _Channel:
    def __init__(self, servers: Servers, address: str) -> None:
        self._servers, self._address = servers, address

    def unary_unary(self, path: str, **_: object) -> Callable[..., asyncio.Future[Any]]:
        def call(request: object, *, timeout: float, metadata: object) -> asyncio.Future[Any]:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Any] = loop.create_future()
            self._servers.got[self._address] += 1
            if self._servers.refuses(answer):
                return answer
            if self._address not in self._servers.frozen:
                loop.call_later(self._servers.seconds, lambda: answer.done() or answer.set_result(_ANSWER))
            return answer

        return call


_ANSWER = rpc_pb2.RangeResponse()


class Load:
    def __init__(self, *, timeout: float, hedge: bool = True) -> None:
        self.loop = cast(VirtualLoop, asyncio.get_running_loop())
        self.servers = Servers()
        self.caller = Caller(self.servers, hedge=hedge, clock=self.loop.time)
        self.timeout = timeout
        self.failed: list[float] = []
        self.took: list[float] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def _read(self) -> None:
        began = self.loop.time()
        request = rpc_pb2.RangeRequest(key=b"k")
        try:
            await self.caller.call(PATH, request, rpc_pb2.RangeResponse, True, self.timeout, None, None, ())
        except Unavailable:
            self.failed.append(self.loop.time())
        else:
            self.took.append(self.loop.time() - began)

    async def reads(self, seconds: float, rate: float = 100.0) -> None:
        """Begin as many reads as were due, each in its time."""
        end, due = self.loop.time() + seconds, self.loop.time()
        while due < end:
            while due <= self.loop.time():
                task = asyncio.ensure_future(self._read())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                due += 1 / rate
            await asyncio.sleep(due - self.loop.time())

    async def done(self) -> None:
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize("hedge", [False, True])
@pytest.mark.parametrize("timeout", [0.5, 3.0, 10.0])
@pytest.mark.parametrize("stalls", [[], [1.3, 1.3], [4.0]])
def test_no_read_fails_because_one_server_of_three_is_frozen(timeout: float, stalls: list[float], hedge: bool) -> None:
    """The loop is held up before: what it then sees late is no property of the servers."""

    async def work() -> None:
        load = Load(timeout=timeout, hedge=hedge)
        await load.reads(1.0)
        for seconds in stalls:
            load.loop.stall(seconds)
            await load.reads(0.5)
        await load.done()
        del load.failed[:], load.took[:]
        load.servers.frozen.add(FROZEN)
        await load.reads(30.0)
        await load.done()
        took = sorted(load.took)
        assert not load.failed
        assert took[len(took) * 99 // 100] < 1.0
        assert took[-1] < timeout
        print(f"worst {took[-1]:.2f} s, {load.servers.got[FROZEN]} of {len(took)} at the frozen one")

    virtual_loop.run(work())


def test_a_stall_is_no_property_of_the_servers() -> None:
    async def work() -> None:
        load = Load(timeout=3.0)
        for _ in range(20):
            await load.reads(0.1, 1000)
            load.servers.seconds = 0.05
            reads = asyncio.ensure_future(load.reads(0.04, 1000))
            await asyncio.sleep(0.04)
            load.loop.stall(1.3)
            await reads
            await load.done()
            load.servers.seconds = QUICK
        assert load.servers.picker.attempt_seconds == LEAST_ATTEMPT_SECONDS
        assert all(known.latency < 0.2 and not known.failed for known in load.servers.picker.addresses.values())

    virtual_loop.run(work())


def test_a_read_that_the_budget_refused_is_helped_later() -> None:
    async def work() -> None:
        load = Load(timeout=5.0, hedge=False)
        while load.caller._retries.spend():
            pass
        load.servers.frozen.add(FROZEN)
        await load.reads(10.0, 5)
        await load.done()
        assert not load.failed

    virtual_loop.run(work())


def test_all_servers_stop_and_two_go_on() -> None:
    """As when the leader is frozen: the others answer after the election. All reads are late at once, more than the
    retry budget allows; those at the frozen server have to end, too."""

    async def work() -> None:
        load = Load(timeout=3.0)
        await load.reads(5.0, 300)
        load.servers.seconds = 1.5
        load.servers.frozen.add(FROZEN)
        await load.reads(1.5, 300)
        load.servers.seconds = QUICK
        await load.reads(10.0, 300)
        await load.done()
        assert not load.failed

    virtual_loop.run(work())


def test_a_copy_of_a_call_that_is_too_much_for_the_server_does_not_end_the_call() -> None:
    """As that of a large write to a slow disk: the first copy is under way, and is answered."""

    async def work() -> None:
        load = Load(timeout=10.0)
        load.servers.seconds, load.servers.one_at_a_time = 4.0, True
        await load._read()
        assert sum(load.servers.got.values()) > 1, "it had company"
        assert load.took == [pytest.approx(4.0)]

    virtual_loop.run(work())


def test_retries_are_no_storm() -> None:
    """All servers are slow: each call costs little more than one attempt."""

    async def work() -> None:
        load = Load(timeout=9.0)
        await load.reads(5.0)
        del load.took[:]
        load.servers.got.clear()
        load.servers.seconds = 5.0
        await load.reads(30.0)
        await load.done()
        assert not load.failed
        calls = sum(load.servers.got.values())
        print(calls, len(load.took))
        assert calls < 1.2 * len(load.took) + 30

    virtual_loop.run(work())


def test_servers_that_answer_nothing_in_time_get_no_storm() -> None:
    """The budget is earned by answers: without any, it is spent once."""

    async def work() -> None:
        load = Load(timeout=3.0)
        await load.reads(5.0)
        load.servers.got.clear()
        load.servers.seconds = 20.0
        calls = 30 * 100
        await load.reads(30.0)
        await load.done()
        assert len(load.failed) >= calls
        assert calls <= sum(load.servers.got.values()) < calls + 40

    virtual_loop.run(work())


def test_only_what_the_loop_missed_is_a_stall() -> None:
    async def work() -> None:
        loop = cast(VirtualLoop, asyncio.get_running_loop())
        stalls = Stalls(loop.time)
        stalls.began()
        await asyncio.sleep(3.0)
        assert stalls.seconds(loop.time()) == 0.0
        loop.stall(1.0)
        seen = stalls.seconds(loop.time())  # before the loop has run
        assert seen == pytest.approx(1.0, abs=0.06)
        await asyncio.sleep(0.0)
        await asyncio.sleep(3.0)
        assert stalls.seconds(loop.time()) == pytest.approx(seen, abs=1e-6)
        stalls.ended()
        await asyncio.sleep(1.0)
        loop.stall(5.0)  # nothing waits
        assert stalls.seconds(loop.time()) == pytest.approx(seen, abs=1e-6)
        stalls.began()
        assert stalls.seconds(loop.time()) == pytest.approx(seen, abs=1e-6)

    virtual_loop.run(work())


def test_latencies_are_finer_than_the_clock_of_uvloop() -> None:
    """Its clock has whole milliseconds: by it, all quick servers would have the latency 0, and load would not count."""

    async def work() -> None:
        servers = Servers()
        servers.seconds = 0.0
        caller = Caller(servers, hedge=False)
        for _ in range(30):
            await caller.call(PATH, rpc_pb2.RangeRequest(), rpc_pb2.RangeResponse, True, 5.0, None, None, ())
        assert all(known.latency > 0.0 for known in servers.picker.addresses.values() if known.calls)

    uvloop.run(work())
