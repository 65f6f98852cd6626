"""One process that ends what coordinators have left and removes what is over: ENDPOINTS. It is killed at any moment."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

from holdfast_lab.cells.clusters import reach

TIMEOUT_SECONDS = 5.0


async def main(endpoints: dict[str, list[str]]) -> None:
    logging.getLogger("holdfast.cells").setLevel(logging.ERROR)  # it warns while a cell is away
    async with reach(endpoints, TIMEOUT_SECONDS) as them:
        await them.janitor().run()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
