"""A stream of messages in both directions. Before a fork it is taken away from whoever holds it (see forks.py)."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from holdfast.client.closed import ChannelClosed, channel_may_close
from holdfast.client.login import Metadata


class Stream:
    """Made by `Connection.stream`. gRPC goes on as long as there is a call, so nobody else keeps the call."""

    def __init__(
        self, channel: grpc.aio.Channel, path: str, request: type[Message], response: type[Message], metadata: Metadata
    ) -> None:
        make = channel.stream_stream(
            path, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )
        self._call: grpc.aio.StreamStreamCall | None = make(metadata=metadata)

    async def write(self, message: Message) -> None:
        """Raises ChannelClosed, InvalidStateError if the stream has ended, and AioRpcError."""
        with channel_may_close():
            await self._here().write(message)

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF. Raises ChannelClosed, and AioRpcError."""
        with channel_may_close():
            return await self._here().read()

    def _here(self) -> grpc.aio.StreamStreamCall:
        if self._call is None:
            raise ChannelClosed("its connection was closed by this client")
        return self._call

    def cancel(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()


def abandon(reading: asyncio.Future[Any]) -> None:
    """Nobody waits for this read any more. If it has failed, its error is the stream's, which the caller knows."""
    reading.cancel()
    reading.add_done_callback(lambda over: over.cancelled() or over.exception())
