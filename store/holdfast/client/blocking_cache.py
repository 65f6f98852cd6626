"""`Cache` and `Config` without `await`. Reading needs no lock: the state of a cache is replaced as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from holdfast.client.cache import Cache
from holdfast.client.config import Config
from holdfast.client.values import Event, KeyValue

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]


def iterate(run: Run, changes: AsyncIterator[T]) -> Iterator[T]:
    async def following() -> T:
        return await anext(changes)

    while True:
        yield run(following())


class BlockingCache:
    """See `Cache`. Made by `BlockingClient.cache`."""

    def __init__(self, cache: Cache, run: Run) -> None:
        self._cache = cache
        self._run = run

    def get(self, key: str | bytes) -> KeyValue | None:
        return self._cache.get(key)

    def __getitem__(self, key: str | bytes) -> KeyValue:
        return self._cache[key]

    def __contains__(self, key: str | bytes) -> bool:
        return key in self._cache

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._cache)

    def __len__(self) -> int:
        return len(self._cache)

    @property
    def revision(self) -> int:
        return self._cache.revision

    @property
    def age(self) -> float:
        return self._cache.age

    @property
    def from_file(self) -> bool:
        return self._cache.from_file

    def current(self, timeout: float | None = None) -> None:
        self._run(self._cache.current(timeout))

    def changes(self) -> Iterator[list[Event]]:
        """Blocks until the next change."""
        return iterate(self._run, self._cache.changes())

    def close(self) -> None:
        self._run(self._cache.close())

    def __enter__(self) -> BlockingCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlockingConfig(Generic[T]):
    """See `Config`. Made by `BlockingClient.config`."""

    def __init__(self, config: Config[T], run: Run) -> None:
        self._config = config
        self._run = run

    @property
    def value(self) -> T:
        return self._config.value

    @property
    def error(self) -> str:
        return self._config.error

    @property
    def age(self) -> float:
        return self._config.age

    @property
    def from_file(self) -> bool:
        return self._config.from_file

    def changes(self) -> Iterator[T]:
        """Blocks until the next change."""
        return iterate(self._run, self._config.changes())

    def close(self) -> None:
        self._run(self._config.close())

    def __enter__(self) -> BlockingConfig[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
