"""How long a durable append takes while the loop is busy, by the interpreter's switch interval (docs/decisions/0004).

.venv/bin/python benchmarks/append_latency.py
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from holdfast.raft.log import Entry
from holdfast.raft.types import DurableAppend, HardState
from holdfast.storage.log import DurableLog
from holdfast.storage.writer import LogWriter

APPENDS = 100
GIVE_UP_SECONDS = 20.0


async def measure(directory: Path, interval: float) -> list[float]:
    """Seconds from handing a record over to seeing it durable, with the loop never idle."""
    sys.setswitchinterval(interval)
    log = DurableLog(directory)
    log.create()
    writer = LogWriter(log)
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(writer.fileno(), lambda: (writer.completed(), done.set()))
    busy = True

    def work() -> None:
        until = time.perf_counter() + 0.0005
        while time.perf_counter() < until:
            pass
        if busy:
            loop.call_soon(work)

    loop.call_soon(work)
    took: list[float] = []
    began = time.perf_counter()
    for n in range(1, APPENDS + 1):
        done.clear()
        start = time.perf_counter()
        writer.submit(DurableAppend(n, HardState(term=1), 0, (Entry(n, 1, b"x" * 200),)))
        await done.wait()
        took.append(time.perf_counter() - start)
        if time.perf_counter() - began > GIVE_UP_SECONDS:
            break
    busy = False
    loop.remove_reader(writer.fileno())
    await loop.run_in_executor(None, writer.close)
    return took


def main() -> None:
    print("durable append while the loop is busy:")
    for interval in (5e-3, 1e-4):
        with tempfile.TemporaryDirectory() as directory:
            took = uvloop.run(measure(Path(directory), interval))
        median, worst = statistics.median(took) * 1000, max(took) * 1000
        name = f"switch interval {interval * 1000:g} ms"
        print(f"  {name}: median {median:.1f} ms, worst {worst:.1f} ms of {len(took)} appends")


if __name__ == "__main__":
    main()
