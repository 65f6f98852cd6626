"""A session of an application: a lease that is kept alive, and what to do when that fails.

`async with hf.session() as session:` and then `Lock(session, "/locks/a")` and the like. Ephemeral keys of recipes are
attached to the session's lease, so they go with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from holdfast.client.client import Client
from holdfast.client.errors import ClientError, Compacted, NotImplementedThere, Refused
from holdfast.client.keepalive import now
from holdfast.client.watch import watch
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.recipes.events import CONFIRMATIONS, HANDLED_SHARE, Events
from holdfast.recipes.liveness import GRACE_SECONDS, Liveness, State
from holdfast.recipes.space import SessionLost, Wanted

PAUSE_SECONDS = 0.1
WATCH_SECONDS = 1.0  # how often the clock is looked at, for what no timer notices: a suspended machine
REVOKE_SECONDS = 2.0


class Session:
    """One lease of `ttl` seconds. Implements `Space` over a client. Make it by `Session.open`."""

    def __init__(self, client: Client, lease: int, ttl: int, asked: float, epoch: int, grace: float) -> None:
        self._client = client
        self._lease = lease
        self._ttl = ttl
        self._epoch = epoch
        self._liveness = Liveness(asked, ttl, grace)
        self._told = State.SAFE
        self._moved = asyncio.Event()  # set and replaced when the state changes
        self._tellers: list[Callable[[State], None]] = []
        self._work: set[asyncio.Task[None]] = set()
        self._tended: set[asyncio.Task[None]] = set()
        self._followed: set[Events] = set()
        client.connection.keep_alives.add(lease, ttl, asked, self._renewed, self._may_renew)
        self._clock = asyncio.ensure_future(self._look())

    @classmethod
    async def open(cls, client: Client, ttl: int = 15, *, grace: float = GRACE_SECONDS, lock_delay: int = 0) -> Session:
        """Grant a lease of `ttl` seconds and keep it alive. After `ttl` seconds without an answer the session is in
        jeopardy; it expires if none comes within `grace` seconds more.

        `lock_delay`: if the session expires, nobody gets what it held for so many seconds, so that requests it has sent
        arrive before those of the next holder. What it releases, or gives up by `close`, is free at once. Needs a
        cluster of holdfast; raises NotImplementedThere on etcd. Raises other ClientErrors, too."""
        try:
            epoch = (await client.describe()).epoch
        except (NotImplementedThere, Refused):
            epoch = 0  # the server is not holdfast, or does not tell this user
        asked = now()
        lease, ttl = await (_open(client, ttl, lock_delay) if lock_delay else _grant(client, ttl))
        return cls(client, lease, ttl, asked, epoch, grace)

    # ---- life ----------------------------------------------------------------------------------------------

    def state(self) -> State:
        return self._liveness.state(now())

    @property
    def safe_until(self) -> float:
        """Until when the session is certainly alive without another renewal, by the clock of `now`."""
        return self._liveness.safe_until

    def on_change(self, tell: Callable[[State], None]) -> None:
        """Call `tell` with each new state, on the event loop. What must stop in jeopardy stops here."""
        self._tellers.append(tell)

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """The block is cancelled, and SessionLost raised, as soon as the session is not certainly alive any more."""

        def tell(state: State) -> None:
            if state is not State.SAFE and not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())

        try:
            async with asyncio.timeout(None) as scope:
                self._tellers.append(tell)
                tell(self.state())
                yield
        except TimeoutError:
            if scope.expired():
                raise self._over() from None
            raise
        finally:
            self._tellers.remove(tell)

    async def follow(self, prefix: str | bytes) -> Events:
        """Follow the changes of a prefix, and let the session live only while they are handled in time: see `Events`.
        Use it by `async with`, or close it. Raises a ClientError if no server answers."""
        cache = await self._client.cache(prefix, confirm_seconds=self._ttl / CONFIRMATIONS)
        events = Events(cache, self._ttl * HANDLED_SHARE, self._followed.discard)
        self._followed.add(events)
        return events

    def _may_renew(self) -> bool:
        return all(events.handled_in_time() for events in self._followed)

    def _renewed(self, asked: float, ttl: float) -> None:
        self._liveness.renewed(now(), asked, ttl)
        self._notice()

    def _notice(self) -> None:
        state = self.state()
        if state is self._told:
            return
        self._told = state
        self._moved.set()
        self._moved = asyncio.Event()
        if state is State.EXPIRED:
            self._client.connection.keep_alives.remove(self._lease)
            for task in (*self._work, *self._tended):
                task.cancel()
        for tell in list(self._tellers):
            tell(state)

    async def _look(self) -> None:
        """Notice what only time changes."""
        while self._told is not State.EXPIRED:
            left = self._liveness.safe_until - now()
            await asyncio.sleep(min(WATCH_SECONDS, max(0.01, left)))
            self._notice()

    async def close(self) -> None:
        """End the session: its lease is revoked, and with it its keys go. If no server answers, they go by the TTL."""
        self._client.connection.keep_alives.remove(self._lease)  # first: it ends by the TTL, whatever happens here
        for events in list(self._followed):
            await events.close()
        if self.state() is not State.EXPIRED:
            if self._work:  # places that are being given up
                await asyncio.wait(self._work, timeout=REVOKE_SECONDS)
            self._liveness.end()
            self._notice()
            with contextlib.suppress(ClientError):
                await self._client.connection.call(
                    "/etcdserverpb.Lease/LeaseRevoke",
                    rpc_pb2.LeaseRevokeRequest(ID=self._lease),
                    rpc_pb2.LeaseRevokeResponse,
                    idempotent=True,
                    timeout=REVOKE_SECONDS,
                )
        self._clock.cancel()
        await asyncio.gather(self._clock, *self._work, *self._tended, return_exceptions=True)

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- Space ---------------------------------------------------------------------------------------------

    @property
    def lease(self) -> int:
        return self._lease

    @property
    def epoch(self) -> int:
        return self._epoch

    def nonce(self) -> str:
        return secrets.token_hex(8)

    def now(self) -> float:
        return now()

    def _over(self) -> SessionLost:
        return SessionLost(f"the session {self._lease:x} is {self.state().value}")

    async def _while_alive(self, work: Coroutine[Any, Any, Any], until: float | None) -> Any:
        """The result of `work`. Raises SessionLost once the session has expired, TimeoutError at `until`."""
        if self.state() is State.EXPIRED:
            work.close()
            raise self._over()
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                moved = asyncio.ensure_future(self._moved.wait())
                try:
                    seconds = None if until is None else max(0.0, until - now())
                    done, _ = await asyncio.wait((task, moved), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    moved.cancel()
                if not done:
                    raise TimeoutError
                if self.state() is State.EXPIRED and not task.done():
                    raise self._over()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def txn(
        self, request: rpc_pb2.TxnRequest, until: float | None = None, *, barrier: bool = False
    ) -> rpc_pb2.TxnResponse:
        answer: rpc_pb2.TxnResponse = await self._while_alive(self._client.commit(request, barrier=barrier), until)
        return answer

    async def change(self, wanted: Sequence[Wanted], revision: int, until: float | None = None) -> None:
        await self._while_alive(self._first_of(wanted, revision), until)

    async def _first_of(self, wanted: Sequence[Wanted], revision: int) -> None:
        tasks = [asyncio.ensure_future(self._happens(one, revision)) for one in wanted]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _happens(self, wanted: Wanted, revision: int) -> None:
        events = watch(self._client.connection, wanted.key, wanted.end, start_revision=revision, previous=False)
        try:
            async for batch in events:
                if not wanted.deletes or any(event.type == "delete" for event in batch):
                    return
        except Compacted:
            return  # read again

    async def safe(self, until: float | None = None) -> None:
        async def safe() -> None:
            while True:
                self._notice()  # only what was noticed is announced to be over
                if self._told is State.SAFE:
                    return
                await self._moved.wait()

        await self._while_alive(safe(), until)

    async def pause(self, until: float | None = None) -> None:
        await self._while_alive(asyncio.sleep(PAUSE_SECONDS), until)

    @property
    def numbered(self) -> bool:
        return self._client.numbered

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._run(work, self._work)

    def tend(self, work: Coroutine[Any, Any, None]) -> None:
        self._run(work, self._tended)

    def _run(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
        task = asyncio.ensure_future(self._quietly(work))
        among.add(task)
        task.add_done_callback(among.discard)

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(ClientError):  # what it was to give up goes with the session
            await work


async def _grant(client: Client, ttl: int) -> tuple[int, int]:
    request = rpc_pb2.LeaseGrantRequest(TTL=ttl)
    path = "/etcdserverpb.Lease/LeaseGrant"
    granted = await client.connection.call(path, request, rpc_pb2.LeaseGrantResponse, idempotent=True)
    return granted.ID, granted.TTL


async def _open(client: Client, ttl: int, lock_delay: int) -> tuple[int, int]:
    request = holdfast_pb2.SessionOpenRequest(ttl_seconds=ttl, lock_delay_seconds=lock_delay)
    path = "/holdfast.v1.Session/Open"
    opened = await client.connection.call(path, request, holdfast_pb2.SessionOpenResponse, idempotent=True)
    return opened.id, opened.ttl_seconds


@asynccontextmanager
async def session(
    client: Client, ttl: int = 15, *, grace: float = GRACE_SECONDS, lock_delay: int = 0
) -> AsyncIterator[Session]:
    """A session for the block; see `Session.open`."""
    async with await Session.open(client, ttl, grace=grace, lock_delay=lock_delay) as opened:
        yield opened
