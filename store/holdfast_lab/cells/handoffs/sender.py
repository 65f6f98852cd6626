"""One process that sends messages: ENDPOINTS SENDER COUNT. It is killed at any moment, and goes on where it stopped.

How far it came is written by the same transactions that send, so a batch whose answer was lost is not sent again.
"""

from __future__ import annotations

import asyncio
import json
import sys

from holdfast.cells import Cells, Queue, QueueFull
from holdfast.client import Client, ClientError
from holdfast.client.txn import Compare, Ops

from holdfast_lab.cells.clusters import reach
from holdfast_lab.cells.handoffs.wire import DESTINATION, LANES, SOURCE, message, sent_key

TIMEOUT_SECONDS = 10.0
PAUSE_SECONDS = 0.1


async def send(them: Cells, sender: int, count: int) -> None:
    queue, key = them.queue(SOURCE, DESTINATION), sent_key(sender)
    sent = -1  # not known
    while sent < count:
        try:
            if sent < 0:
                found = await them.client(SOURCE).get(key)
                sent = 0 if found is None else int(found.value)
            elif await _batch(queue, sender, sent, last := min(sent + LANES, count)):
                sent = last
            else:
                sent = -1
        except QueueFull:
            await asyncio.sleep(PAUSE_SECONDS)
        except ClientError:
            sent = -1


async def _batch(queue: Queue, sender: int, sent: int, last: int) -> bool:
    """Send what follows the message `sent`, up to `last`. False: `sent` was not the last one."""
    messages = [message(sender, number) for number in range(sent + 1, last + 1)]
    done = await queue.send(*messages, if_=[_unchanged(sender, sent)], then=[Ops.put(sent_key(sender), str(last))])
    return done is not None


def _unchanged(sender: int, sent: int) -> Compare:
    key = Client.key(sent_key(sender))
    return key.value == str(sent) if sent else key.version == 0


async def main(endpoints: dict[str, list[str]], sender: int, count: int) -> None:
    async with reach(endpoints, TIMEOUT_SECONDS) as them:
        await send(them, sender, count)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
