"""Tells a call whose channel this client has closed from a task that was cancelled.

gRPC raises CancelledError for both. A channel is closed while calls are under way on it when another call found it
broken, when its address is no longer one of its name, and before a fork: whoever waits for an answer then has to ask
again, while a task that was cancelled has to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import grpc.aio

from holdfast.client.errors import Unavailable


class ChannelClosed(Unavailable):
    """This client closed the channel while the call was under way; what had been sent may have taken effect."""


@contextmanager
def channel_may_close() -> Iterator[None]:
    """Raises ChannelClosed where gRPC raises an error because the channel was closed here."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ChannelClosed("its connection was closed by this client") from None
    except grpc.aio.UsageError as error:  # of a call that would begin on a closed channel
        raise ChannelClosed(str(error)) from None
