"""A work queue: `work_queue.py put TEXT…` puts items in, `work_queue.py work` works on them, in many processes.

    HOLDFAST_ENDPOINTS=127.0.0.1:2379 python store/examples/work_queue.py put one two three
    HOLDFAST_ENDPOINTS=127.0.0.1:2379 python store/examples/work_queue.py work

An item whose worker is lost goes to another worker, so an item may be worked on twice. What must not happen twice is
written here together with the compare of the item's token: only the worker that has the item now can do it.
"""

from __future__ import annotations

import os
import sys

from holdfast import client
from holdfast.recipes import blocking

QUEUE, DONE = "/work/queue", "/work/done/"


def put(hf: client.BlockingClient, texts: list[str]) -> None:
    with blocking.session(hf) as session:
        queue = blocking.Queue(session, QUEUE, bound=1000)
        for text in texts:
            queue.put(text, timeout=60)


def work(hf: client.BlockingClient) -> None:
    with blocking.session(hf) as session:
        queue = blocking.Queue(session, QUEUE, bound=1000)
        while True:
            item = queue.get()
            if item is None:
                continue
            result = item.value.decode().upper()  # the work
            done = hf.txn().if_(item.token.held()).then(hf.op.put(DONE + item.value.decode(), result)).commit()
            if done.succeeded:
                print(result, flush=True)
                item.done()


def main() -> None:
    with client.connect_blocking(os.environ["HOLDFAST_ENDPOINTS"]) as hf:
        if sys.argv[1] == "put":
            put(hf, sys.argv[2:])
        else:
            work(hf)


if __name__ == "__main__":
    main()
