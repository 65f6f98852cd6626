"""What replicas cost the members that they follow, directly and behind relays, and how long a change takes to all.

    make bench-edge            (about seven minutes)
    python benchmarks/edge.py [--seconds 15] [--rate 10] [--counts 10,100,1000] [--relays 2] [--rounds 5]

Relays are real `holdfast edge` processes. The replicas are Follow streams of one process, each on a connection of its
own, which read everything and keep nothing: what they cost the members is what replicas cost. Beside them as many
watches, with a connection each, of three members of etcd. Nothing here asserts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
from clients.servers import cluster
from etcd_cluster import EtcdCluster
from holdfast import client
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast_lab.processes import Process, free_ports
from rich.console import Console
from rich.table import Table

PREFIX = b"/edge/"
VALUE = b"v" * 256
START_SECONDS = 90
ARRIVE_SECONDS = 10  # for the last changes


@dataclass
class Seen:
    """When each revision arrived at each follower."""

    started: int = 0
    arrived: dict[int, list[float]] = field(default_factory=dict)

    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, revision: int) -> None:
        self.arrived.setdefault(revision, []).append(time.monotonic())
        self.moved.set()

    async def all_of(self, revisions: Iterable[int], count: int) -> None:
        """Wait until so many followers have these revisions."""
        while any(len(self.arrived.get(revision, ())) < count for revision in revisions):
            self.moved.clear()
            await self.moved.wait()


@dataclass
class Cost:
    cpu_ms: float  # of all members, for one put
    bytes: float
    p50_ms: float  # from the acknowledgement until half of the followers have it
    p99_ms: float

    @classmethod
    def median(cls, costs: list[Cost]) -> Cost:
        """Of each figure by itself."""
        return cls(*(statistics.median(figures) for figures in zip(*map(astuple, costs), strict=True)))


async def follow(address: str, number: int, seen: Seen) -> None:
    """A replica that keeps nothing."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stream = channel.stream_stream(
            "/holdfast.v1.Edge/Follow",
            request_serializer=holdfast_pb2.FollowRequest.SerializeToString,
            response_deserializer=holdfast_pb2.FollowResponse.FromString,
        )()
        ranges = [holdfast_pb2.KeyRange(key=PREFIX, range_end=b"/edge0")]
        start = holdfast_pb2.FollowStart(filter=ranges, filter_version=1, replica=f"r{number}", pool="bench")
        await stream.write(holdfast_pb2.FollowRequest(start=start))
        while True:
            response = await stream.read()
            kind = response.WhichOneof("response")
            if kind == "trailer":
                seen.started += 1
            elif kind == "revision":
                seen.note(response.revision.revision)


async def watch(address: str, number: int, seen: Seen) -> None:
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stream = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=rpc_pb2.WatchRequest.SerializeToString,
            response_deserializer=rpc_pb2.WatchResponse.FromString,
        )()
        create = rpc_pb2.WatchCreateRequest(key=PREFIX, range_end=b"/edge0")
        await stream.write(rpc_pb2.WatchRequest(create_request=create))
        while True:
            response = await stream.read()
            if response.created:
                seen.started += 1
            for event in response.events:
                seen.note(event.kv.mod_revision)


def used(endpoints: list[str], pids: list[int]) -> tuple[float, float]:
    """CPU seconds of the members, and bytes that they have sent to clients."""
    ticks, sent = 0, 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    for endpoint in endpoints:
        with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("etcd_network_client_grpc_sent_bytes_total"):
                    sent += float(line.rpartition(" ")[2])
    return ticks / os.sysconf("SC_CLK_TCK"), sent


async def measure(
    endpoints: list[str], pids: list[int], servers: list[str], count: int, chosen: argparse.Namespace, reader: Any
) -> Cost:
    seen = Seen()
    tasks = [asyncio.ensure_future(reader(servers[n % len(servers)], n, seen)) for n in range(count)]
    async with client.connect(endpoints, timeout=20) as hf:
        await hf.put(PREFIX + b"first", b"x")
        async with asyncio.timeout(START_SECONDS):
            while seen.started < count:
                broken = next((task for task in tasks if task.done()), None)
                if broken is not None:
                    broken.result()
                await asyncio.sleep(0.1)
        cpu, sent = used(endpoints, pids)
        acknowledged: dict[int, float] = {}
        began = time.monotonic()
        number = 0
        while (due := began + number / chosen.rate) < began + chosen.seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            put = await hf.put(PREFIX + b"%d" % (number % 100), VALUE)
            acknowledged[put.revision] = time.monotonic()
            number += 1
        after_cpu, after_sent = used(endpoints, pids)
        with contextlib.suppress(TimeoutError):  # what did not arrive is counted below
            async with asyncio.timeout(ARRIVE_SECONDS):
                await seen.all_of(acknowledged, count)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    late = {r: sorted(at - acknowledged[r] for at in ats) for r, ats in seen.arrived.items() if r in acknowledged}
    lost = number * count - sum(map(len, late.values()))
    if lost:
        raise SystemExit(f"{lost} changes did not arrive")
    half = sorted(ats[len(ats) // 2] for ats in late.values())
    most = sorted(ats[len(ats) * 99 // 100] for ats in late.values())
    return Cost(
        (after_cpu - cpu) / number * 1000,
        (after_sent - sent) / number,
        half[len(half) // 2] * 1000,
        most[len(most) // 2] * 1000,
    )


@contextmanager
def relays(directory: Path, endpoints: list[str], count: int) -> Iterator[list[str]]:
    running = []
    for number, port in enumerate(free_ports(count)):
        name = f"relay{number}"
        words = ["edge", f"--name={name}", f"--data-dir={directory / name}", f"--endpoints={','.join(endpoints)}"]
        words += [f"--listen-client-urls=http://127.0.0.1:{port}", f"--prefix={PREFIX.decode()}"]
        process = Process(name, words, directory / f"{name}.log", port)
        process.start()
        running.append(process)
    try:
        yield [process.endpoint for process in running]
    finally:
        for process in running:
            process.stop()


async def ready(endpoints: list[str]) -> None:
    for endpoint in endpoints:
        async with client.connect(endpoint, timeout=30) as at, asyncio.timeout(30):
            while True:
                if (await at.describe()).ready:
                    break
                await asyncio.sleep(0.05)


async def ours(chosen: argparse.Namespace, show: Any) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-edge-", ignore_cleanup_errors=True) as directory,
        cluster(Path(directory) / "members") as local,
    ):
        await local.wait_ready()
        pids = [process.running.pid for process in local.voters.values() if process.running is not None]
        for count in [n for n in chosen.counts if n <= chosen.most_direct]:
            cost = await measure(local.endpoints, pids, local.endpoints, count, chosen, follow)
            show("holdfast, directly", count, cost)
        with relays(Path(directory), local.endpoints, chosen.relays) as found:
            await ready(found)
            costs: dict[int, list[Cost]] = {count: [] for count in chosen.counts}
            for _ in range(chosen.rounds):  # in turns, because the speed of a machine changes
                for count in chosen.counts:
                    costs[count].append(await measure(local.endpoints, pids, found, count, chosen, follow))
            for count, of in costs.items():
                show(f"holdfast, behind {chosen.relays} relays", count, Cost.median(of))


async def etcd(chosen: argparse.Namespace, show: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="holdfast-edge-", ignore_cleanup_errors=True) as directory:
        others = EtcdCluster(Path(directory))
        others.start()
        try:
            others.wait_ready()
            pids = [process.pid for process in others.running.values()]
            for count in chosen.counts:
                cost = await measure(others.endpoints, pids, others.endpoints, count, chosen, watch)
                show("etcd, watches", count, cost)
        finally:
            for endpoint in list(others.running):
                others.kill(endpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load")
    parser.add_argument("--rate", type=float, default=10.0, help="puts of 256 bytes a second")
    parser.add_argument("--counts", type=lambda text: [int(n) for n in text.split(",")], default=[10, 100, 1000])
    parser.add_argument("--most-direct", type=int, default=1000, help="followers of members")
    parser.add_argument("--relays", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="behind relays; their medians are shown")
    chosen = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1 << 16, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    table = Table("", "replicas", "CPU ms/put", "kB/put", "half have it, ms", "99 % have it, ms")

    def show(what: str, count: int, cost: Cost) -> None:
        shown = (f"{cost.cpu_ms:.2f}", f"{cost.bytes / 1000:.1f}", f"{cost.p50_ms:.1f}", f"{cost.p99_ms:.1f}")
        table.add_row(what, str(count), *shown)
        print(what, count, *shown, flush=True)

    asyncio.run(ours(chosen, show))
    asyncio.run(etcd(chosen, show))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
