"""The client without `await`: its event loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from holdfast.client.blocking_cache import BlockingCache, BlockingConfig, iterate
from holdfast.client.client import Client, connect
from holdfast.client.connection import Tls
from holdfast.client.lease import Lease
from holdfast.client.picker import Policy
from holdfast.client.txn import Key, Ops, Txn, TxnResult
from holdfast.client.values import DeleteResult, Event, KeyValue, PutResult, RangeResult
from holdfast.proto import rpc_pb2

T = TypeVar("T")


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
        )

    return BlockingClient(connected)


class BlockingClient:
    """The blocking client. Thread-safe."""

    op = Ops()
    key = staticmethod(Key)

    def __init__(self, connected: Callable[[], Coroutine[Any, Any, Client]]) -> None:
        """`connected` creates the client; it runs on the client's loop."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="holdfast-client", daemon=True)
        self._thread.start()
        self.asyncio: Client = self.run(connected())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that uses `asyncio`, on the client's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.run(self.asyncio.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get(self, key: str | bytes, *, revision: int = 0, serializable: bool = False) -> KeyValue | None:
        return self.run(self.asyncio.get(key, revision=revision, serializable=serializable))

    def range(
        self,
        key: str | bytes,
        *,
        prefix: bool = False,
        end: str | bytes | None = None,
        limit: int = 0,
        revision: int = 0,
        serializable: bool = False,
        keys_only: bool = False,
    ) -> RangeResult:
        return self.run(
            self.asyncio.range(
                key,
                prefix=prefix,
                end=end,
                limit=limit,
                revision=revision,
                serializable=serializable,
                keys_only=keys_only,
            )
        )

    def put(self, key: str | bytes, value: str | bytes, *, lease: Lease | int = 0, previous: bool = False) -> PutResult:
        return self.run(self.asyncio.put(key, value, lease=lease, previous=previous))

    def delete(self, key: str | bytes, *, prefix: bool = False, previous: bool = False) -> DeleteResult:
        return self.run(self.asyncio.delete(key, prefix=prefix, previous=previous))

    def compact(self, revision: int) -> None:
        self.run(self.asyncio.compact(revision))

    def txn(self) -> BlockingTxn:
        return BlockingTxn(self, self.asyncio.txn())

    def watch(
        self, key: str | bytes, *, prefix: bool = False, start_revision: int = 0, previous: bool = False
    ) -> Iterator[Event]:
        """Yield changes; blocks until the next one."""
        batches = self.asyncio.watch_batches(key, prefix=prefix, start_revision=start_revision, previous=previous)

        try:
            for events in iterate(self.run, batches):
                yield from events
        finally:
            close = getattr(batches, "aclose", None)
            if close is not None and self._loop.is_running():
                self.run(close())

    def cache(
        self, prefix: str | bytes, *, file: str | Path | None = None, confirm_seconds: float = 5.0
    ) -> BlockingCache:
        """See `Client.cache`."""
        made = self.run(self.asyncio.cache(prefix, file=file, confirm_seconds=confirm_seconds))
        return BlockingCache(made, self.run)

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
        return BlockingConfig(made, self.run)

    def lease(self, ttl: int) -> Lease:
        """Grant a lease, kept alive by the client's thread; end it with `revoke`."""
        return self.run(self.asyncio.lease(ttl))

    def revoke(self, lease: Lease) -> None:
        self.run(lease.revoke())

    def members(self) -> list[rpc_pb2.Member]:
        return self.run(self.asyncio.members())

    def status(self, endpoint: str | None = None) -> rpc_pb2.StatusResponse:
        return self.run(self.asyncio.status(endpoint))


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
