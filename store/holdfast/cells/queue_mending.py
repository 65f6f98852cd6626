"""Lets the queues of a restored cell go on, in the time in which it does not belong to the set of cells.

Its snapshot is a beginning of what it was, so what both cells have under a number is the same message. What came after
the snapshot is only known to the other cell: the queue goes on behind that.

| The restored cell is | It is told | Because |
|---|---|---|
| the source | that all has arrived that the destination has, and to go on behind that | each number is taken once |
| the destination | that it has what the source has removed | nobody has these messages any more: they are lost |
"""

from __future__ import annotations

from holdfast.cells.links import Links
from holdfast.cells.queue import INBOX, OUTBOX
from holdfast.client.client import Client
from holdfast.client.txn import Op, Ops
from holdfast.proto import rpc_pb2


async def mend_queues(links: Links, cell: str) -> dict[str, int]:
    """Returns how many messages of each source are lost. All other cells that it has queues with have to answer. Raises
    ClientError."""
    restored, lost = links.clients[cell], {}
    for other, client in links.clients.items():
        if other == cell:
            continue
        await _as_source(restored, f"{OUTBOX}{other}", await _number(client, f"{INBOX}{cell}/last"))
        lost[other] = await _as_destination(restored, f"{INBOX}{other}/last", client, f"{OUTBOX}{cell}/acknowledged")
    return {source: count for source, count in lost.items() if count}


async def _as_source(restored: Client, outbox: str, arrived: int) -> None:
    sent, acknowledged = await _number(restored, f"{outbox}/last"), await _number(restored, f"{outbox}/acknowledged")
    if arrived <= acknowledged:
        return
    messages = f"{outbox}/messages/"
    gone = rpc_pb2.DeleteRangeRequest(key=messages.encode(), range_end=f"{messages}{arrived + 1:020d}".encode())
    told = [
        Op(request_delete_range=gone),
        Ops.put(f"{outbox}/acknowledged", str(arrived)),
        Ops.put(f"{outbox}/last", str(max(sent, arrived))),
    ]
    await restored.txn().then(*told).commit()


async def _as_destination(restored: Client, place: str, source: Client, removed: str) -> int:
    has, gone = await _number(restored, place), await _number(source, removed)
    if has >= gone:
        return 0
    await restored.txn().then(Ops.put(place, str(gone))).commit()
    return gone - has


async def _number(client: Client, key: str) -> int:
    found = await client.get(key)
    return 0 if found is None else int(found.value)
