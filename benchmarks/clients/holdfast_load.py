"""The load program of holdfast's asyncio client. See `protocol.py`."""

from __future__ import annotations

import asyncio
import itertools
import time

from holdfast import client
from holdfast.client.client import Client
from protocol import LINGER_SECONDS, READ, WATCHED, Options, Recorded, parse


async def read(hf: Client, due: float, options: Options, found: Recorded) -> None:
    found.late = max(found.late, time.time() - due)
    try:
        await hf.get(READ, serializable=options.serializable)
    except client.ClientError as error:
        found.failures.append((due, f"{type(error).__name__}: {error}"))
    else:
        found.reads.append((due, time.time() - due))


async def watch(hf: Client, events: list[tuple[str, float]]) -> None:
    async for event in hf.watch(WATCHED):
        events.append((event.kv.value.decode(), time.time()))  # noqa: PERF401 - each at its time


async def main() -> None:
    options, found = parse(), Recorded()
    readers = [
        client.connect(options.endpoints, timeout=options.timeout, hedge=options.hedge) for _ in range(options.clients)
    ]
    watchers = [client.connect(options.endpoints, timeout=options.timeout) for _ in range(options.watches)]
    found.watches = [[] for _ in watchers]
    watching = [asyncio.ensure_future(watch(hf, e)) for hf, e in zip(watchers, found.watches, strict=True)]
    for hf in readers:
        await hf.get(READ)
    while not all(any(a.streams for a in hf.metrics().values()) for hf in watchers):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    warmed = sum(a.calls for hf in readers for a in hf.metrics().values())
    print("ready", flush=True)
    reading = []
    began, turns, used = time.time(), itertools.cycle(readers), time.process_time()
    for number in range(int(options.rate * options.seconds)):
        due = began + number / options.rate
        wait = due - time.time()
        if wait > 0:
            await asyncio.sleep(wait)
        elif number % 16 == 0:
            await asyncio.sleep(0)  # it is late: let answers be taken meanwhile
        reading.append(asyncio.ensure_future(read(next(turns), due, options, found)))
    await asyncio.gather(*reading)
    found.cpu = time.process_time() - used
    found.attempts = sum(a.calls for hf in readers for a in hf.metrics().values()) - warmed
    if watchers:
        await asyncio.sleep(LINGER_SECONDS)
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    print(found.text(), flush=True)
    await asyncio.gather(*(hf.close() for hf in readers + watchers))


if __name__ == "__main__":
    asyncio.run(main())
