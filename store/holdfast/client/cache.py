"""All keys with a prefix in memory, kept current by a watch: reads cost no call, and go on while no server answers.

What is read is a whole state that the store had, at `Cache.revision`; it may be old, and `Cache.age` says how old it
may be: again and again the cluster is asked for its newest revision, and the state is as new as that question once it
has reached the answer. The age counts from the question. A consistent cache holds a lease (`copy_lease`) while it can:
then the state is current, and no question is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from weakref import WeakSet

import grpc

from holdfast.client.changes import Changes
from holdfast.client.connection import Connection
from holdfast.client.copy_holder import CopyHolder
from holdfast.client.errors import ClientError, Compacted, Refused, Unavailable
from holdfast.client.keepalive import now
from holdfast.client.position import Position
from holdfast.client.state_file import StateFile
from holdfast.client.values import Event, KeyValue, range_end, range_start
from holdfast.client.watch import Watched, watch
from holdfast.proto import kv_pb2, rpc_pb2

log = logging.getLogger("holdfast.client")

_RANGE = "/etcdserverpb.KV/Range"
MOST_KEYS = 1000  # of one page
FIRST_KEYS = 16  # of the first page, while the size of values is not known
PAGE_BYTES = 4 << 20
FIRST_SECONDS = 0.8  # for the first answer of a server, if a file has what was last known
RETRY_SECONDS = 0.5
MOST_RETRY_SECONDS = 8.0  # after refusals
SAVE_SECONDS = 1.0  # between changes and their file: a burst of changes is written once


class Cache:
    """Made by `Client.cache`. To read, it is like a dictionary of keys (str or bytes) to their values."""

    def __init__(
        self,
        connection: Connection,
        prefix: bytes,
        *,
        file: Path | None,
        confirm: float,
        end: bytes | None = None,
        parse: Callable[[bytes], object] | None = None,
        consistent: bool = False,
    ) -> None:
        """`end`: of the keys, if it is not that of the prefix; empty for one key. `parse` raises an error for a value
        that is not to be used: the cache then keeps the one before. `consistent`: hold a cache lease."""
        self.prefix = prefix
        self.revision = 0  # the state is that of this revision, but for values that are rejected
        self._cluster_id = 0  # of the cluster whose revision this is; 0: not known
        self.rejected: dict[bytes, str] = {}  # keys whose newest value cannot be parsed, and why
        self.parsed: dict[bytes, object] = {}
        self._end = range_end(prefix, prefix=True, end=None) if end is None else end
        self._start = prefix if end == b"" else range_start(prefix, prefix=True)
        self._parse = parse
        self.from_file = False  # it was read from the file, and no server has answered since
        self._connection = connection
        self._file = None if file is None else StateFile(file, prefix)
        self._confirm = confirm
        self._kvs: dict[bytes, KeyValue] = {}
        self._known_at = -math.inf  # the state was current at this time (of `now`), or later
        self._watched = Watched(self._confirmed)
        self._consistent = consistent
        self._asking: asyncio.Task[None] | None = None
        self._holder = CopyHolder(connection, self._start, self._end, self._reach)
        self._moved = asyncio.Event()
        self._subscribers: WeakSet[Changes] = WeakSet()
        self._error: ClientError | None = None  # what ended it
        self.refused = ""  # why servers refuse to let it follow at present; it is tried again
        self._at_start: ClientError | None = None  # a refusal before there is a state
        self._dirty = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # ---- reading -------------------------------------------------------------------------------------------

    def get(self, key: str | bytes) -> KeyValue | None:
        return self._kvs.get(key.encode() if isinstance(key, str) else key)

    def __getitem__(self, key: str | bytes) -> KeyValue:
        return self._kvs[key.encode() if isinstance(key, str) else key]

    def __contains__(self, key: str | bytes) -> bool:
        return (key.encode() if isinstance(key, str) else key) in self._kvs

    def __iter__(self) -> Iterator[bytes]:
        return iter(sorted(self._kvs))

    def __len__(self) -> int:
        return len(self._kvs)

    @property
    def one_key(self) -> bool:
        return self._end == b""

    @property
    def age(self) -> float:
        """In seconds: everything that was acknowledged longer ago than this is here."""
        return max(0.0, now() - self.known_at)

    @property
    def known_at(self) -> float:
        """Everything that was acknowledged before this time (of `now`) is here."""
        return now() if self.is_current else self._known_at

    @property
    def is_current(self) -> bool:
        """Whether everything that was acknowledged so far is here: reading is then linearizable without any call. Only
        of a consistent cache; False says nothing."""
        return not self.from_file and self._holder.current(Position(self._cluster_id, self.revision))

    async def current(self, timeout: float | None = None) -> None:
        """Wait until everything that was acknowledged before this call is here. Raises Unavailable. A consistent cache
        that holds a lease returns at once."""
        if self.is_current:
            return
        self._raise_if_ended()
        seconds = self._connection.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                wanted = self._holder.position or await self._newest()
                while self.from_file or self._cluster_id != wanted.cluster_id or self.revision < wanted.revision:
                    self._raise_if_ended()
                    self._moved.clear()
                    await self._watched.ask()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await self._moved.wait()
        except TimeoutError:
            raise Unavailable(f"the cache of {self.prefix!r} did not become current in {seconds:g} s") from None

    async def _newest(self) -> Position:
        """The newest position of the cluster, by a linearizable read."""
        request = rpc_pb2.RangeRequest(key=self._start, limit=1, keys_only=True)
        found = await self._connection.call(_RANGE, request, rpc_pb2.RangeResponse, idempotent=True)
        return Position(found.header.cluster_id, found.header.revision)

    def changes(self) -> Changes:
        """What changes from now on, to iterate over."""
        found = Changes(self)
        self._subscribers.add(found)
        return found

    async def moved(self) -> None:
        """Wait until the state or its revision has changed. Raises the error that ended the cache."""
        self._raise_if_ended()
        self._moved.clear()
        await self._moved.wait()

    def _raise_if_ended(self) -> None:
        if self._error is not None:
            raise self._error

    # ---- life ----------------------------------------------------------------------------------------------

    async def start(self, first_seconds: float = FIRST_SECONDS) -> Cache:
        """Begin. If the file has a state, wait only `first_seconds` for a server. Raises a ClientError if a server
        refuses it, or if no server answers and there is no file; nothing is left running then."""
        kept = None
        if self._file is not None:
            kept = await self._file.load()
        if kept is not None:
            header = kept.found.header
            self._take(kept.found.kvs, Position(header.cluster_id, header.revision), now() - kept.age)
            self.from_file = True
        self._go()
        seconds = first_seconds if kept is not None else self._connection.timeout
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while self.from_file or not self.revision:
                        await self.moved()
                        if self._at_start is not None:
                            raise self._at_start
            if not self.revision:
                raise Unavailable(f"no endpoint answered in {seconds:g} s, and there is no file of {self.prefix!r}")
        except BaseException:
            await self.close()
            raise
        return self

    def _go(self) -> None:
        self._connection.caches.add(self)
        self._tasks = [asyncio.ensure_future(self._follow()), asyncio.ensure_future(self._keep_age())]
        if self._file is not None:
            self._tasks.append(asyncio.ensure_future(self._save()))
        if self._consistent:
            self._tasks.append(asyncio.ensure_future(self._holder.run()))

    async def again(self, connection: Connection) -> Cache:
        """Another cache that begins with the state of this one and follows by `connection`."""
        fresh = Cache(
            connection,
            self.prefix,
            file=None if self._file is None else self._file.path,
            confirm=self._confirm,
            end=self._end,
            parse=self._parse,
            consistent=self._consistent,
        )
        fresh._kvs, fresh.revision, fresh._known_at = self._kvs, self.revision, self._known_at
        fresh._cluster_id = self._cluster_id
        fresh.rejected, fresh.parsed, fresh.from_file = dict(self.rejected), dict(self.parsed), self.from_file
        fresh._go()
        return fresh

    async def let_go(self) -> None:
        """Give up the cache lease, if there is one, so that no write waits for it. It is asked for again."""
        await self._holder.let_go()

    async def close(self) -> None:
        """Follow no more. Whoever waits for changes, or asks for the current state, gets Unavailable; what is here can
        still be read."""
        self._connection.caches.discard(self)
        await self._holder.let_go()
        if self._asking is not None:
            self._asking.cancel()
        tasks, self._tasks = self._tasks, []  # they keep where they were cancelled, and so calls of gRPC
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._error is None:
            self._error = Unavailable(f"this cache of {self.prefix!r} is closed")
        self._moved.set()
        if self._file is not None and not self.from_file:
            await (self._write(self._file) if self._dirty.is_set() else self._file.stamp(self.age))

    async def __aenter__(self) -> Cache:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- following -----------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        pause = RETRY_SECONDS
        while True:
            try:
                await self._load()
                self.refused, pause = "", RETRY_SECONDS
                async for events in watch(
                    self._connection,
                    self._start,
                    self._end,
                    start_revision=self.revision + 1,
                    previous=False,
                    watched=self._watched,
                    cluster_id=self._cluster_id,
                ):
                    self._apply(events)
            except (Unavailable, Compacted) as error:
                log.debug("the cache of %r: %s", self.prefix, error)
            except ClientError as error:  # rights may come back, and a flood of requests end
                self._was_refused(error)
                pause = min(2 * pause, MOST_RETRY_SECONDS)
            await asyncio.sleep(pause)

    def _was_refused(self, error: ClientError) -> None:
        if str(error) != self.refused:
            log.warning("changes of %r are not followed, and will be tried again: %s", self.prefix, error)
        self.refused = str(error)
        busy = isinstance(error, Refused) and error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        self._at_start = None if busy else error
        self._moved.set()

    async def _load(self) -> None:
        """Read everything at one revision. Raises Unavailable if a server answers that is behind this state, or one of
        another cluster half-way."""
        began = now()
        kvs: list[kv_pb2.KeyValue] = []
        revision, cluster_id, key, end, more = 0, 0, self._start, self._end, True
        limit = FIRST_KEYS
        while more:
            request = rpc_pb2.RangeRequest(key=key, range_end=end, limit=limit, revision=revision)
            found = await self._connection.call(_RANGE, request, rpc_pb2.RangeResponse, idempotent=True)
            revision, cluster_id = revision or found.header.revision, cluster_id or found.header.cluster_id
            if found.header.cluster_id != cluster_id:
                raise Unavailable("the endpoints belong to different clusters")
            kvs += found.kvs
            more = found.more
            key = found.kvs[-1].key + b"\0" if found.kvs else key
            limit = _page(found)
        if cluster_id == self._cluster_id and revision < self.revision:
            raise Unavailable(f"the server is at revision {revision}, and {self.revision} is here already")
        self._take(kvs, Position(cluster_id, revision), began)
        self.from_file, self._at_start = False, None

    def _take(self, kvs: Iterable[kv_pb2.KeyValue], position: Position, known_at: float) -> None:
        """Replace everything. Subscribers hear of what is different. Another cluster begins anew, perhaps with a lower
        revision."""
        before = self._kvs
        newest = {kv.key: KeyValue.of(kv) for kv in kvs}
        fresh = {}
        for key in (self.rejected.keys() | self.parsed.keys()) - newest.keys():
            if not self._keeps(key):
                self._forget(key)
            elif key in before:
                fresh[key] = before[key]
        for key, kv in newest.items():
            if before.get(key) == kv or self._accepts(kv):
                fresh[key] = kv
            elif key in before:
                fresh[key] = before[key]
        self._cluster_id, self.revision = position
        self._kvs = fresh
        gone = before.keys() - fresh.keys()
        different = [Event("put", kv, None) for key, kv in fresh.items() if before.get(key) != kv]
        different += [Event("delete", KeyValue(key, b"", 0, position.revision, 0, 0), None) for key in gone]
        self._tell(different)  # before it counts as known
        self._known_at = max(known_at, self._known_at)

    def _apply(self, events: list[Event]) -> None:
        fresh = dict(self._kvs) if len(events) > 1 else self._kvs  # nobody sees half of a revision
        for event in events:
            if event.type != "put":
                if not self._keeps(event.kv.key):
                    fresh.pop(event.kv.key, None)
                    self._forget(event.kv.key)
            elif self._accepts(event.kv):
                fresh[event.kv.key] = event.kv
        self._kvs = fresh
        self.revision = max(self.revision, events[-1].kv.mod_revision)
        self._tell(events)

    def _accepts(self, kv: KeyValue) -> bool:
        if self._parse is None:
            return True
        try:
            self.parsed[kv.key] = self._parse(kv.value)
        except Exception as error:  # whatever a function of the application raises: it must not end the cache
            what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            self.rejected[kv.key] = f"revision {kv.mod_revision}: {what}"
            log.warning("%r has a value that cannot be used, revision %d: %s", kv.key, kv.mod_revision, error)
            return False
        self.rejected.pop(kv.key, None)
        return True

    def _keeps(self, key: bytes) -> bool:
        """Whether the value of a key that was deleted stays in force: the one of a config does."""
        if not self.one_key or key not in self.parsed:
            return False
        self.rejected[key] = "the key was deleted"
        return True

    def _forget(self, key: bytes) -> None:
        self.rejected.pop(key, None)
        self.parsed.pop(key, None)

    def _tell(self, events: list[Event]) -> None:
        for changes in self._subscribers:
            changes.tell(events)
        self._moved.set()
        self._dirty.set()

    # ---- how old it is -------------------------------------------------------------------------------------

    async def _keep_age(self) -> None:
        while True:
            asked = now()
            with contextlib.suppress(ClientError):  # then the age grows
                await self.current()
                self._known_at = max(self._known_at, asked)
                if self._file is not None and not self._dirty.is_set() and self._file.stamp_due:
                    await self._file.stamp(self.age)
            await asyncio.sleep(self._confirm)

    def _reach(self, revision: int) -> None:
        """A lease was given: it helps once the state is of this revision."""
        if self.revision < revision and (self._asking is None or self._asking.done()):
            self._asking = asyncio.ensure_future(self._watched.ask())

    def _confirmed(self, revision: int) -> None:
        """The server has sent everything up to `revision`."""
        self.revision = max(self.revision, revision)
        self._moved.set()

    # ---- the file ------------------------------------------------------------------------------------------

    async def _save(self) -> None:
        assert self._file is not None
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SAVE_SECONDS)
            if not self.from_file:
                await self._write(self._file)

    async def _write(self, file: StateFile) -> None:
        self._dirty.clear()
        found = rpc_pb2.RangeResponse(kvs=[_message(kv) for kv in self._kvs.values()])
        found.header.cluster_id, found.header.revision = self._cluster_id, self.revision
        await file.write(found, self.age)


def _page(found: rpc_pb2.RangeResponse) -> int:
    """How many keys to ask for next: a server lets no connection have too many bytes of answers."""
    each = found.ByteSize() // max(1, len(found.kvs))
    return max(1, min(MOST_KEYS, PAGE_BYTES // max(1, each)))


def _message(kv: KeyValue) -> kv_pb2.KeyValue:
    return kv_pb2.KeyValue(
        key=kv.key,
        value=kv.value,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        lease=kv.lease,
    )
