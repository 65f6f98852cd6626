"""Large requests of permitted clients: the largest request, and snapshots that are not read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from holdfast import client
from holdfast.api.maintenance import MAX_SNAPSHOTS
from holdfast.proto import rpc_pb2
from holdfast_lab.processes import LocalCluster

LARGEST = 60 << 20


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """One, with a few MiB of data."""
    alone = LocalCluster(tmp_path, voters=1)
    alone.start()
    try:
        await alone.wait_ready()
        async with client.connect(alone.endpoints) as hf:
            for n in range(40):
                await hf.put(f"k{n}", os.urandom(200_000))
        yield alone
    finally:
        alone.kill()
        print(alone.logs())


def snapshot(channel: grpc.aio.Channel) -> grpc.aio.UnaryStreamCall[rpc_pb2.SnapshotRequest, rpc_pb2.SnapshotResponse]:
    return channel.unary_stream(
        "/etcdserverpb.Maintenance/Snapshot",
        request_serializer=rpc_pb2.SnapshotRequest.SerializeToString,
        response_deserializer=rpc_pb2.SnapshotResponse.FromString,
    )(rpc_pb2.SnapshotRequest())


async def test_snapshots_that_nobody_reads_are_few(member: LocalCluster) -> None:
    """20 of them kept a copy of the data each: 147 MB on the disk became 1,796."""
    async with grpc.aio.insecure_channel(member.endpoints[0]) as channel:
        unread = [snapshot(channel) for _ in range(MAX_SNAPSHOTS)]
        for call in unread:
            assert (await call.read()).blob
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await snapshot(channel).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        state = member.directory / "m1" / "state"
        assert len(list(state.glob("sending-*.tar"))) == MAX_SNAPSHOTS
        unread[0].cancel()
        async with asyncio.timeout(20):
            while True:  # until the one that was given up is cleared away
                another = snapshot(channel)
                with contextlib.suppress(grpc.aio.AioRpcError):
                    blobs = [response.blob async for response in another]
                if await another.code() is grpc.StatusCode.OK:
                    break
                assert await another.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert sum(map(len, blobs)) > 40 * 200_000


async def test_a_snapshot_that_cannot_be_made_is_answered(member: LocalCluster) -> None:
    shutil.rmtree(member.directory / "m1" / "state")
    async with grpc.aio.insecure_channel(member.endpoints[0]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asyncio.wait_for(snapshot(channel).read(), 20)
    assert refused.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS)


async def test_the_largest_request_does_not_end_the_member(tmp_path: Path) -> None:
    """It was more than a frame of the log may be."""
    alone = LocalCluster(tmp_path, voters=1, extra=[f"--max-request-bytes={LARGEST}"])
    alone.start()
    try:
        await alone.wait_ready()
        async with client.connect(alone.endpoints, timeout=60) as hf:
            put = await hf.put("large", bytes(LARGEST - 100))
            with pytest.raises(client.Refused, match="request is too large"):
                await hf.put("larger", bytes(LARGEST))
        alone.kill()
        alone.start()
        await alone.wait_ready(60)
        async with client.connect(alone.endpoints, timeout=60) as hf:
            assert (await hf.range("large", keys_only=True)).kvs[0].mod_revision == put.revision
    finally:
        alone.kill()
        print(alone.logs())
