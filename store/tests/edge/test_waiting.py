"""Who waits for a number goes on once it is reached, or is told that it was too late, and never both."""

from __future__ import annotations

import asyncio
from functools import partial

from holdfast.edge.waiting import Waiting


async def test_what_is_due_goes_on_in_order_and_once() -> None:
    waiting = Waiting()
    told: list[int] = []
    for number in (5, 3, 9, 3):
        waiting.wait(number, partial(told.append, number), 60.0, lambda: told.append(-1))
    waiting.reached(2)
    assert told == []
    waiting.reached(5)
    waiting.reached(5)
    assert told == [3, 3, 5]


async def test_who_waits_too_long_is_told_and_who_gives_up_is_not() -> None:
    waiting = Waiting()
    told: list[str] = []
    late = asyncio.Event()
    give_up = waiting.wait(7, lambda: told.append("reached"), 0.0, lambda: told.append("given up and late"))
    waiting.wait(7, lambda: told.append("reached"), 0.01, late.set)
    give_up()
    give_up()
    async with asyncio.timeout(10):
        await late.wait()
    waiting.reached(7)
    assert told == []
