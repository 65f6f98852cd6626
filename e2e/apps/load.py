"""Writes at a steady rate for some time, then says how many writes were acknowledged."""

import asyncio
import json
import sys
import time

from holdfast import client

CLIENTS = 50
KEYS = 1000


async def main(endpoint: str, rate: float, seconds: float) -> None:
    acknowledged = failed = 0
    async with client.connect(endpoint, timeout=30.0, cache_dir="/cache") as hf:
        began = time.monotonic()

        async def write(first: int) -> None:
            nonlocal acknowledged, failed
            number = first
            while (due := began + number / rate) < began + seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if time.monotonic() > began + seconds:
                    return  # it is slower than the rate
                try:
                    await hf.put(f"/e2e/load/{number % KEYS:04d}", str(number))
                    acknowledged += 1
                except client.ClientError:
                    failed += 1
                number += CLIENTS

        await asyncio.gather(*(write(n) for n in range(CLIENTS)))
        took = time.monotonic() - began
    print(json.dumps({"acknowledged": acknowledged, "failed": failed, "seconds": round(took, 1)}), flush=True)
    await asyncio.Event().wait()  # the pod stays until it is deleted


asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
