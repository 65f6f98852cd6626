"""The client without `await`: its event loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import threading
import time
from asyncio import Task  # where `asyncio` is the client
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from holdfast.client import forks
from holdfast.client.blocking_cache import BlockingCache, BlockingConfig, Made
from holdfast.client.blocking_site import BlockingSite
from holdfast.client.cache import FIRST_SECONDS
from holdfast.client.client import Client, connect
from holdfast.client.connection import Tls
from holdfast.client.delegated import iterates, waits_for
from holdfast.client.errors import Unavailable
from holdfast.client.lease import Lease
from holdfast.client.picker import Address, Policy
from holdfast.client.position import Position
from holdfast.client.txn import Key, Ops, Txn, TxnResult
from holdfast.client.values import Event
from holdfast.proto import rpc_pb2

T = TypeVar("T")
INTERRUPTED_SECONDS = 2.0  # for what a call that was interrupted has to give up
LATE_SECONDS = 1.0  # for events of gRPC after a client was closed


def connect_blocking(
    endpoints: str | list[str],
    *,
    tls: Tls | None = None,
    timeout: float = 10.0,
    cache_dir: str | Path | None = None,
    session_ttl: int = 60,
    user: str = "",
    password: str = "",
    pick: Policy = "p2c",
    zone: str = "",
    zones: Mapping[str, str] | None = None,
    hedge: bool = True,
    monotonic: bool = False,
) -> BlockingClient:
    """See `connect`."""

    async def connected() -> Client:
        return connect(
            endpoints,
            tls=tls,
            timeout=timeout,
            cache_dir=cache_dir,
            session_ttl=session_ttl,
            user=user,
            password=password,
            pick=pick,
            zone=zone,
            zones=zones,
            hedge=hedge,
            monotonic=monotonic,
        )

    return BlockingClient(connected)


class BlockingClient:
    """The blocking client. Thread-safe. In a process that was forked off it is a client of its own: it connects anew
    when it is first used there, and closing it leaves alone what the parent has.

    It has all of `Client` but `connection`, which belongs to the client's loop."""

    op = Ops()
    key = staticmethod(Key)

    def __init__(self, connected: Callable[[], Coroutine[Any, Any, Client]]) -> None:
        """`connected` creates the client; it runs on the client's loop."""
        self._connected = connected
        self._closed = False
        self._lock = threading.RLock()
        self._past: list[object] = []  # of the processes before: to end it here would disturb them
        self._begin()
        forks.register(self)

    def _begin(self) -> None:
        forks.check(forks.generation)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="holdfast-client", daemon=True)
        self._thread.start()
        self._made: Client = self.run(self._connected())
        self._made.connection.hangs_up = True
        self._generation = forks.generation  # last: other threads wait until then

    @property
    def asyncio(self) -> Client:
        """The asyncio client of this process, which belongs to a loop of its own. Raises a ClientError."""
        if self._closed:
            raise Unavailable("this client is closed")
        if self._generation != forks.generation:
            with self._lock:
                if self._generation != forks.generation:
                    self._begin()
        return self._made

    @property
    def running(self) -> bool:
        """Whether the client's loop runs: else nothing can be closed by it any more."""
        return self._loop.is_running()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that uses `asyncio`, on the client's loop. It is cancelled if this call is
        interrupted (KeyboardInterrupt, an exception of a signal's handler): else it would take a lock for nobody."""
        tasks: list[asyncio.Task[Any]] = []

        async def working() -> T:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            return await work

        future = asyncio.run_coroutine_threadsafe(working(), self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                self._interrupt(future, tasks)
            raise

    def _interrupt(self, future: concurrent.futures.Future[Any], tasks: list[Task[Any]]) -> None:
        """Cancel a call, and wait a little until it has given up what it had."""

        async def ended() -> None:
            await asyncio.wait(tasks)

        future.cancel()
        if tasks:
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(ended(), self._loop).result(INTERRUPTED_SECONDS)

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._generation != forks.generation:  # it was not used in this process
            return
        self.run(_close(self._made))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        _retire(self._loop)

    # ---- forks, see forks.py -------------------------------------------------------------------------------

    def hang_up(self, seconds: float) -> None:
        if self._closed or self._generation != forks.generation or threading.current_thread() is self._thread:
            return
        hanging = asyncio.run_coroutine_threadsafe(self._made.connection.hang_up(), self._loop)
        with contextlib.suppress(Exception):  # whatever it is, the fork then finds gRPC in use
            hanging.result(seconds)

    def go_on(self) -> None:
        if not self._closed and self._generation == forks.generation:
            self._loop.call_soon_threadsafe(self._made.connection.go_on)

    def forked(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # they go on in the parent
        self._past.append((self._loop, self._thread, self._made))
        self._lock = threading.RLock()

    def here(self, made: Made[Any]) -> None:
        connection = self.asyncio.connection
        with self._lock:
            if made.generation != forks.generation:
                self._past.append(made.followed)
                made.followed = self.run(made.followed.again(connection))
                made.generation = forks.generation

    # ---- calls ---------------------------------------------------------------------------------------------

    # Keys.
    get = waits_for(Client.get)
    range = waits_for(Client.range)
    put = waits_for(Client.put)
    put_sequential = waits_for(Client.put_sequential)
    delete = waits_for(Client.delete)
    report = waits_for(Client.report)
    commit = waits_for(Client.commit)
    compact = waits_for(Client.compact)
    watch_batches = iterates(Client.watch_batches)
    allow_caching = waits_for(Client.allow_caching)
    forbid_caching = waits_for(Client.forbid_caching)
    cachable = waits_for(Client.cachable)

    # The cluster.
    members = waits_for(Client.members)
    status = waits_for(Client.status)
    hash_kv = waits_for(Client.hash_kv)
    snapshot = iterates(Client.snapshot)
    describe = waits_for(Client.describe)
    form = waits_for(Client.form)
    open_for_clients = waits_for(Client.open_for_clients)
    membership = waits_for(Client.membership)
    change_membership = waits_for(Client.change_membership)
    member_add = waits_for(Client.member_add)
    member_promote = waits_for(Client.member_promote)
    member_remove = waits_for(Client.member_remove)
    move_leader = waits_for(Client.move_leader)

    # What is no coroutine there, or returns what has some.

    def txn(self) -> BlockingTxn:
        return BlockingTxn(self, self.asyncio.txn())

    def watch(
        self, key: str | bytes, *, prefix: bool = False, start_revision: int = 0, previous: bool = False
    ) -> Iterator[Event]:
        """See `Client.watch`; it blocks until the next change."""
        batches = self.watch_batches(key, prefix=prefix, start_revision=start_revision, previous=previous)
        with contextlib.closing(batches):
            for events in batches:
                yield from events

    def site(self, name: str) -> BlockingSite:
        """See `Client.site`."""
        return BlockingSite(self, name)

    def cache(
        self,
        prefix: str | bytes,
        *,
        file: str | Path | None = None,
        confirm_seconds: float = 5.0,
        first_seconds: float = FIRST_SECONDS,
        consistent: bool = False,
    ) -> BlockingCache:
        """See `Client.cache`."""
        made = self.run(
            self.asyncio.cache(
                prefix,
                file=file,
                confirm_seconds=confirm_seconds,
                first_seconds=first_seconds,
                consistent=consistent,
            )
        )
        return BlockingCache(made, self)

    def config(
        self,
        key: str | bytes,
        model: Callable[[bytes], T] | type[T],
        *,
        file: str | Path | None = None,
        confirm_seconds: float = 5.0,
    ) -> BlockingConfig[T]:
        """See `Client.config`."""
        made = self.run(self.asyncio.config(key, model, file=file, confirm_seconds=confirm_seconds))
        return BlockingConfig(made, self)

    def lease(self, ttl: int) -> Lease:
        """Grant a lease, kept alive by the client's thread; end it with `revoke`."""
        return self.run(self.asyncio.lease(ttl))

    def revoke(self, lease: Lease) -> None:
        lease.check()
        self.run(lease.revoke())

    def metrics(self) -> Mapping[str, Address]:
        """See `Client.metrics`."""
        return self.asyncio.metrics()

    @property
    def position(self) -> Position:
        """See `Client.position`."""
        return self.asyncio.position

    def require(self, position: Position) -> None:
        """See `Client.require`."""
        self.asyncio.require(position)

    @property
    def numbered(self) -> bool:
        """See `Client.numbered`."""
        return self.asyncio.numbered

    @property
    def session_open(self) -> bool:
        """See `Client.session_open`."""
        return self.asyncio.session_open

    @property
    def leases_alive(self) -> int:
        """How many leases of this client are alive."""
        return self.asyncio.leases_alive


class BlockingTxn:
    def __init__(self, client: BlockingClient, txn: Txn) -> None:
        self._client = client
        self._txn = txn

    def if_(self, *compares: rpc_pb2.Compare) -> BlockingTxn:
        self._txn.if_(*compares)
        return self

    def then(self, *ops: rpc_pb2.RequestOp) -> BlockingTxn:
        self._txn.then(*ops)
        return self

    def else_(self, *ops: rpc_pb2.RequestOp) -> BlockingTxn:
        self._txn.else_(*ops)
        return self

    def commit(self) -> TxnResult:
        return self._client.run(self._txn.commit())


_retired: deque[tuple[float, asyncio.AbstractEventLoop]] = deque()  # with when they stopped


def _retire(loop: asyncio.AbstractEventLoop) -> None:
    """Close the loop, but later: gRPC passes on events of all loops in one place, and one that comes late for a loop
    that is closed would hold up the events of others."""
    now = time.monotonic()
    _retired.append((now, loop))
    while _retired and _retired[0][0] < now - LATE_SECONDS:
        _retired.popleft()[1].close()


@atexit.register
def _close_retired() -> None:
    while _retired:
        _retired.popleft()[1].close()


async def _close(client: Client) -> None:
    """Close it, and end what still follows it, such as caches that were not closed."""
    await client.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
