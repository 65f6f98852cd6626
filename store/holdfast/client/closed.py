"""Tells a call whose channel this client has closed from a task that was cancelled.

gRPC raises CancelledError for both. A channel is closed while calls are under way on it when another call found it
broken, when its address is no longer one of its name, and before a fork: whoever waits for an answer then has to ask
again, while a task that was cancelled has to end.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

import grpc.aio

from holdfast.client.errors import Unavailable


class ChannelClosed(Unavailable):
    """This client closed the channel while the call was under way; what had been sent may have taken effect."""


class _MayClose:
    """A class and no generator, as it is around each call and each message."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                raise ChannelClosed("its connection was closed by this client") from None
        elif isinstance(error, grpc.aio.UsageError):  # of a call that would begin on a closed channel
            raise ChannelClosed(str(error)) from None


_MAY_CLOSE = _MayClose()


def channel_may_close() -> _MayClose:
    """A context manager that raises ChannelClosed where gRPC raises an error because the channel was closed here."""
    return _MAY_CLOSE
