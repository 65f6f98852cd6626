"""Makes blocking methods of those of the asyncio client: the same parameters, the result instead of a coroutine."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from holdfast.client import forks
from holdfast.client.blocking_cache import iterate

P = ParamSpec("P")
T = TypeVar("T")
Target = TypeVar("Target")
Target_co = TypeVar("Target_co", covariant=True)


class Delegates(Protocol[Target_co]):
    """It has an object of asyncio, and the loop on which that lives."""

    @property
    def asyncio(self) -> Target_co: ...
    @property
    def running(self) -> bool:
        """Whether the loop runs."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any: ...


def waits_for(
    method: Callable[Concatenate[Target, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Delegates[Target], P], T]:
    """A method that returns what the coroutine returns."""

    @functools.wraps(method)
    def call(self: Delegates[Target], /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = self.run(method(self.asyncio, *args, **kwargs))
        return result

    return call


def iterates(
    method: Callable[Concatenate[Target, P], AsyncIterator[T]],
) -> Callable[Concatenate[Delegates[Target], P], Generator[T]]:
    """A method that yields what the asynchronous iterator yields; it blocks until the next one."""

    @functools.wraps(method)
    def call(self: Delegates[Target], /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        generation = forks.generation
        found = method(self.asyncio, *args, **kwargs)
        try:
            yield from iterate(self.run, found)
        finally:
            close = getattr(found, "aclose", None)
            if close is not None and generation == forks.generation and self.running:
                self.run(close())

    return call
