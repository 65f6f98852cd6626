"""A round trip between members: our frames on TCP, and a gRPC stream (docs/decisions/0005).

    .venv/bin/python benchmarks/peer_transport.py

Both ends are in one process, so the CPU is that of a message out and one back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc.aio
import uvloop
from holdfast.member import codec
from holdfast.member.frames import frame, read_frame
from holdfast.proto import raft_pb2
from holdfast.raft.log import Entry
from holdfast.raft.messages import Append

ROUNDS = 3000
MESSAGE = raft_pb2.PeerFrame(messages=[codec.encode(Append(1, 2, 3, 4, 3, [Entry(5, 3, b"x" * 200)], 4))])


async def tcp() -> tuple[float, float]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(frame(raft_pb2.PeerFrame.FromString(await read_frame(reader))))
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])

    async def trip() -> None:
        writer.write(frame(MESSAGE))
        raft_pb2.PeerFrame.FromString(await read_frame(reader))

    result = await timed(trip)
    writer.close()
    server.close()
    return result


async def grpc_stream() -> tuple[float, float]:
    async def echo(requests: AsyncIterator[raft_pb2.PeerFrame], _: object) -> AsyncIterator[raft_pb2.PeerFrame]:
        async for request in requests:
            yield request

    codecs = {
        "request_deserializer": raft_pb2.PeerFrame.FromString,
        "response_serializer": raft_pb2.PeerFrame.SerializeToString,
    }
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("x", {"Peer": grpc.stream_stream_rpc_method_handler(echo, **codecs)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(
            "/x/Peer",
            request_serializer=raft_pb2.PeerFrame.SerializeToString,
            response_deserializer=raft_pb2.PeerFrame.FromString,
        )()

        async def trip() -> None:
            await call.write(MESSAGE)
            await call.read()

        result = await timed(trip)
        call.cancel()
    await server.stop(0)
    return result


async def timed(trip: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """(microseconds, CPU microseconds) for one round trip."""
    for _ in range(200):
        await trip()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(ROUNDS):
        await trip()
    return (time.perf_counter() - wall) / ROUNDS * 1e6, (time.process_time() - cpu) / ROUNDS * 1e6


def main() -> None:
    print("a round trip of a 200-byte entry:")
    for name, run in (("frames on TCP", tcp), ("gRPC stream", grpc_stream)):
        wall, cpu = uvloop.run(run())
        print(f"  {name:<14} {wall:.0f} µs, {cpu:.0f} µs of CPU")


if __name__ == "__main__":
    main()
