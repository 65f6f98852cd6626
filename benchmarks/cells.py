"""Registers, transactions and queues of three cells, beside the round trips to the cells that theory needs.

    make bench-cells           (about five minutes)
    python benchmarks/cells.py [--samples 200] [--round-trip 50] [--voters 3]

The program reaches the members of all cells directly, and then each through a proxy that holds up what passes for half
of `--round-trip` each way. It does one thing after the other, so these are latencies of cells with nothing else to do.
A hand-off is measured from the call of `send` until a watch without a delay sees at the destination what the message
does; a courier of the program delivers. In theory it takes half a round trip to the source, one to read it there, and
half a one to the destination. Nothing here asserts.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clients.figures import percentile
from clients.servers import far
from holdfast.cells import Cells, Message
from holdfast.client.txn import Ops
from holdfast_lab.cells.clusters import Clusters, reach
from rich.console import Console
from rich.table import Table

TIMEOUT_SECONDS = 30.0
WARM = 5  # calls that are not counted: connections, sessions
BATCH, BATCHES = 100, 20
Call = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class Row:
    what: str
    trips: float  # in theory
    took: list[float]  # ms, sorted


@contextmanager
def endpoints(clusters: Clusters, milliseconds: float) -> Iterator[dict[str, list[str]]]:
    """Where the members are, or where they are so far away that a round trip takes so much longer."""
    with ExitStack() as proxies:
        yield {
            name: [
                proxies.enter_context(far(process, milliseconds / 2)) if milliseconds else process.endpoint
                for process in cluster.voters.values()
            ]
            for name, cluster in clusters.cells.items()
        }


async def measure(what: str, trips: float, samples: int, call: Call) -> Row:
    took = []
    for number in range(WARM + samples):
        began = time.perf_counter()
        await call(number)
        took.append((time.perf_counter() - began) * 1000)
    return Row(what, trips, sorted(took[WARM:]))


async def registers(them: Cells, samples: int) -> list[Row]:
    register = them.register("bench")

    async def change(number: int) -> None:
        await register.change(lambda _: str(number))

    async def read(_: int) -> None:
        await register.read()

    return [
        await measure("change a register", 2, samples, change),
        await measure("read a register", 1, samples, read),
    ]


async def transactions(them: Cells, samples: int) -> list[Row]:
    async def commit(number: int) -> None:
        key, value = f"/bench/{number % 100}", str(number)
        await them.txn().at("eu").then(Ops.put(key, value)).at("us").then(Ops.put(key, value)).commit()

    return [await measure("transaction of two cells", 4, samples, commit)]


async def handoffs(them: Cells, near: Cells, samples: int) -> list[Row]:
    """`near`: clients without a delay."""
    queue, key = them.queue("eu", "us"), "/bench/handed"
    first = (await near.client("us").put(key, "")).revision + 1
    changes = near.client("us").watch(key, start_revision=first)
    courier = asyncio.ensure_future(queue.run())
    sending: set[asyncio.Future[int | None]] = set()

    async def send(number: int) -> None:
        await queue.send(Message([Ops.put("/bench/sent", str(number))]))

    async def hand_off(number: int) -> None:
        sending.add(asyncio.ensure_future(queue.send(Message([Ops.put(key, str(number))]))))
        while (await anext(changes)).kv.value != str(number).encode():
            pass

    try:
        sent = await measure("send a message", 1, samples, send)
        await all_delivered(near)
        return [sent, await measure("hand-off, until it is carried out", 2, samples, hand_off)]
    finally:
        courier.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


async def all_delivered(near: Cells) -> None:
    queue = near.queue("eu", "us")
    while (await queue.lag()).waiting:
        await queue.deliver()


async def rate(them: Cells, near: Cells) -> float:
    """Messages a second that one courier delivers, of which enough wait."""
    await all_delivered(near)
    for _ in range(BATCHES):
        await near.queue("eu", "us").send(*(Message([Ops.put(f"/bench/rate/{n}", "x")]) for n in range(BATCH)))
    queue, began, left = them.queue("eu", "us"), time.perf_counter(), BATCH * BATCHES
    while left > 0:
        left -= await queue.deliver()
    return BATCH * BATCHES / (time.perf_counter() - began)


async def bench(clusters: Clusters, samples: int, round_trips: list[float]) -> dict[float, tuple[list[Row], float]]:
    found = {}
    await clusters.start()
    for milliseconds in round_trips:
        with endpoints(clusters, milliseconds) as where:
            async with reach(where, TIMEOUT_SECONDS) as them, reach(clusters.endpoints, TIMEOUT_SECONDS) as near:
                rows = [*await registers(them, samples), *await transactions(them, samples)]
                rows += await handoffs(them, near, samples)
                found[milliseconds] = rows, await rate(them, near)
    return found


def show(console: Console, found: dict[float, tuple[list[Row], float]]) -> None:
    table = Table("", "added ms", "p50 ms", "p99 ms", "round trips", "theory ms", "p50 beyond it", box=None)
    for rows in itertools.zip_longest(*(rows for rows, _ in found.values())):
        for milliseconds, row in zip(found, rows, strict=True):
            p50, p99 = percentile(row.took, 0.5), percentile(row.took, 0.99)
            theory = row.trips * milliseconds
            figures = (f"{p50:.1f}", f"{p99:.1f}", f"{row.trips:g}", f"{theory:g}", f"{p50 - theory:.1f}")
            table.add_row(row.what, f"{milliseconds:g}", *figures)
    console.print(table)
    for milliseconds, (_, messages) in found.items():
        console.print(f"one courier, {milliseconds:g} ms added: {messages:,.0f} messages/s, sent {BATCH} at a time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200, help="calls of each kind")
    parser.add_argument("--round-trip", type=float, default=50.0, help="milliseconds that the proxies add to one")
    parser.add_argument("--voters", type=int, default=3, help="of each cell")
    chosen = parser.parse_args()
    before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="holdfast-cells-", ignore_cleanup_errors=True) as directory:
        clusters = Clusters(Path(directory), 3, chosen.voters)
        try:
            found = asyncio.run(bench(clusters, chosen.samples, [0.0, chosen.round_trip]))
        finally:
            clusters.kill()
    console = Console(width=120)
    console.print(
        f"three cells of {chosen.voters} voters, {chosen.samples} calls of each kind, one after the other; "
        f"{os.cpu_count()} cores, load average {before[0]:.1f} before, {os.getloadavg()[0]:.1f} after\n"
    )
    show(console, found)


if __name__ == "__main__":
    main()
