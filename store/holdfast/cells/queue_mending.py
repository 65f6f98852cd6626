"""Lets the queues of a restored cell go on, in the time in which it does not belong to the set of cells.

Its snapshot is a beginning of what it was, so what both cells have under a number is the same message. What came after
the snapshot is only known to the other cell: the queue goes on behind that.

| The restored cell is | It is told | Because |
|---|---|---|
| the source | that all has arrived that the destination has, and to go on behind that | each number is taken once |
| the destination | that it has what the source has removed | nobody has these messages any more: they are lost |
"""

from __future__ import annotations

from holdfast.cells import wire
from holdfast.cells.links import Links
from holdfast.cells.queue import INBOX, OUTBOX
from holdfast.client.client import Client
from holdfast.client.txn import Key, Op, Ops
from holdfast.proto import rpc_pb2


async def mend_queues(links: Links, cell: str) -> dict[str, int]:
    """Returns how many messages of each source are lost. All other cells that it has queues with have to answer. What
    another program has mended and taken in meanwhile is left as it is. Raises ClientError."""
    restored, lost = await _Restored.of(links.clients[cell]), {}
    for other, client in links.clients.items():
        if other == cell:
            continue
        await _as_source(restored, f"{OUTBOX}{other}", await _number(client, f"{INBOX}{cell}/last"))
        lost[other] = await _as_destination(restored, f"{INBOX}{other}/last", client, f"{OUTBOX}{cell}/acknowledged")
    return {source: count for source, count in lost.items() if count}


class _Restored:
    """A cell that does not belong to the set. Nothing is written any more once it does."""

    def __init__(self, client: Client, outside: rpc_pb2.Compare) -> None:
        self.client = client
        self._outside = outside

    @staticmethod
    async def of(client: Client) -> _Restored:
        identity = await client.get(wire.SELF)
        return _Restored(client, Key(wire.SELF).mod_revision == (0 if identity is None else identity.mod_revision))

    async def write(self, *ops: Op) -> bool:
        """Whether it was written."""
        return (await self.client.txn().if_(self._outside).then(*ops).commit()).succeeded


async def _as_source(restored: _Restored, outbox: str, arrived: int) -> None:
    sent = await _number(restored.client, f"{outbox}/last")
    acknowledged = await _number(restored.client, f"{outbox}/acknowledged")
    if arrived <= acknowledged:
        return
    messages = f"{outbox}/messages/"
    gone = rpc_pb2.DeleteRangeRequest(key=messages.encode(), range_end=f"{messages}{arrived + 1:020d}".encode())
    told = [
        Op(request_delete_range=gone),
        Ops.put(f"{outbox}/acknowledged", str(arrived)),
        Ops.put(f"{outbox}/last", str(max(sent, arrived))),
    ]
    await restored.write(*told)


async def _as_destination(restored: _Restored, place: str, source: Client, removed: str) -> int:
    has, gone = await _number(restored.client, place), await _number(source, removed)
    return gone - has if has < gone and await restored.write(Ops.put(place, str(gone))) else 0


async def _number(client: Client, key: str) -> int:
    found = await client.get(key)
    return 0 if found is None else int(found.value)
