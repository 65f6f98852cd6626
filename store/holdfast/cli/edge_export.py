"""`holdfast edge export`: prints all keys that a replica holds, also while it is cut off, or its cluster is lost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from holdfast import client
from holdfast.cli.errors import fail
from holdfast.cli.session import LOCAL, UNAVAILABLE, Endpoints, Timeout, TlsDir, User, run
from holdfast.edge.change_lines import put_line
from holdfast.proto import holdfast_pb2, kv_pb2, rpc_pb2
from holdfast.status import READ_METADATA

PAGE = 500  # keys
_RANGE = "/etcdserverpb.KV/Range"


def export(
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 5.0,
) -> None:
    """Print the keys that a replica holds, as of one revision, a JSON object in each line.

    The first line says of which cluster, epoch and revision they are. Keys and values are in base64. --endpoints names
    one replica. It needs no network to the cluster, and prints also what --offline of the replica does not let it serve
    now."""

    async def work(hf: client.Client) -> None:
        if len(hf.connection.endpoints) != 1:
            fail("name one replica: what several of them have is not the same", 2)
        node = await hf.describe()
        if node.state != node.REPLICA:
            fail(f"{endpoints} is no replica; of a cluster, make a snapshot: holdfast snapshot save", 2)
        if not node.held:
            fail(f"the replica {node.name} has no data yet: it must reach the cluster once", UNAVAILABLE)
        head = {"cluster": f"{node.cluster_id:x}", "epoch": node.epoch, "revision": node.revision, "replica": node.name}
        lines = [json.dumps(head)]  # printed once a read has succeeded
        for held in node.held:
            async for kvs in _pages(hf, held, node.revision):
                for line in (*lines, *map(put_line, kvs)):
                    print(line)
                lines = []

    run(endpoints, tls_dir, user, timeout, work)


async def _pages(hf: client.Client, held: holdfast_pb2.KeyRange, revision: int) -> AsyncIterator[list[kv_pb2.KeyValue]]:
    start, more = held.key, True
    while more:
        request = rpc_pb2.RangeRequest(
            key=start, range_end=held.range_end, limit=PAGE, revision=revision, serializable=True
        )
        page = await hf.connection.call(
            _RANGE, request, rpc_pb2.RangeResponse, idempotent=True, metadata=((READ_METADATA, "held"),)
        )
        yield list(page.kvs)
        more = page.more and bool(page.kvs)
        if more:
            start = page.kvs[-1].key + b"\x00"
