"""The load program of etcd-sdk-python (`import pyetcd`), in an environment of its own. See `protocol.py`.

The library stays at one address until a call fails there, and does not repeat the call. So a client of it has its own
address of the three, chosen at random. A watch that ended by an error is made again here, as its users have to.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from typing import Any

import grpc
import pyetcd
from protocol import LINGER_SECONDS, READ, WATCHED, Options, Recorded, parse

THREADS = 64
KEEP_ALIVE = [  # the same as holdfast's client
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.enable_http_proxy", 0),
]


def connect(options: Options) -> Any:
    places = [endpoint.rsplit(":", 1) for endpoint in options.endpoints]
    endpoints = [pyetcd.Endpoint(host, int(port), secure=False, opts=KEEP_ALIVE) for host, port in places]
    return pyetcd.MultiEndpointEtcd3Client(endpoints, timeout=options.timeout, failover=True)


def watch(hf: Any, events: list[tuple[str, float]], watching: threading.Semaphore) -> None:
    following = None
    told = False
    while True:
        try:
            changes, _ = hf.watch(WATCHED, **({"start_revision": following} if following else {}))
            if not told:
                watching.release()
                told = True
            for event in changes:
                events.append((event.value.decode(), time.time()))
                following = event.mod_revision + 1
        except (pyetcd.Etcd3Exception, grpc.RpcError, AttributeError):  # the last: it was given an error as an event
            time.sleep(0.2)


def main() -> None:
    options, found = parse(), Recorded()
    readers = [connect(options) for _ in range(options.clients)]
    watchers = [connect(options) for _ in range(options.watches)]
    found.watches = [[] for _ in watchers]
    watching = threading.Semaphore(0)
    for hf, events in zip(watchers, found.watches, strict=True):
        threading.Thread(target=watch, args=(hf, events, watching), daemon=True).start()
    for hf in readers:
        hf.get(READ)
    for _ in watchers:
        watching.acquire()
    due_reads: queue.SimpleQueue[tuple[Any, float] | None] = queue.SimpleQueue()

    def work() -> None:
        while (one := due_reads.get()) is not None:
            hf, due = one
            found.late = max(found.late, time.time() - due)
            try:
                hf.get(READ, serializable=options.serializable)
            except (pyetcd.Etcd3Exception, grpc.RpcError) as error:
                found.failures.append((due, type(error).__name__))
            else:
                found.reads.append((due, time.time() - due))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    began, turns, used = time.time(), itertools.cycle(readers), time.process_time()
    for number in range(int(options.rate * options.seconds)):
        due = began + number / options.rate
        time.sleep(max(0.0, due - time.time()))
        due_reads.put((next(turns), due))
    for _ in threads:
        due_reads.put(None)
    for thread in threads:
        thread.join()
    found.cpu = time.process_time() - used
    if watchers:
        time.sleep(LINGER_SECONDS)
    print(found.text(), flush=True)


if __name__ == "__main__":
    main()
