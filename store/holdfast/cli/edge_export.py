"""`holdfast edge export`: prints all keys that a replica holds, also while it is cut off, or its cluster is lost."""

from __future__ import annotations

import base64
import json

from holdfast import client
from holdfast.cli.errors import fail
from holdfast.cli.session import LOCAL, Endpoints, Timeout, TlsDir, User, run
from holdfast.proto import holdfast_pb2, kv_pb2, rpc_pb2

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
    one replica. It needs no network to the cluster."""

    async def work(hf: client.Client) -> None:
        if len(hf.connection.endpoints) != 1:
            fail("name one replica: what several of them have is not the same", 2)
        node = await hf.describe()
        if node.state != node.REPLICA:
            fail(f"{endpoints} is no replica; of a cluster, make a snapshot: holdfast snapshot save", 2)
        head = {"cluster": f"{node.cluster_id:x}", "epoch": node.epoch, "revision": node.revision, "replica": node.name}
        print(json.dumps(head))
        for held in node.held:
            await _print(hf, held, node.revision)

    run(endpoints, tls_dir, user, timeout, work)


async def _print(hf: client.Client, held: holdfast_pb2.KeyRange, revision: int) -> None:
    start = held.key
    while True:
        request = rpc_pb2.RangeRequest(
            key=start, range_end=held.range_end, limit=PAGE, revision=revision, serializable=True
        )
        page = await hf.connection.call(_RANGE, request, rpc_pb2.RangeResponse, idempotent=True)
        for kv in page.kvs:
            print(json.dumps(_line(kv)))
        if not page.more:
            return
        start = page.kvs[-1].key + b"\x00"


def _line(kv: kv_pb2.KeyValue) -> dict[str, object]:
    return {
        "key": base64.b64encode(kv.key).decode(),
        "value": base64.b64encode(kv.value).decode(),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "lease": kv.lease,
    }
