"""Forks of the process: gRPC's threads are not there in the child, and without them gRPC waits for ever.

So blocking clients hang up before a fork, which ends gRPC's threads, and go on after it: in the parent over new
connections, in the child as clients of its own. An asyncio client cannot do that, because the fork holds up its loop.
If gRPC is still in use when the process forks, it cannot be used in the child, and is not: each call raises Forked.
Processes that are started otherwise, such as by `subprocess` or multiprocessing's "spawn", are not concerned.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - it registers for forks, too, which must not happen during one
import contextlib
import gc
import itertools
import os
import threading
import time
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

# gRPC's core tries to go on in the child, and with asyncio channels sometimes crashes it. Its part for Python does not
# try unless it is told to; this is for both, and is read when gRPC is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

from holdfast.client.errors import ClientError

HANG_UP_SECONDS = 5.0  # for one fork, at most: it takes milliseconds, but not on a machine without a free processor
_POLLER = "_poll_wrapper"  # the target, and so part of the name, of the thread that waits for events of asyncio calls
_CORE = ("grpc_", "event_engine", "lifeguard")  # the names of gRPC's other threads, as far as the kernel keeps them


class Forked(ClientError):
    """The client, or something made by it, belongs to the process that this one was forked from."""


class Hangs(Protocol):
    def hang_up(self, seconds: float) -> None:
        """Close all connections, and open none until `go_on`. Does not take longer than that, and raises nothing."""

    def go_on(self) -> None: ...

    def forked(self) -> None:
        """In the child: drop what threads of the parent may hold."""


class Connects(Protocol):
    hangs_up: bool  # it is that of a client that can

    @property
    def open(self) -> bool:
        """Whether there are channels."""


generation = 0  # of processes: how often this one's ancestors were forked
_used = False  # gRPC was in use just before the newest fork
_dead = False  # it was when this process was forked off
_clients: WeakSet[Hangs] = WeakSet()
_connections: WeakSet[Connects] = WeakSet()
_registering = threading.Lock()
_forking = threading.Lock()  # from before a fork until after it: else another one could begin with connections open


def register(client: Hangs) -> None:
    with _registering:
        _clients.add(client)


def connected(connection: Connects) -> None:
    with _registering:
        _connections.add(connection)


def check(of: int) -> None:
    """`of`: the generation that something was made in. Raises Forked if this is another one, or gRPC does not work."""
    if of != generation:
        raise Forked(f"this was made before the process was forked (it is {os.getpid()} now): make it after the fork")
    if _dead:
        raise Forked(
            "gRPC was in use in the process that this one was forked from, so it does not work here: close asyncio "
            'clients before a fork, or start processes by "spawn"'
        )


def in_use() -> bool:
    """Whether gRPC has threads, for channels of this package or others."""
    if any(_POLLER in thread.name for thread in threading.enumerate()):
        return True
    for name in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # that thread has ended
            if name.read_text().startswith(_CORE):
                return True
    return False


def _before() -> None:
    global _used  # noqa: PLW0603
    _forking.acquire()
    with _registering:
        clients, others = list(_clients), any(c.open and not c.hangs_up for c in _connections)
    if not others:
        end = time.monotonic() + HANG_UP_SECONDS
        for client in clients:
            client.hang_up(max(0.0, end - time.monotonic()))
        _wait_until_unused(end if clients else 0.0)
    _used = in_use()


def _wait_until_unused(end: float) -> None:
    """gRPC's threads end with the last of its objects: those who hold one notice that it was closed, others are part of
    cycles."""
    for turn in itertools.count():
        if not in_use():
            return
        if turn % 20 == 10 or not end:
            gc.collect()
        if time.monotonic() >= end:
            return
        time.sleep(0.001)


def _after_in_parent() -> None:
    for client in list(_clients):
        client.go_on()
    _forking.release()


def _after_in_child() -> None:
    global generation, _dead, _forking, _registering  # noqa: PLW0603 - it is another process now
    generation += 1
    _dead = _dead or _used
    _forking, _registering = threading.Lock(), threading.Lock()
    for client in list(_clients):
        client.forked()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
