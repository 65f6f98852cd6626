"""Messages between clusters of real processes, with couriers that stop and cells that are killed."""

from __future__ import annotations

import asyncio

import pytest
from holdfast.cells import Lag, Message, QueueFull
from holdfast.client import Client
from holdfast.client.txn import Ops
from holdfast_lab.processes import LocalCluster

from .test_registers import clusters, reach  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(180)
COUNT = 400


async def test_each_message_is_carried_out_once_and_in_order(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters, 20.0) as them, reach(clusters, 20.0) as others:
        await them.set_up()
        queue = them.queue("eu", "us")
        couriers = [asyncio.ensure_future(each.queue("eu", "us").run()) for each in (them, others)]

        async def send() -> None:
            """Each message adds its number to what is there, and the source notes that it was sent."""
            for number in range(0, COUNT, 4):
                numbers = range(number, number + 4)
                messages = [Message([Ops.put(f"/got/{n:06d}", str(n))]) for n in numbers]
                assert await queue.send(*messages, then=[Ops.put("/sent", str(number + 4))]) == number + 4

        sending = asyncio.ensure_future(send())
        for number, cell in enumerate(("us", "eu", "us"), 1):
            while (await queue.lag()).arrived < number * COUNT // 8:
                await asyncio.sleep(0.01)
            clusters[cell].kill()
            clusters[cell].start()
            couriers.pop(0).cancel()
            couriers.append(asyncio.ensure_future(others.queue("eu", "us").run()))
        await sending
        while await queue.lag() != Lag(COUNT, COUNT):
            await asyncio.sleep(0.02)
        for courier in couriers:
            courier.cancel()
        got = (await them.client("us").range("/got/", prefix=True)).kvs
        assert [int(kv.value) for kv in got] == list(range(COUNT))
        assert {kv.version for kv in got} == {1}, "each was written once"
        by_revision = sorted(got, key=lambda kv: (kv.mod_revision, kv.key))
        assert [kv.key for kv in by_revision] == [kv.key for kv in got], "in order"
        left = await them.client("eu").range("/cells/outbox/us/messages/", prefix=True)
        assert left.count == 0


async def test_a_message_that_is_refused_is_put_aside(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them:
        await them.set_up()
        queue = them.queue("eu", "us")
        free = [Client.key("/seat").version == 0]
        await queue.send(
            Message([Ops.put("/seat", "first")], free),
            Message([Ops.put("/seat", "second")], free),
            Message([Ops.put("/after", "yes")]),
        )
        assert await queue.send(Message([Ops.put("/x", "1")]), if_=[Client.key("/no").version > 0]) is None
        while (await queue.lag()).waiting:
            await queue.deliver()
        us = them.client("us")
        assert [kv.value for kv in (await us.range("/seat")).kvs] == [b"first"]
        assert [kv.value for kv in (await us.range("/after")).kvs] == [b"yes"]
        aside = (await us.range("/cells/inbox/eu/refused/", prefix=True)).kvs
        assert [kv.key.decode()[-3:] for kv in aside] == ["002"]


async def test_a_full_outbox_says_so(clusters: dict[str, LocalCluster], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("holdfast.cells.queue.MAX_WAITING", 2)
    async with reach(clusters) as them:
        await them.set_up()
        queue = them.queue("eu", "us")
        message = Message([Ops.put("/x", "1")])
        await queue.send(message, message)
        with pytest.raises(QueueFull, match="2 messages wait"):
            await queue.send(message)
        assert await queue.deliver() == 1, "both write the same key, so they go one after the other"
        await queue.deliver()
        await queue.send(message)
