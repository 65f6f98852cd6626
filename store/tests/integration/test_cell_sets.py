"""The set of cells changes, and a cell is restored from a snapshot. Clusters of real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from holdfast.cells import CellsUnavailable, Message
from holdfast.client import ClientError
from holdfast.client.txn import Ops
from holdfast_lab.processes import LocalCluster

from .test_edge_restore import restored
from .test_registers import NAMES, clusters, reach  # noqa: F401 - a fixture
from .test_restore import holdfast

pytestmark = pytest.mark.timeout(180)


async def test_cells_are_added_and_removed(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    two = {name: clusters[name] for name in ("eu", "us")}
    async with reach(two) as first:
        await first.set_up()
        assert await first.register("primary").change(lambda _: "eu") == b"eu"
    async with reach(clusters) as them, reach(clusters) as others:
        assert await others.register("primary").read() == b"eu"
        clusters["ap"].kill()
        with pytest.raises(CellsUnavailable, match="ap cannot be asked"):
            await them.change_set(set(NAMES))
        assert await others.register("primary").change(lambda _: "us") == b"us"
        clusters["ap"].start()
        await clusters["ap"].wait_ready(60)
        changed = await them.change_set(set(NAMES))
        assert (changed.version, sorted(changed.cells), sorted(changed.after)) == (3, sorted(NAMES), [])
        clusters["eu"].kill()
        assert await others.register("primary").change(lambda before: (before or b"") + b"+") == b"us+"
        clusters["eu"].start()
        await clusters["eu"].wait_ready(60)
        changes = await asyncio.gather(them.change_set({"us", "ap"}), others.change_set({"us", "ap"}))
        assert [(found.version, sorted(found.cells)) for found in changes] == [(5, ["ap", "us"])] * 2
        clusters["eu"].kill()
        assert await them.register("primary").read() == b"us+"


async def test_a_restored_cell_is_taken_in_again(
    clusters: dict[str, LocalCluster],  # noqa: F811
    tmp_path: Path,
) -> None:
    saved = tmp_path / "saved.db"
    async with reach(clusters) as them, reach(clusters) as others:
        await them.set_up()
        primary = them.register("primary")
        there, back = them.queue("eu", "us"), them.queue("us", "eu")
        await primary.change(lambda _: "1")
        for queue in (there, back):
            await queue.send(Message([Ops.put("/first", "1")]))
            assert await queue.deliver() == 1
        (voter,) = clusters["eu"].voters.values()
        holdfast("snapshot", "save", str(saved), "--endpoints", voter.endpoint)
        await primary.change(lambda _: "2")
        for queue in (there, back):
            for number in (2, 3):
                await queue.send(Message([Ops.put("/later", str(number))]))
            assert await queue.deliver() == 1, "two writes of a key do not go together"
            assert await queue.deliver() == 1

        voter.kill()
        restored(clusters["eu"], saved)
        voter.start()
        await clusters["eu"].wait_ready(60)
        with pytest.raises(ClientError, match="eu does not count"):
            await there.send(Message([Ops.put("/x", "")]))
        clusters["ap"].kill()
        with pytest.raises(CellsUnavailable, match="eu does not count"):
            await primary.read()
        clusters["ap"].start()
        await clusters["ap"].wait_ready(60)

        assert await others.readmit("eu") == {"us": 2}
        clusters["ap"].kill()
        assert await them.register("primary").change(lambda before: (before or b"") + b"+") == b"2+"
        assert (await there.lag()).waiting == 0
        assert await there.send(Message([Ops.put("/after", "there")])) == 4
        assert await back.send(Message([Ops.put("/after", "back")])) == 4
        assert (await there.deliver(), await back.deliver()) == (1, 1)
        for cell, value in (("us", b"there"), ("eu", b"back")):
            found = await them.client(cell).get("/after")
            assert found is not None
            assert found.value == value
