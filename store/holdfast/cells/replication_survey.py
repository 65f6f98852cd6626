"""Which prefixes are replicated between cells, and how far, for people."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.cells.replicated import RECORDS, Replicated
from holdfast.client.client import Client
from holdfast.client.errors import ClientError
from holdfast.keyrange import prefix_end
from holdfast.proto import rpc_pb2

MOST_BEHIND = 1000  # keys; more are not counted


@dataclass(frozen=True, slots=True)
class SurveyedReplication:
    """`revision`: of the source, up to which all changes are at the destination; 0: it has not all keys yet. `behind`:
    how many keys of the source have changed since, MOST_BEHIND or more; None: the source does not say."""

    source: str
    destination: str
    prefix: str
    revision: int
    behind: int | None


async def replications(clients: Mapping[str, Client], timeout: float) -> list[SurveyedReplication]:
    """As the cells that can be asked say. `timeout`: seconds for each read."""
    found = await asyncio.gather(*(_records(client, timeout) for client in clients.values()))
    known = [(to, prefix, record) for to, of in zip(clients, found, strict=True) for prefix, record in of.items()]
    behind = await asyncio.gather(
        *(_changed(clients.get(record.source), prefix, record.revision, timeout) for _, prefix, record in known)
    )
    return [
        SurveyedReplication(record.source, to, prefix.decode(errors="replace"), record.revision, count)
        for (to, prefix, record), count in zip(known, behind, strict=True)
    ]


async def _records(client: Client, timeout: float) -> dict[bytes, Replicated]:
    try:
        async with asyncio.timeout(timeout):
            kvs = (await client.range(RECORDS, prefix=True)).kvs
        return {kv.key.removeprefix(RECORDS): Replicated.unpacked(kv.value, kv.mod_revision) for kv in kvs}
    except (ClientError, TimeoutError, ValueError):
        return {}  # the survey says what is wrong with the cell


async def _changed(client: Client | None, prefix: bytes, since: int, timeout: float) -> int | None:
    if client is None:
        return None
    request = rpc_pb2.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        min_mod_revision=since + 1,
        limit=MOST_BEHIND,
        keys_only=True,
        serializable=True,
    )
    try:
        async with asyncio.timeout(timeout):
            found = await client.connection.call(
                "/etcdserverpb.KV/Range", request, rpc_pb2.RangeResponse, idempotent=True
            )
    except (ClientError, TimeoutError):
        return None
    return len(found.kvs)
