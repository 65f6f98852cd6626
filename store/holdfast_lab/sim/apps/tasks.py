"""Runs coroutines in simulated time: a task goes on when what it waits for is done. There is no event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Cancelled(BaseException):
    """Thrown into a task that is cancelled, as asyncio's CancelledError is."""


class Waiting(Generic[T]):
    """What a task waits for: a value or an error, once."""

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._then: Callable[[], None] | None = None

    def set(self, value: T) -> None:
        self._end(value, None)

    def fail(self, error: BaseException) -> None:
        self._end(None, error)

    def _end(self, value: T | None, error: BaseException | None) -> None:
        if self.done:
            return
        self.done, self._value, self._error = True, value, error
        if self._then is not None:
            self._then()

    def then(self, call: Callable[[], None]) -> None:
        self._then = call

    def __await__(self) -> Generator[Waiting[T], None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # it was set, or there is an error


class Task:
    """A coroutine that runs until it waits, at once and then each time it may go on. `soon` calls later; `ended` is
    called with the error that ended it, or None."""

    def __init__(
        self,
        work: Coroutine[Any, Any, None],
        soon: Callable[[Callable[[], None]], None],
        ended: Callable[[Task, BaseException | None], None],
    ) -> None:
        self._work = work
        self._soon = soon
        self._ended = ended
        self._on: Waiting[Any] | None = None
        self._cancelled = False
        self.over = False
        soon(self._step)

    def _step(self) -> None:
        if self.over:
            return
        try:
            if self._cancelled:
                self._cancelled = False
                self._on = self._work.throw(Cancelled())
            else:
                self._on = self._work.send(None)
        except StopIteration:
            self._end(None)
        except Exception as error:
            self._end(error)
        except Cancelled as error:
            self._end(error)
        else:
            self._on.then(lambda: self._soon(self._step))

    def _end(self, error: BaseException | None) -> None:
        self.over, self._on = True, None
        self._ended(self, error)

    def cancel(self) -> None:
        """Throw Cancelled where it waits."""
        if not self.over and self._on is not None and not self._on.done:
            self._cancelled = True
            self._on.done = True
            self._soon(self._step)

    def kill(self) -> None:
        """End it as a process is killed: nothing of it runs any more."""
        if not self.over:
            self.over = True
            self._on = None
            self._work.close()  # not left to the garbage collector, which would do it at any time
