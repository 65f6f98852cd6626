"""Clients take turns for places: counted in pieces of work, not in seconds."""

from __future__ import annotations

import asyncio

import pytest
from holdfast.places import Full, Places


class Work:
    """Pieces of work that end when told to, and the order in which they began."""

    def __init__(self, count: int = 2, share: int = 64) -> None:
        self.places = Places(count, share)
        self.began: list[str] = []
        self._ends: list[asyncio.Event] = []

    def start(self, name: str, address: str) -> asyncio.Task[None]:
        place = self.places.ask(address)

        async def work() -> None:
            async with place:
                self.began.append(name)
                end = asyncio.Event()
                self._ends.append(end)
                await end.wait()

        task = asyncio.ensure_future(work())
        task.add_done_callback(lambda done: place.give_up() if done.cancelled() else None)
        return task

    async def end(self, count: int = 1) -> None:
        """End the `count` oldest pieces one after the other."""
        for _ in range(count):
            self._ends.pop(0).set()
            await settled()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_flood_of_one_connection_delays_others_by_one_piece() -> None:
    work = Work()
    for _ in range(64):
        work.start("flood", "10.0.0.1:1")
    with pytest.raises(Full):
        work.places.ask("10.0.0.1:1")
    work.start("polite", "10.0.0.1:2")  # another connection, even of the same host
    await settled()
    assert work.began == ["flood", "flood"]
    await work.end(2)
    assert work.began.index("polite") <= 3
    await work.end(63)
    assert work.began.count("flood") == 64
    work.places.ask("10.0.0.1:1")  # its share is free again


@pytest.mark.parametrize(
    ("many", "other"),
    [
        ([f"10.0.0.1:{port}" for port in range(1, 201)], "10.0.0.2:1"),
        ([f"2001:db8::{n:x}:{n}" for n in range(1, 201)], "2001:db8:0:1::1:1"),  # all of one network
    ],
)
async def test_many_connections_of_one_address_have_one_turn(many: list[str], other: str) -> None:
    work = Work()
    for address in many:
        work.start("many", address)
    work.start("other", other)
    await settled()
    await work.end(2)
    assert work.began.index("other") <= 3


async def test_every_connection_has_its_turn_in_the_order_of_arrival() -> None:
    work = Work(count=1)
    for name in "aaabbbcc":
        work.start(name, f"10.0.0.1:{ord(name)}")
    await settled()
    await work.end(7)
    assert "".join(work.began) == "aabcabcb"


async def test_who_gives_up_has_no_place_and_no_share() -> None:
    work = Work(count=1, share=3)
    first = work.start("first", "h:1")
    waiting = [work.start("gone", "h:1") for _ in range(2)]
    kept = work.start("kept", "h:2")
    await settled()
    for task in waiting:
        task.cancel()
    await settled()
    assert not kept.done()
    work.start("later", "h:1")
    await settled()
    await work.end(2)
    assert work.began == ["first", "kept", "later"]
    assert first.done()
    await work.end()
    assert not work.places._open
    assert not work.places._waiting


async def test_a_place_is_not_lost_when_its_task_ends_as_its_turn_comes() -> None:
    work = Work(count=1)
    work.start("first", "h:1")
    second = work.start("second", "h:2")
    work.start("third", "h:3")
    await settled()
    work._ends.pop().set()
    await asyncio.sleep(0)  # the turn has come, and its task has not run yet
    second.cancel()
    await settled()
    assert work.began == ["first", "third"]


async def test_work_that_has_begun_cannot_be_given_up() -> None:
    places = Places(1, 2)
    place = places.ask("h:1")
    async with place:
        place.give_up()
        waiting = places.ask("h:2")
    async with waiting:
        pass
    assert not places._open
