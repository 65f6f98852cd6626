"""Cells that go away, or are taken in again by two programs, in the middle of a change of the set."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest
from holdfast.cells import Cells, wire
from holdfast.cells.ballot import Ballot
from holdfast.cells.errors import CellsUnavailable, NotSetUp
from holdfast.cells.record import Record
from holdfast.proto import rpc_pb2
from holdfast_lab.sim.cells.cell import Answered, SimCell
from holdfast_lab.sim.cells.network import client_of
from holdfast_lab.sim.cells.weather import Weather
from holdfast_lab.virtual_loop import VirtualLoop

OLD = Record().changed(b"old", b"a change").packed()


class Leaving(SimCell):
    """It goes away after a number of requests."""

    left = -1

    def execute(self, request: rpc_pb2.TxnRequest, answered: Answered[rpc_pb2.TxnResponse]) -> None:
        self.left -= 1
        self.up = self.left != 0
        super().execute(request, answered)


def run(work: Coroutine[Any, Any, None]) -> None:
    random.seed(1)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work)


def reach(*cells: SimCell) -> Cells:
    weather = Weather(random.Random(1))
    weather.calm = True
    return Cells({cell.name: client_of(cell, weather) for cell in cells}, 5.0)


@pytest.mark.parametrize("requests", range(1, 12))
def test_a_cell_that_comes_back_brings_nothing_of_what_it_had_before_it_was_removed(requests: int) -> None:
    """It had accepted a value with a high ballot, which was not decided then. It is removed, and goes away while it is
    added again."""

    async def work() -> None:
        a, b, c = SimCell("a", 1), SimCell("b", 2), Leaving("c", 3)
        async with reach(a, b, c) as them:
            await them.set_up()
            identity = await them.client("c").get(wire.SELF)
            assert identity is not None
            await them.client("c").commit(wire.accept(identity.value, "r", Ballot(100, 1), OLD))
            await them.change_set({"a", "b"})
            await them.register("r").change(lambda _: b"new")
            c.left = requests
            try:
                await them.change_set({"a", "b", "c"})
            except CellsUnavailable:
                c.left, c.up = -1, True
                await them.change_set({"a", "b", "c"})
        c.left, c.up = -1, True
        b.up = False
        async with reach(a, b, c) as them:
            assert await them.register("r").read() == b"new"

    run(work())


def test_a_cell_is_taken_in_again_by_two_programs() -> None:
    """The second one finds that it counts, and does not remove it."""

    async def work() -> None:
        a, b, c = SimCell("a", 1), SimCell("b", 2), SimCell("c", 3)
        async with reach(a, b, c) as them, reach(a, b, c) as others:
            await them.set_up()
            await them.register("r").change(lambda _: b"new")
            c.restore(c.backup(), 30)
            await asyncio.gather(them.readmit("c"), others.readmit("c"))
            taken_in = await them.change_set({"a", "b", "c"})
            assert taken_in.is_member("c", 30)
            await others.readmit("c")
            assert await others.change_set({"a", "b", "c"}) == taken_in

    run(work())


def test_a_cluster_of_another_set_is_not_added() -> None:
    async def work() -> None:
        a, b, c, d = (SimCell(name, number) for number, name in enumerate("abcd", 1))
        async with reach(a, b) as them, reach(c, d) as others, reach(a, b, c) as wrong:
            await them.set_up()
            await others.set_up()
            with pytest.raises(NotSetUp, match="c belongs to another set of cells, that of c, d"):
                await wrong.change_set({"a", "b", "c"})
            assert await others.register("r").change(lambda _: b"x") == b"x"

    run(work())
