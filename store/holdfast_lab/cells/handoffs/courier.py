"""One process that brings messages to their destination: ENDPOINTS. It is killed at any moment."""

from __future__ import annotations

import asyncio
import json
import sys

from holdfast_lab.cells.clusters import reach
from holdfast_lab.cells.handoffs.wire import DESTINATION, SOURCE

TIMEOUT_SECONDS = 10.0


async def main(endpoints: dict[str, list[str]]) -> None:
    async with reach(endpoints, TIMEOUT_SECONDS) as them:
        await them.queue(SOURCE, DESTINATION).run()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
