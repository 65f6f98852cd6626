"""Writes numbered keys to the cluster without pause; says which were acknowledged and how long it had to wait."""

import asyncio
import json
import sys
import time

from holdfast import client


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def main(endpoint: str, name: str) -> None:
    async with client.connect(endpoint, timeout=30.0, cache_dir="/cache") as hf:
        number, last = 0, time.monotonic()
        while True:
            number += 1
            key = f"/e2e/{name}/{number:06d}"
            try:
                put = await hf.put(key, str(number))
            except client.OutcomeUnknown as error:
                say(unknown=key, why=str(error))
                continue
            except client.ClientError as error:
                say(failed=key, why=str(error))
                continue
            now = time.monotonic()
            say(acknowledged=key, revision=put.revision, gap=round(now - last, 3))
            last = now
            await asyncio.sleep(0.02)


asyncio.run(main(sys.argv[1], sys.argv[2]))
