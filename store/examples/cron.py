"""A job that one of several processes does, once in each period: the others take over when it is lost.

    HOLDFAST_ENDPOINTS=127.0.0.1:2379 python store/examples/cron.py HOST-NAME [SECONDS]

Who leads does the job. A leader may be frozen in the middle of it and go on when another one leads, so what the job
writes carries the token: the store refuses it if this process leads no more. The number of the period makes sure that
no period is done twice, whoever leads.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from holdfast import client, recipes

LAST = "/jobs/report/last"


async def do_job(hf: client.Client, token: recipes.Token, period: int, name: str) -> None:
    done = await hf.get(LAST)
    if done is not None and int(done.value) >= period:
        return
    print(f"{name}: report of period {period}", flush=True)  # the work
    written = await hf.txn().if_(token.held()).then(hf.op.put(LAST, str(period))).commit()
    if not written.succeeded:
        raise recipes.SessionLost("another one leads")


async def lead(hf: client.Client, name: str, seconds: float) -> None:
    async with recipes.session(hf, ttl=10) as session:
        election = recipes.Election(session, "/jobs/report/leader")
        await election.campaign(name)
        async with session.guard():  # ends with SessionLost as soon as another one may lead
            print(f"{name}: leads", flush=True)
            while True:
                await do_job(hf, election.token, int(time.time() / seconds), name)
                await asyncio.sleep(seconds / 10)


async def main() -> None:
    name, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    async with client.connect(os.environ["HOLDFAST_ENDPOINTS"]) as hf:
        while True:
            try:
                await lead(hf, name, seconds)
            except client.ClientError as error:
                print(f"{name}: leads no more: {error}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
