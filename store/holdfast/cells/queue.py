"""Queues between cells: what is sent in a transaction of one cell is done in another one, in order and exactly once.

    orders = them.queue("eu", "us")
    await orders.send(Message(writes=[Ops.put("/orders/7", "…")]), then=[Ops.put("/sent/7", "yes")])
    ...
    await orders.deliver()          # by any process, over and over: `run`

In the source:

    /cells/outbox/DST/last             number of the last message that was sent
    /cells/outbox/DST/acknowledged     number of the last one that has arrived
    /cells/outbox/DST/messages/NUMBER  those that have not

In the destination:

    /cells/inbox/SRC/last              number of the last message that was carried out
    /cells/inbox/SRC/refused/NUMBER    messages whose compares did not hold, with what they were
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from holdfast.cells import part_wire
from holdfast.cells.errors import QueueFull
from holdfast.cells.links import Links
from holdfast.client.client import Client
from holdfast.client.errors import ClientError
from holdfast.client.txn import Compare, Key, Op, Ops
from holdfast.keyrange import prefix_end
from holdfast.proto import cells_pb2, rpc_pb2

OUTBOX, INBOX = "/cells/outbox/", "/cells/inbox/"
MAX_WAITING = 10_000  # messages in an outbox
AT_ONCE = 100  # messages in one transaction of the destination
MAX_WRITES = 110  # operations of a transaction; a cell allows 128
MAX_BYTES = 1 << 20  # of messages that go together; a cell takes requests of 2 MiB
REFUSALS = 5  # after which a message is put aside
PAUSE_SECONDS = 0.05  # before a message is tried again, or an empty outbox is looked at


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be done at the destination: `writes`, if the `compares` hold there."""

    writes: Sequence[Op]
    compares: Sequence[Compare] = field(default=())

    def packed(self) -> bytes:
        """Raises ValueError for what the destination could never carry out, because it would stop the queue."""
        if max(len(self.writes), len(self.compares)) > MAX_WRITES:
            raise ValueError(f"a message has at most {MAX_WRITES} writes, and as many compares")
        if len({part_wire.key_of(op) for op in self.writes}) < len(self.writes):
            raise ValueError("a message writes each key once")
        found = cells_pb2.QueueMessage(compares=self.compares, writes=part_wire.writes(list(self.writes)))
        return found.SerializeToString()

    @staticmethod
    def unpacked(data: bytes) -> Message:
        found = cells_pb2.QueueMessage.FromString(data)
        return Message(tuple(found.writes), tuple(found.compares))


@dataclass(frozen=True, slots=True)
class Lag:
    """`sent` and `arrived`: messages since the beginning."""

    sent: int
    arrived: int

    @property
    def waiting(self) -> int:
        return self.sent - self.arrived


class Queue:
    """From the cell `source` to the cell `destination`."""

    def __init__(self, links: Links, source: str, destination: str, timeout: float) -> None:
        if source == destination:
            raise ValueError("a queue leads from one cell to another one; inside a cell a transaction does")
        self._links = links
        for cell in (source, destination):
            if cell not in links.clients:
                raise ValueError(f"{cell} is no cell; there are {', '.join(sorted(links.clients))}")
        self._names = source, destination
        self._timeout = timeout
        self._outbox = f"{OUTBOX}{destination}"
        self._inbox = f"{INBOX}{source}"
        self._source: Client = links.clients[source]
        self._destination: Client = links.clients[destination]
        self._refusals = 0

    # ---- the source ----------------------------------------------------------------------------------------

    async def send(
        self, *messages: Message, if_: Iterable[Compare] = (), then: Iterable[Op] = (), attempts: int = 100
    ) -> int | None:
        """Send messages in one transaction of the source, together with `then`, if the compares hold there. Returns the
        number of the last message; None if a compare did not hold: then nothing was sent. Raises QueueFull."""
        compares, ops = list(if_), list(then)
        for _ in range(attempts):
            lag = await self._lag_at_source()
            if lag.waiting + len(messages) > MAX_WAITING:
                raise QueueFull(f"{lag.waiting:,} messages wait in {self._outbox}; the destination is away or slow")
            first = lag.sent + 1
            head = f"{self._outbox}/last"
            unchanged = Key(head).value == str(lag.sent) if lag.sent else Key(head).version == 0
            answer = await (
                self._source.txn()
                .if_(unchanged, *compares)
                .then(
                    Ops.put(head, str(lag.sent + len(messages))),
                    *(Ops.put(self._place(first + n), m.packed()) for n, m in enumerate(messages)),
                    *ops,
                )
                .else_(Ops.get(head))
                .commit()
            )
            if answer.succeeded:
                return lag.sent + len(messages)
            (found,) = answer.responses
            if isinstance(found, list) and (int(found[0].value) if found else 0) == lag.sent:
                return None  # it was not the other senders
        raise QueueFull(f"{attempts} other messages came first, one after the other; send more of them at once")

    def _place(self, number: int) -> str:
        return f"{self._outbox}/messages/{number:020d}"

    async def _lag_at_source(self) -> Lag:
        """Raises Restored if the source was: it knows of messages that it has sent no more."""
        read = [Ops.get(f"{self._outbox}/last"), Ops.get(f"{self._outbox}/acknowledged")]
        answer = await self._links.request(self._names[0], rpc_pb2.TxnRequest(success=read), self._timeout)
        found = (response.response_range.kvs for response in answer.responses)
        sent, arrived = (int(kvs[0].value) if kvs else 0 for kvs in found)
        return Lag(sent, arrived)

    async def lag(self) -> Lag:
        """How many messages were sent, and how many have arrived, as the source knows."""
        return await self._lag_at_source()

    # ---- the courier ---------------------------------------------------------------------------------------

    async def run(self, told: Callable[[int | ClientError], None] = lambda _: None) -> None:
        """Deliver what is sent, until it is cancelled. Any number of processes may do this. `told` is called with the
        number of messages that have arrived, and with the error while a cell is away."""
        while True:
            try:
                delivered = await self.deliver()
            except ClientError as error:
                delivered = 0
                told(error)
            if delivered:
                told(delivered)
            else:
                await asyncio.sleep(PAUSE_SECONDS)

    async def deliver(self) -> int:
        """Bring what waits to the destination, as much as one transaction takes. Returns how many messages of those
        that waited have arrived, by whomever. Raises ClientError if a cell does not answer."""
        prefix = f"{self._outbox}/messages/".encode()
        page = Op(request_range=rpc_pb2.RangeRequest(key=prefix, range_end=prefix_end(prefix), limit=AT_ONCE))
        answer = await self._links.request(self._names[0], rpc_pb2.TxnRequest(success=[page]), self._timeout)
        waiting = answer.responses[0].response_range.kvs
        if not waiting:
            return 0
        first = int(waiting[0].key.decode().rpartition("/")[2])
        messages = _together([kv.value for kv in waiting])
        last = await self._carry_out(first, messages)
        arrived = max(0, last - first + 1)
        if arrived:
            await self._acknowledge(last)
        return arrived

    async def _carry_out(self, first: int, messages: list[cells_pb2.QueueMessage]) -> int:
        """Returns the number of the last message that the destination has."""
        place = f"{self._inbox}/last"
        before = Key(place).value == str(first - 1) if first > 1 else Key(place).version == 0
        last = first + len(messages) - 1
        request = rpc_pb2.TxnRequest(
            compare=[before, *(compare for message in messages for compare in message.compares)],
            success=[*(op for message in messages for op in message.writes), Ops.put(place, str(last))],
            failure=[Ops.get(place)],
        )
        done = await self._links.request(self._names[1], request, self._timeout)
        if done.succeeded:
            self._refusals = 0
            return last
        kvs = done.responses[0].response_range.kvs
        there = int(kvs[0].value) if kvs else 0
        if there != first - 1:
            return there  # another courier was faster
        self._refusals += 1
        if self._refusals < REFUSALS:
            return there
        return await self._put_aside(first, messages[0], before)

    async def _put_aside(self, number: int, message: cells_pb2.QueueMessage, before: Compare) -> int:
        """The compares of this message do not hold: keep it for a person, and go on with the next one."""
        self._refusals = 0
        aside = Ops.put(f"{self._inbox}/refused/{number:020d}", message.SerializeToString())
        done = await (
            self._destination.txn().if_(before).then(aside, Ops.put(f"{self._inbox}/last", str(number))).commit()
        )
        return number if done.succeeded else number - 1

    async def refused(self) -> AsyncIterator[tuple[int, Message]]:
        """The messages that were put aside, with their numbers."""
        prefix = f"{self._inbox}/refused/"
        start = prefix
        while True:
            page = await self._destination.range(start, end=prefix_end(prefix.encode()), limit=AT_ONCE)
            for kv in page.kvs:
                yield int(kv.key.decode().removeprefix(prefix)), Message.unpacked(kv.value)
            if not page.more:
                return
            start = page.kvs[-1].key.decode() + "\0"

    async def _acknowledge(self, last: int) -> None:
        """Remove what has arrived. Who comes late removes nothing that has not."""
        gone = rpc_pb2.DeleteRangeRequest(
            key=f"{self._outbox}/messages/".encode(), range_end=self._place(last + 1).encode()
        )
        place = f"{self._outbox}/acknowledged"
        known = await self._source.get(place)
        if known is not None and int(known.value) >= last:
            return
        unchanged = Key(place).mod_revision == (known.mod_revision if known is not None else 0)
        await self._source.commit(
            rpc_pb2.TxnRequest(
                compare=[unchanged],
                success=[Op(request_delete_range=gone), Ops.put(place, str(last))],
            )
        )


def _together(waiting: Iterable[bytes]) -> list[cells_pb2.QueueMessage]:
    """The first ones that one transaction can carry out: one with compares goes alone, because what does not hold must
    not hold up the others; and no key is written twice."""
    found: list[cells_pb2.QueueMessage] = []
    written: set[bytes] = set()
    size = 0
    for packed in waiting:
        message = cells_pb2.QueueMessage.FromString(packed)
        keys = {part_wire.key_of(op) for op in message.writes}
        size += len(packed)
        alone = bool(message.compares)
        if found and (alone or keys & written or len(written) + len(keys) > MAX_WRITES or size > MAX_BYTES):
            break
        found.append(message)
        written |= keys
        if alone:
            break
    return found
