"""The recipes without `await`, for use with `connect_blocking`. Each class has the methods of its namesake.

    with client.connect_blocking("shop-client:2379") as hf, blocking.session(hf) as session:
        with blocking.Lock(session, "/locks/nightly-report") as token:
            ...

A block is not ended by itself when the session is in jeopardy, because a thread cannot be: ask `held` or `check`, or
compare the token.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from holdfast.client.blocking import BlockingClient
from holdfast.client.blocking_cache import iterate
from holdfast.client.errors import Compacted
from holdfast.client.values import Event
from holdfast.recipes import barrier, counter, election, group, queue, rwlock, semaphore, sessions, transaction
from holdfast.recipes import lock as locks
from holdfast.recipes.liveness import GRACE_SECONDS, State
from holdfast.recipes.token import Token

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)
R = TypeVar("R")
P = ParamSpec("P")
H = TypeVar("H", bound=locks.Held)


class Session:
    """See `recipes.Session`. Made by `session`."""

    def __init__(self, client: BlockingClient, opened: sessions.Session) -> None:
        self.run = client.run
        self.opened = opened

    @property
    def lease(self) -> int:
        return self.opened.lease

    def state(self) -> State:
        return self.opened.state()

    @contextmanager
    def follow(self, prefix: str | bytes) -> Iterator[Iterator[list[Event]]]:
        """For the block, the changes of a prefix; the session lives only while they are handled in time. See
        `recipes.Session.follow`."""
        events = self.run(self.opened.follow(prefix))
        try:
            yield iterate(self.run, events)
        finally:
            self.run(events.close())


@contextmanager
def session(
    client: BlockingClient, ttl: int = 15, *, grace: float = GRACE_SECONDS, lock_delay: int = 0
) -> Iterator[Session]:
    """A session for the block. See `recipes.session`."""
    opened = client.run(sessions.Session.open(client.asyncio, ttl, grace=grace, lock_delay=lock_delay))
    try:
        yield Session(client, opened)
    finally:
        client.run(opened.close())


class _Wrapped(Generic[C_co]):
    """A recipe, and how its coroutines are run."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], core: C_co) -> None:
        self._run = run
        self._core = core


def _calls(method: Callable[Concatenate[C, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[_Wrapped[C], P], R]:
    """The method of the wrapped recipe, to its end."""

    def call(self: _Wrapped[C], /, *args: P.args, **kwargs: P.kwargs) -> R:
        found: R = self._run(method(self._core, *args, **kwargs))
        return found

    call.__doc__ = method.__doc__
    return call


class _Held(_Wrapped[H]):
    @property
    def held(self) -> bool:
        return self._core.held

    @property
    def token(self) -> Token:
        return self._core.token

    def check(self) -> None:
        self._core.check()

    acquire = _calls(locks.Held.acquire)
    release = _calls(locks.Held.release)
    confirm = _calls(locks.Held.confirm)

    def __enter__(self) -> Token:
        self.acquire()
        return self.token

    def __exit__(self, *_: object) -> None:
        if self._core.owned:
            self.release()


class Lock(_Held[locks.Lock]):
    def __init__(self, session: Session, name: str | bytes) -> None:
        super().__init__(session.run, locks.Lock(session.opened, name))


class Semaphore(_Held[semaphore.Semaphore]):
    def __init__(self, session: Session, name: str | bytes, permits: int) -> None:
        super().__init__(session.run, semaphore.Semaphore(session.opened, name, permits))


class RWLock:
    def __init__(self, session: Session, name: str | bytes) -> None:
        rw = rwlock.RWLock(session.opened, name)
        self.reading: _Held[locks.Held] = _Held(session.run, rw.reading)
        self.writing: _Held[locks.Held] = _Held(session.run, rw.writing)


class Election(_Held[election.Election]):
    def __init__(self, session: Session, name: str | bytes) -> None:
        super().__init__(session.run, election.Election(session.opened, name))

    campaign = _calls(election.Election.campaign)
    proclaim = _calls(election.Election.proclaim)
    resign = _calls(election.Election.resign)
    leader = _calls(election.Election.leader)

    def observe(self) -> Iterator[election.Leader | None]:
        """See `recipes.Election.observe`. Blocks until the next change."""
        return iterate(self._run, self._core.observe())


class Barrier(_Wrapped[barrier.Barrier]):
    def __init__(self, session: Session, name: str | bytes) -> None:
        super().__init__(session.run, barrier.Barrier(session.opened, name))

    hold = _calls(barrier.Barrier.hold)
    release = _calls(barrier.Barrier.release)
    wait = _calls(barrier.Barrier.wait)


class DoubleBarrier(_Wrapped[barrier.DoubleBarrier]):
    def __init__(self, session: Session, name: str | bytes, count: int) -> None:
        super().__init__(session.run, barrier.DoubleBarrier(session.opened, name, count))

    enter = _calls(barrier.DoubleBarrier.enter)
    leave = _calls(barrier.DoubleBarrier.leave)


class Item(_Wrapped[queue.Item]):
    @property
    def value(self) -> bytes:
        return self._core.value

    @property
    def token(self) -> Token:
        return self._core.token

    done = _calls(queue.Item.done)
    release = _calls(queue.Item.release)


class Queue(_Wrapped[queue.Queue]):
    def __init__(self, session: Session, name: str | bytes, bound: int = 0) -> None:
        super().__init__(session.run, queue.Queue(session.opened, name, bound))

    put = _calls(queue.Queue.put)

    def get(self, timeout: float | None = None) -> Item | None:
        """See `recipes.Queue.get`."""
        found: queue.Item | None = self._run(self._core.get(timeout))
        return None if found is None else Item(self._run, found)


class Group(_Wrapped[group.Group]):
    def __init__(self, session: Session, name: str | bytes) -> None:
        super().__init__(session.run, group.Group(session.opened, name))

    join = _calls(group.Group.join)
    leave = _calls(group.Group.leave)
    members = _calls(group.Group.members)

    def changes(self) -> Iterator[list[group.Member]]:
        """See `recipes.Group.changes`. Blocks until the next change."""
        return iterate(self._run, self._core.changes())


class Partitioner(_Wrapped[group.Partitioner]):
    def __init__(self, session: Session, name: str | bytes, partitions: Sequence[str]) -> None:
        super().__init__(session.run, group.Partitioner(session.opened, name, partitions))

    @property
    def mine(self) -> frozenset[str]:
        return self._core.mine

    leave = _calls(group.Partitioner.leave)

    def run(self) -> Iterator[frozenset[str]]:
        """See `recipes.Partitioner.run`. Blocks until the next change."""
        changes: AsyncIterator[frozenset[str]] = self._core.run()
        return iterate(self._run, changes)


class Counter(_Wrapped[counter.Counter]):
    def __init__(self, client: BlockingClient, key: str | bytes) -> None:
        super().__init__(client.run, counter.Counter(client.asyncio.commit, key))

    add = _calls(counter.Counter.add)
    value = _calls(counter.Counter.value)


class Transaction(_Wrapped[transaction.Transaction]):
    get = _calls(transaction.Transaction.get)
    range = _calls(transaction.Transaction.range)

    def put(self, key: str | bytes, value: str | bytes) -> None:
        self._core.put(key, value)

    def delete(self, key: str | bytes) -> None:
        self._core.delete(key)


def transact(client: BlockingClient, work: Callable[[Transaction], R], attempts: int = transaction.MOST_ATTEMPTS) -> R:
    """See `recipes.transact`."""
    for _ in range(attempts):
        core = transaction.Transaction(client.asyncio.commit)
        try:
            result = work(Transaction(client.run, core))
            if client.run(core.end()):
                return result
        except Compacted:
            continue
    raise transaction.Contended(f"what it read had changed {attempts} times")
