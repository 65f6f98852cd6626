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
import random
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
OTHER_SECONDS = 1.0  # after which a courier looks whether another one is still at work
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
        if part_wire.written_twice(self.writes) is not None:
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
        self._known: Lag | None = None  # as of the last message that was sent by this Queue
        self._page: list[tuple[int, bytes]] | None = None  # read ahead
        self._acknowledging: asyncio.Task[None] | None = None
        self._overtaken = False

    # ---- the source ----------------------------------------------------------------------------------------

    async def send(
        self, *messages: Message, if_: Iterable[Compare] = (), then: Iterable[Op] = (), attempts: int = 100
    ) -> int | None:
        """Send messages in one transaction of the source, together with `then`, if the compares hold there. Returns the
        number of the last message; None if a compare did not hold: then nothing was sent. Raises QueueFull."""
        compares, ops = list(if_), list(then)
        lag = self._known
        for _ in range(attempts):
            if lag is None or lag.waiting + len(messages) > MAX_WAITING:
                lag = await self._lag_at_source()
            if lag.waiting + len(messages) > MAX_WAITING:
                raise QueueFull(f"{lag.waiting:,} messages wait in {self._outbox}; the destination is away or slow")
            first = lag.sent + 1
            head = f"{self._outbox}/last"
            unchanged = Key(head).value == str(lag.sent) if lag.sent else Key(head).version == 0
            places = (Ops.put(self._place(first + n), message.packed()) for n, message in enumerate(messages))
            last = lag.sent + len(messages)
            request = rpc_pb2.TxnRequest(
                compare=[unchanged, *compares],
                success=[Ops.put(head, str(last)), *places, *ops],
                failure=[Ops.get(head)],
            )
            self._known = None  # unless it is known what became of it
            answer = await self._links.request(self._names[0], request, self._timeout)
            if answer.succeeded:
                self._known = Lag(last, lag.arrived)
                return last
            if _number_in(answer) == lag.sent:
                self._known = lag
                return None  # it was not the other senders
            lag = None
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
        """Deliver what is sent, until it is cancelled. Any number of processes may do this; one is at work, and the
        others go on when it stops. `told` is called with the number of messages that have arrived, and with the error
        while a cell is away."""
        while True:
            try:
                delivered = await self._deliver_next()
            except ClientError as error:
                delivered = 0
                told(error)
            if delivered:
                told(delivered)
            if self._overtaken:
                await self._let_the_other_deliver()
            elif not delivered:
                await asyncio.sleep(PAUSE_SECONDS)

    async def deliver(self) -> int:
        """Bring what waits to the destination, as much as one transaction takes. Returns how many messages of those
        that waited have arrived, by whomever. Raises ClientError if a cell does not answer."""
        self._page = None  # what was read before may have been delivered by others
        arrived = await self._deliver_next()
        await self._acknowledged()
        return arrived

    async def _deliver_next(self) -> int:
        """While a batch is carried out the next one is read, and the one before is removed from the outbox."""
        page, self._page = self._page, None
        if not page:
            await self._acknowledged()
            page = await self._read(0)
        if not page:
            return 0
        first = page[0][0]
        messages = _together([packed for _, packed in page])
        last = first + len(messages) - 1
        carrying = asyncio.ensure_future(self._carry_out(first, messages))
        try:
            ahead = await self._read(last + 1)
            reached = await carrying
        finally:
            carrying.cancel()
        if reached == last:
            self._page = ahead
        arrived = max(0, reached - first + 1)
        if arrived:
            await self._acknowledged()
            self._acknowledging = asyncio.ensure_future(self._acknowledge(reached))
        return arrived

    async def _read(self, number: int) -> list[tuple[int, bytes]]:
        """Messages of the outbox, from this number on."""
        prefix = f"{self._outbox}/messages/".encode()
        read = rpc_pb2.RangeRequest(key=self._place(number).encode(), range_end=prefix_end(prefix), limit=AT_ONCE)
        request = rpc_pb2.TxnRequest(success=[Op(request_range=read)])
        answer = await self._links.request(self._names[0], request, self._timeout)
        return [(int(kv.key[len(prefix) :]), kv.value) for kv in answer.responses[0].response_range.kvs]

    async def _acknowledged(self) -> None:
        """Wait for what is being removed from the outbox. Raises ClientError."""
        if self._acknowledging is not None:
            task, self._acknowledging = self._acknowledging, None
            await task

    async def _let_the_other_deliver(self) -> None:
        """Another courier carries out messages: wait until it does not any more. Raises nothing."""
        self._overtaken, self._page = False, None
        before = -1
        while (there := await self._arrived_there(before)) != before:
            before = there
            await asyncio.sleep(OTHER_SECONDS * random.uniform(0.5, 1.5))

    async def _arrived_there(self, unknown: int) -> int:
        try:
            read = rpc_pb2.TxnRequest(success=[Ops.get(f"{self._inbox}/last")])
            return _number_in(await self._links.request(self._names[1], read, self._timeout))
        except ClientError:
            return unknown

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
        there = _number_in(done)
        if there != first - 1:
            self._overtaken = True  # by another courier
            return there
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
        prefix = f"{self._inbox}/refused/".encode()
        async for key, message in self._links.rows(self._names[1], prefix):
            yield int(key.removeprefix(prefix)), Message.unpacked(message)

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


def _number_in(answer: rpc_pb2.TxnResponse) -> int:
    """What a number is that was read; 0 if it is not there."""
    kvs = answer.responses[0].response_range.kvs
    return int(kvs[0].value) if kvs else 0


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
