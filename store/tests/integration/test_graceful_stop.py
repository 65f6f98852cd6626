"""SIGTERM: leadership is handed over, streams end so that clients go elsewhere, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import grpc.aio
from holdfast import client
from holdfast.proto import rpc_pb2
from holdfast_lab.processes import LocalCluster


async def test_a_leader_that_is_stopped_hands_over(cluster: LocalCluster) -> None:
    await cluster.wait_ready()
    leader = await cluster.leader()
    others = [p.endpoint for p in cluster.voters.values() if p is not leader]
    async with grpc.aio.insecure_channel(leader.endpoint) as channel:
        watching = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=rpc_pb2.WatchRequest.SerializeToString,
            response_deserializer=rpc_pb2.WatchResponse.FromString,
        )()
        await watching.write(rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"k")))
        created = await watching.read()
        assert created.created
        stopping = asyncio.ensure_future(asyncio.to_thread(leader.stop))
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await watching.read() is not grpc.aio.EOF:
                pass
        assert await watching.code() is grpc.StatusCode.UNAVAILABLE
        assert await watching.details() == "etcdserver: server stopped"
        assert await stopping == 0
    async with client.connect(others) as hf:
        # The new leader was asked to lead before the old one left: no election timeout has to pass.
        status = await hf.status(others[0])
        assert status.leader not in (0, created.header.member_id)
        await hf.put("k", "v")


async def test_a_watch_of_our_client_outlives_its_server(cluster: LocalCluster) -> None:
    await cluster.wait_ready()
    async with client.connect(cluster.endpoints) as hf:
        first = await hf.put("k", "0")
        seen: list[str] = []

        async def watch() -> None:
            async for event in hf.watch("k", start_revision=first.revision):
                seen.append(event.kv.value.decode())
                if event.kv.value == b"end":
                    return

        watching = asyncio.ensure_future(watch())
        expected = ["0"]
        for n, process in enumerate(cluster.voters.values(), 1):
            await asyncio.to_thread(process.stop)
            await hf.put("k", str(n))
            expected.append(str(n))
            process.start()
            await cluster.wait_ready()
        await hf.put("k", "end")
        async with asyncio.timeout(20):
            await watching
        assert seen == [*expected, "end"]
