"""On an edge node: reads a key from the node's own replica all the time, and watches its prefix."""

import asyncio
import json
import sys
from pathlib import Path

from holdfast import client

SEEN = Path("/cache/seen")  # the last revision that was told; survives a restart of the container


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def read(hf: client.Client, key: str) -> None:
    while True:
        try:
            found = await hf.range(key, serializable=True)
            value = found.kvs[0].value.decode() if found.kvs else None
            say(read=value, revision=found.revision)
        except client.ClientError as error:
            say(error=str(error))
        await asyncio.sleep(0.5)


async def watch(hf: client.Client, key: str) -> None:
    prefix = key.rpartition("/")[0] + "/"
    start = int(SEEN.read_text()) + 1 if SEEN.exists() else 1
    if not SEEN.exists():
        start = (await hf.range(key, serializable=True)).revision + 1
    async for event in hf.watch(prefix, prefix=True, start_revision=start):
        say(event=event.kv.key.decode(), value=event.kv.value.decode(), revision=event.kv.mod_revision)
        SEEN.write_text(str(event.kv.mod_revision))


async def main(endpoint: str, key: str) -> None:
    say(started=True)
    async with client.connect(endpoint, timeout=5.0, cache_dir="/cache") as hf:
        await asyncio.gather(read(hf, key), watch(hf, key))


asyncio.run(main(sys.argv[1], sys.argv[2]))
