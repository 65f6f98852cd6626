"""One process that replicates along the chain: ENDPOINTS PREFIX. It is killed at any moment."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys

from holdfast_lab.cells.clusters import reach

TIMEOUT_SECONDS = 10.0


async def main(endpoints: dict[str, list[str]], prefix: str) -> None:
    async with reach(endpoints, TIMEOUT_SECONDS) as them, asyncio.TaskGroup() as group:
        for source, destination in itertools.pairwise(endpoints):
            group.create_task(them.replication(source, destination, prefix).run())


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), sys.argv[2]))
