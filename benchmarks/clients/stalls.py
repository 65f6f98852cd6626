"""A gRPC proxy that holds up some unary calls, and no other call: `python stalls.py MILLISECONDS SHARE PORT=TARGET …`.

A proxy of TCP cannot do this: calls share a connection, and bytes that are late hold up all calls behind them.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

SEED = 1


class Forward(grpc.GenericRpcHandler):
    def __init__(self, target: str, share: float, seconds: float) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._share, self._seconds = share, seconds
        self._chance = random.Random(SEED)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        call: Callable[..., Awaitable[bytes]] = self._channel.unary_unary(details.method)

        async def forward(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            if self._chance.random() < self._share:
                await asyncio.sleep(self._seconds)
            try:
                return await call(request, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
                raise AssertionError("unreachable") from None

        handler: Any = grpc.unary_unary_rpc_method_handler(forward)
        return handler


async def main() -> None:
    milliseconds, share, *places = sys.argv[1:]
    servers = []
    for place in places:
        port, _, target = place.partition("=")
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Forward(target, float(share), float(milliseconds) / 1000),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        servers.append(server)
    await asyncio.gather(*(server.wait_for_termination() for server in servers))


if __name__ == "__main__":
    asyncio.run(main())
