"""One key as a typed value that is always valid: the newest one that could be parsed, live or from the last good file.

A value that cannot be parsed changes nothing: the one before stays in force, and `Config.error` says what is wrong. The
same holds when the key is deleted. So a mistake in the store stops no application that runs, nor one that starts later
with the file of the last good value.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from holdfast.client.cache import Cache
from holdfast.client.changes import Changes
from holdfast.client.connection import Connection
from holdfast.client.errors import ClientError

T = TypeVar("T")


class InvalidConfig(ClientError):
    """There is no value, or none that can be parsed, and there never was one."""


def parser(model: Any) -> Callable[[bytes], Any]:
    """What makes a value from bytes: a pydantic model reads JSON; anything else is called with the bytes, and raises
    ValueError if it cannot use them."""
    validate = getattr(model, "model_validate_json", None)
    return cast(Callable[[bytes], Any], validate if callable(validate) else model)


class Config(Generic[T]):
    """Made by `Client.config`."""

    def __init__(self, key: bytes, cache: Cache, before: Config[T] | None = None) -> None:
        """`before`: whose value counts as long as the cache has none."""
        self.key = key
        self._cache = cache
        if before is not None:
            self._value = before.value
            return
        if key not in cache.parsed:
            why = cache.rejected.get(key, "the key does not exist")
            raise InvalidConfig(f"{key.decode(errors='replace')}: {why}")
        self._value = cast(T, cache.parsed[key])

    @property
    def value(self) -> T:
        """The newest valid value."""
        if self.key in self._cache.parsed:  # else `before` counts
            self._value = cast(T, self._cache.parsed[self.key])
        return self._value

    @property
    def error(self) -> str:
        """Why the newest value is not the one in force, or why it is not known; "" if it is in force. That no server
        answers is no error: see `age`."""
        return self._cache.rejected.get(self.key, self._cache.refused)

    @property
    def age(self) -> float:
        """In seconds: what was acknowledged longer ago than this is known here."""
        return self._cache.age

    @property
    def from_file(self) -> bool:
        """Whether the value is that of the last good file, and no server has answered since."""
        return self._cache.from_file

    def changes(self) -> AsyncIterator[T]:
        """Each value from now on that is valid and different; of several at once the newest."""
        return self._values(self._cache.changes(), self.value)

    async def _values(self, changes: Changes, last: T) -> AsyncIterator[T]:
        async for _ in changes:
            if self.value != last:
                last = self.value
                yield last

    async def again(self, connection: Connection) -> Config[T]:
        """Another one that begins with the value of this one and follows by `connection`."""
        return Config(self.key, await self._cache.again(connection), self)

    async def close(self) -> None:
        await self._cache.close()

    async def __aenter__(self) -> Config[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
