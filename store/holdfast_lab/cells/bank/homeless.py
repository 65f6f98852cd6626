"""How long the keys of a transaction cannot be written whose coordinator is killed, and then the cell beside it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

from holdfast.cells import Cells, part_wire
from holdfast.client import ClientError
from holdfast.client.txn import Ops
from rich.console import Console
from rich.table import Table

from holdfast_lab.cells.bank.steps import STEPS
from holdfast_lab.cells.bank.stopped import STOPPED
from holdfast_lab.cells.clusters import READY_SECONDS, Clusters, reach
from holdfast_lab.cells.programs import Program
from holdfast_lab.sim.violation import check

COORDINATOR = "holdfast_lab.cells.bank.stopped"
TIMEOUT_SECONDS = 10.0
MOST_SECONDS = 3.0


async def stop_at_each_step(
    directory: Path, cells: int, voters: int, steps: Sequence[int] = range(len(STEPS)), most: float = MOST_SECONDS
) -> None:
    """Raises Violation if others wait for longer than `most` seconds, or if a transaction is not whole."""
    clusters = Clusters(directory, cells, voters)
    table = Table("the coordinator stopped when", "others could write after", "made", box=None)
    try:
        await clusters.start()
        waits = {}
        for number in steps:
            waits[STEPS[number].what] = took = await _stop_at(clusters, number)
            table.add_row(STEPS[number].what, f"{took:.2f} s", "yes" if STEPS[number].made else "no")
    finally:
        clusters.kill()
        Console(width=120).print(table)
    for what, took in waits.items():
        check(took < most, "B5", f"others could write {took:.1f} s after the coordinator was killed when {what}")


async def _stop_at(clusters: Clusters, number: int) -> float:
    """The seconds from the kill of the coordinator until another one has written its keys where cells are left."""
    key, home, others = f"/steps/{number}", clusters.names[0], clusters.names[1:]
    stopped = asyncio.Event()
    words = [json.dumps(clusters.endpoints), str(number), key]
    coordinator = Program(COORDINATOR, lambda _: words, lambda line: stopped.set() if line == STOPPED else None)
    running = asyncio.ensure_future(coordinator.run())
    try:
        async with reach(clusters.endpoints, TIMEOUT_SECONDS) as them:
            await _warm(them, clusters.names)
            async with asyncio.timeout(READY_SECONDS):
                await stopped.wait()
            coordinator.stop()
            clusters.cells[home].kill()
            took = await _write(them, others, key)
            clusters.cells[home].start()
            await clusters.wait_ready()
            await _whole(them, clusters.names, key, made=STEPS[number].made)
            return took
    finally:
        coordinator.stop()
        await running


async def _warm(them: Cells, cells: list[str]) -> None:
    """A transaction of other keys: connections and sessions are there, as in a program that has run for a while."""
    txn = them.txn()
    for cell in cells:
        txn.at(cell).then(Ops.put("/steps/warm", "x"))
    await txn.commit()


async def _write(them: Cells, cells: list[str], key: str) -> float:
    began = time.monotonic()
    while True:
        txn = them.txn()
        for cell in cells:
            txn.at(cell).then(Ops.put(key, "written"))
        try:
            if (await txn.commit()).succeeded:
                return time.monotonic() - began
        except ClientError as error:
            print(f"{key} after {time.monotonic() - began:.1f} s: {error}", flush=True)


async def _whole(them: Cells, cells: list[str], key: str, *, made: bool) -> None:
    """Home is back: what is open there is resolved as elsewhere. The other cells have one version more, that of whoever
    wrote after the coordinator."""
    home, *others = cells
    for kv in (await them.client(home).range(part_wire.INTENTS, prefix=True)).kvs:
        await them.resolve(home, kv.value.decode())
    for cell in cells:
        found = await them.client(cell).get(key)
        version = 0 if found is None else found.version
        wanted = int(made) + (cell in others)
        check(version == wanted, "B2", f"{cell} has version {version} of {key}, and not {wanted}")
