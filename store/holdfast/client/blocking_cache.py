"""`Cache` and `Config` without `await`. Reading needs no lock: the state of a cache is replaced as a whole.

In a process that was forked off, they follow anew by the client's connection there, from the state that they had.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from holdfast.client import forks
from holdfast.client.cache import Cache
from holdfast.client.config import Config
from holdfast.client.connection import Connection
from holdfast.client.values import Event, KeyValue

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Owner(Protocol):
    """The blocking client."""

    def here(self, made: Made[Any]) -> None:
        """Make it anew, if it was made before this process was forked off. Raises a ClientError."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any: ...


def iterate(run: Run, changes: AsyncIterator[T]) -> Iterator[T]:
    return _iterate(run, changes, forks.generation)


def _iterate(run: Run, changes: AsyncIterator[T], generation: int) -> Iterator[T]:
    async def following() -> list[T]:
        """The next one; empty: that was all."""
        async for change in changes:
            return [change]
        return []

    forks.check(generation)
    while found := run(following()):
        yield from found
        forks.check(generation)


class Followed(Protocol):
    """A cache or a config."""

    async def again(self, connection: Connection) -> Any: ...
    async def close(self) -> None: ...


F = TypeVar("F", bound=Followed)


class Made(Generic[F]):
    """Something that follows the store on the client's loop."""

    def __init__(self, followed: F, owner: Owner) -> None:
        self.followed = followed
        self.generation = forks.generation
        self._owner = owner

    @property
    def _now(self) -> F:
        if self.generation != forks.generation:
            self._owner.here(self)
        return self.followed

    def close(self) -> None:
        if self.generation == forks.generation:
            self._owner.run(self.followed.close())


class BlockingCache(Made[Cache]):
    """See `Cache`. Made by `BlockingClient.cache`."""

    def get(self, key: str | bytes) -> KeyValue | None:
        return self._now.get(key)

    def __getitem__(self, key: str | bytes) -> KeyValue:
        return self._now[key]

    def __contains__(self, key: str | bytes) -> bool:
        return key in self._now

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._now)

    def __len__(self) -> int:
        return len(self._now)

    @property
    def revision(self) -> int:
        return self._now.revision

    @property
    def age(self) -> float:
        return self._now.age

    @property
    def from_file(self) -> bool:
        return self._now.from_file

    @property
    def is_current(self) -> bool:
        return self._now.is_current

    def current(self, timeout: float | None = None) -> None:
        if not self.is_current:
            self._owner.run(self._now.current(timeout))

    def changes(self) -> Iterator[list[Event]]:
        """Blocks until the next change."""
        return iterate(self._owner.run, self._now.changes())

    def __enter__(self) -> BlockingCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlockingConfig(Made[Config[T]], Generic[T]):
    """See `Config`. Made by `BlockingClient.config`."""

    @property
    def value(self) -> T:
        return self._now.value

    @property
    def error(self) -> str:
        return self._now.error

    @property
    def age(self) -> float:
        return self._now.age

    @property
    def from_file(self) -> bool:
        return self._now.from_file

    def changes(self) -> Iterator[T]:
        """Blocks until the next change."""
        return iterate(self._owner.run, self._now.changes())

    def __enter__(self) -> BlockingConfig[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
