"""One replica as a process that can lose its power, and the check of what it shows."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import grpc
import grpc.aio
from holdfast.keyrange import prefix_end
from holdfast.proto import holdfast_pb2, rpc_pb2

from holdfast_lab.crash.powercut import PowerCut
from holdfast_lab.demo import Relay
from holdfast_lab.powercuts.authority import Authority
from holdfast_lab.processes import Process, free_ports
from holdfast_lab.sim.violation import Violation, check

START_SECONDS = 120.0  # a machine may be busy; longer than that is a fault
LOOK_SECONDS = 0.03
CALL_SECONDS = 20.0
CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
)


class Replica:
    """`held`: prefixes that it has shown, and has to show from now on. `least`: so far it was complete."""

    def __init__(self, name: str, directory: Path, authority: Authority, power: PowerCut, chance: Random) -> None:
        self.name = name
        self._place = directory / name
        self._data = self._place / "data"
        self._authority = authority
        self._power = power
        self._chance = chance
        self.relay = Relay([authority.endpoint])
        (port,) = free_ports(1)
        self._process = Process(name, [], directory / f"{name}.log", port)
        self.prefixes: tuple[str, ...] = ()
        self.held: set[str] = set()
        self.least = 0
        self._channel = channel = grpc.aio.insecure_channel(self._process.endpoint, options=CHANNEL)
        self._describe: Callable[..., Awaitable[holdfast_pb2.DescribeResponse]] = channel.unary_unary(
            "/holdfast.v1.Node/Describe",
            request_serializer=holdfast_pb2.DescribeRequest.SerializeToString,
            response_deserializer=holdfast_pb2.DescribeResponse.FromString,
        )
        self._ask: Callable[..., Awaitable[rpc_pb2.RangeResponse]] = channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=rpc_pb2.RangeRequest.SerializeToString,
            response_deserializer=rpc_pb2.RangeResponse.FromString,
        )

    async def close(self) -> None:
        self._process.kill()
        await self._channel.close()
        await self.relay.close()

    # ---- the process ---------------------------------------------------------------------------------------

    def take(self, prefixes: tuple[str, ...]) -> None:
        """From the next start on it has these prefixes. What it held outside of them is given up, for good."""
        self.prefixes = prefixes
        shared = [max(p, h, key=len) for p in prefixes for h in self.held if p.startswith(h) or h.startswith(p)]
        self.held = set(shared)

    def empty(self) -> None:
        """Remove all that it has."""
        shutil.rmtree(self._place, ignore_errors=True)
        self.held, self.least = set(), 0

    def start(self) -> None:
        self._process.environment = self._power.environment(self.name, self._data)
        self._power.begin(self.name)
        self._process.arguments = [
            "edge",
            f"--name={self.name}",
            f"--data-dir={self._data}",
            f"--listen-client-urls=http://{self._process.endpoint}",
            f"--endpoints=127.0.0.1:{self.relay.port}",
            *(f"--prefix={prefix}" for prefix in self.prefixes),
        ]
        self._process.start()

    @property
    def running(self) -> bool:
        return self._process.running is not None

    def cut_power(self) -> int:
        """kill -9, and lose what was not synced. Returns how many changes of files this undid."""
        self._check_running()
        self._process.kill()
        return self._power.lose_unsynced(self.name)

    def _check_running(self) -> None:
        running = self._process.running
        if running is not None and running.poll() is not None:
            raise Violation("P1", f"{self.name} ended by itself, with {running.returncode}:\n{self._process.tail(8)}")

    async def serves(self) -> holdfast_pb2.DescribeResponse:
        """Wait until it answers."""
        end = time.monotonic() + START_SECONDS
        while True:
            node = await self.describe()
            if node is not None:
                return node
            self._check_running()
            check(time.monotonic() < end, "P1", f"{self.name} does not serve within {START_SECONDS:g} s")
            await asyncio.sleep(LOOK_SECONDS)

    async def describe(self) -> holdfast_pb2.DescribeResponse | None:
        """None: it does not answer."""
        try:
            return await self._describe(holdfast_pb2.DescribeRequest(), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError:
            return None

    # ---- what it shows -------------------------------------------------------------------------------------

    async def check(self, *, started: bool) -> int:
        """Compare all that it shows with the true history. Returns how many keys that were. `started`: it has got
        nothing since its start, so all of it was on the disk, and no later cut may take it."""
        node = await self.serves()
        check(node.revision >= self.least, "P3", f"{self.name} was at {self.least}, and is at {node.revision}")
        keys, shown = 0, set()
        for prefix in sorted({*self.prefixes, *self.held}):
            found = await self._range(prefix)
            if found is None:
                check(prefix not in self.held, "P3", f"{self.name} has shown {prefix}, and shows it no more")
                continue
            shown.add(prefix)
            await self._compare(prefix, found, found.header.revision)
            keys += len(found.kvs)
            before = self._chance.randint(max(1, found.header.revision - 50), found.header.revision)
            earlier = await self._range(prefix, before)
            if earlier is not None:
                await self._compare(prefix, earlier, before)
        if started:
            self.held, self.least = shown, node.revision
        return keys

    async def _range(self, prefix: str, revision: int = 0) -> rpc_pb2.RangeResponse | None:
        """None: it has no data of it, or not of this revision."""
        start = prefix.encode()
        request = rpc_pb2.RangeRequest(key=start, range_end=prefix_end(start), revision=revision, serializable=True)
        try:
            return await self._ask(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._check_running()
            if error.code() is grpc.StatusCode.UNAVAILABLE and "has no data of these prefixes" in str(error.details()):
                return None
            if revision and error.code() is grpc.StatusCode.OUT_OF_RANGE:
                return None
            raise Violation("P1", f"{self.name} does not serve {prefix}: {error.code()}, {error.details()}") from None

    async def _compare(self, prefix: str, found: rpc_pb2.RangeResponse, revision: int) -> None:
        await self._authority.knows(revision)
        right = dict(self._authority.at(prefix.encode(), revision))
        seen = {kv.key: (kv.value, kv.create_revision, kv.mod_revision, kv.version) for kv in found.kvs}
        if seen != right:
            wrong = sorted(key for key in {*seen, *right} if seen.get(key) != right.get(key))
            shown = "\n".join(f"  {k!r}: is {_short(seen.get(k))}, was {_short(right.get(k))}" for k in wrong[:8])
            raise Violation("P2", f"{self.name} is wrong in {len(wrong)} keys of {prefix} at {revision}:\n{shown}")

    async def catch_up(self) -> int:
        """Wait until it shows everything up to now, and check that. Returns how many keys were checked."""
        wanted, end = self._authority.revision, time.monotonic() + START_SECONDS
        while True:
            node = await self.serves()
            if node.revision >= wanted and all([await self._range(p) is not None for p in self.prefixes]):
                return await self.check(started=False)
            check(time.monotonic() < end, "P4", f"{self.name} is at {node.revision} of {wanted}, and not whole")
            await asyncio.sleep(LOOK_SECONDS)


def _short(row: tuple[bytes, int, int, int] | None) -> str:
    return "not there" if row is None else f"{row[0][:12]!r}, created {row[1]}, changed {row[2]}, version {row[3]}"
