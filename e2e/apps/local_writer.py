"""On an edge node: writes numbered keys of its site without pause, and says which were acknowledged."""

import asyncio
import json
import sys

from holdfast import client


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def main(endpoint: str, site: str) -> None:
    async with client.connect(endpoint, timeout=5.0, cache_dir="/cache") as hf:
        view, number = hf.site(site), 0
        while True:
            number += 1
            key = f"/written/{number:06d}"
            try:
                await view.put(key, str(number))
            except client.ClientError as error:
                say(failed=key, why=str(error))
            else:
                say(acknowledged=key)
            await asyncio.sleep(0.1)


asyncio.run(main(sys.argv[1], sys.argv[2]))
