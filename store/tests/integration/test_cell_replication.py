"""A prefix is copied from one cell to another, while everything is killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from holdfast import client
from holdfast.cells import Cells, ReplicationRefused
from holdfast.cells.replicated import RECORDS, Replicated
from holdfast.client.errors import ClientError
from holdfast_lab.processes import LocalCluster

from .test_edge_restore import restored
from .test_registers import clusters, reach  # noqa: F401
from .test_restore import holdfast

PREFIX = "/global/"


async def all_keys(hf: client.Client, prefix: str = PREFIX) -> dict[bytes, bytes]:
    return {kv.key: kv.value for kv in (await hf.range(prefix, prefix=True)).kvs}


@contextlib.asynccontextmanager
async def running(them: Cells, source: str, destination: str, prefix: str = PREFIX) -> AsyncIterator[None]:
    task = asyncio.ensure_future(them.replication(source, destination, prefix).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def same(them: Cells, source: str, destination: str, seconds: float = 60) -> dict[bytes, bytes]:
    """Wait until both have the same keys."""
    async with asyncio.timeout(seconds):
        while True:
            there, here = await all_keys(them.client(source)), await all_keys(them.client(destination))
            if there == here:
                return here
            await asyncio.sleep(0.05)


async def record(them: Cells, cell: str, prefix: str = PREFIX) -> Replicated | None:
    found = await them.client(cell).get(RECORDS + prefix.encode())
    return None if found is None else Replicated.unpacked(found.value, found.mod_revision)


async def test_a_snapshot_comes_and_then_every_change(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them:
        await them.set_up()
        eu, us = them.client("eu"), them.client("us")
        for number in range(300):
            await eu.put(f"/global/{number:03}", f"{number}")
        await eu.put("/other/1", "stays")
        await us.put("/global/007", "is overwritten")
        await us.put("/global/extra", "is removed")
        await us.put("/globally", "stays")
        async with running(them, "eu", "us"):
            await same(them, "eu", "us")
            lease = await eu.lease(1)
            async with lease:
                await eu.put("/global/leased", "for a while", lease=lease)
                await same(them, "eu", "us")
            await eu.delete("/global/1", prefix=True)
            await eu.put("/global/big", "x" * 1_400_000)
            many = [eu.op.put(f"/global/many/{number}", "1") for number in range(128)]
            await eu.txn().then(*many).commit()
            found = await same(them, "eu", "us")
            assert b"/global/leased" not in found
            assert len(found) == 200 + 1 + 128
            kept = await us.get("/global/big")
            assert kept is not None
            assert kept.lease == 0
        assert await all_keys(us, "/globally") == {b"/globally": b"stays"}
        assert await all_keys(us, "/other/") == {}
        # What happened meanwhile comes when it goes on: from the history, or from a snapshot once that is compacted.
        await eu.delete("/global/many/", prefix=True)
        async with running(them, "eu", "us"):
            await same(them, "eu", "us")
        await eu.delete("/global/2", prefix=True)
        last = (await eu.put("/global/last", "1")).revision
        await eu.compact(last)
        async with running(them, "eu", "us"):
            await same(them, "eu", "us")
        assert await all_keys(us, "/globally") == {b"/globally": b"stays"}


async def test_nothing_is_torn_and_nothing_is_missed_while_replicators_are_killed(
    clusters: dict[str, LocalCluster],  # noqa: F811
) -> None:
    """Two keys are written in each transaction; whoever reads both at the destination finds the same number."""
    places = [f"--cell={name}={','.join(cluster.endpoints)}" for name, cluster in clusters.items()]
    words = [sys.executable, "-m", "holdfast", "cells", "replicate", "eu", "us", PREFIX, *places]
    chance = random.Random(5)
    async with reach(clusters) as them:
        await them.set_up()
        eu, us = them.client("eu"), them.client("us")
        over = asyncio.Event()

        async def write() -> None:
            for number in range(1500):
                value = str(number)
                await eu.txn().then(eu.op.put("/global/a", value), eu.op.put("/global/b", value)).commit()
                if number % 10 == 0:
                    await eu.put(f"/global/{number}", value)
            over.set()

        async def look() -> int:
            seen = last = 0
            while not over.is_set():
                found = await all_keys(us, "/global/")
                assert found.get(b"/global/a") == found.get(b"/global/b")
                number = int(found.get(b"/global/a", b"0"))
                assert number >= last
                seen, last = seen + (number > last), number
            return seen

        async def replicate() -> None:
            while not over.is_set():
                both = [subprocess.Popen(words) for _ in range(2)]
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(chance.uniform(1.5, 4)):
                        await over.wait()
                for each in both:
                    each.kill()
                    each.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            group.create_task(replicate())
            looking = group.create_task(look())
        assert looking.result() > 10
        async with running(them, "eu", "us"):
            found = await same(them, "eu", "us")
        assert found[b"/global/a"] == b"1499"


async def test_what_would_come_back_to_where_it_comes_from_is_refused(
    clusters: dict[str, LocalCluster],  # noqa: F811
) -> None:
    async with reach(clusters) as them:
        await them.set_up()
        eu = them.client("eu")
        await eu.put("/global/1", "x")
        async with running(them, "eu", "us"), running(them, "us", "ap"):
            await same(them, "eu", "us")
            await same(them, "us", "ap")
            for source, prefix in (("us", PREFIX), ("ap", PREFIX), ("ap", "/global/part/"), ("us", "/g")):
                with pytest.raises(ReplicationRefused, match="a loop: "):
                    await them.replication(source, "eu", prefix).run()
            assert await record(them, "eu") is None
            found = {(r.source, r.destination, r.prefix, r.behind) for r in (await them.survey()).replications}
            assert found == {("eu", "us", PREFIX, 0), ("us", "ap", PREFIX, 0)}
            with pytest.raises(ReplicationRefused, match="us has /global/ from eu already"):
                await them.replication("ap", "us", "/global/part/").run()
            with pytest.raises(ReplicationRefused, match="ap has /global/ from us already"):
                await them.replication("eu", "ap", PREFIX).run()
            await eu.put("/global/2", "y")
            assert len(await same(them, "eu", "ap")) == 2
        await eu.put("/global/2", "z")
        assert [r.behind for r in (await them.survey()).replications if r.destination == "us"] == [1]
        assert await them.replication("us", "ap", PREFIX).forget()
        assert not await them.replication("us", "ap", PREFIX).forget()
        async with running(them, "eu", "ap"):
            await eu.put("/global/3", "z")
            assert len(await same(them, "eu", "ap")) == 3


async def test_of_two_that_begin_in_opposite_directions_none_goes_on(
    clusters: dict[str, LocalCluster],  # noqa: F811
) -> None:
    async with reach(clusters) as them, reach(clusters) as others:
        await them.set_up()
        await them.client("eu").put("/global/1", "eu")
        await them.client("us").put("/global/1", "us")
        both = [them.replication("eu", "us", PREFIX).run(), others.replication("us", "eu", PREFIX).run()]
        async with asyncio.timeout(30):
            tasks = [asyncio.ensure_future(each) for each in both]
            done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert all(isinstance(each.exception(), ReplicationRefused) for each in done)
        revisions = [(await them.client(cell).range("/global/1")).kvs[0].mod_revision for cell in ("eu", "us")]
        assert max(revisions) < 20, "they have sent the key to and fro"
        for each in left:
            each.cancel()


@pytest.mark.parametrize("prefix", ["", "/", "global/", "/cells/", "/cells/registers/", "/c"])
async def test_prefixes_that_cannot_be_replicated(
    clusters: dict[str, LocalCluster],  # noqa: F811
    prefix: str,
) -> None:
    async with reach(clusters) as them:
        with pytest.raises(ValueError, match="cannot be replicated"):
            them.replication("eu", "us", prefix)


async def test_a_restored_source_is_copied_once_it_counts_again(
    clusters: dict[str, LocalCluster],  # noqa: F811
    tmp_path: Path,
) -> None:
    saved = tmp_path / "saved.db"
    async with reach(clusters, 5.0) as them:
        await them.set_up()
        await them.client("eu").put("/global/1", "old")
        (voter,) = clusters["eu"].voters.values()
        holdfast("snapshot", "save", str(saved), "--endpoints", voter.endpoint)
        async with running(them, "eu", "us"):
            await them.client("eu").put("/global/1", "new")
            await them.client("eu").put("/global/2", "new")
            await same(them, "eu", "us")
        voter.kill()
        restored(clusters["eu"], saved)
        voter.start()
        await clusters["eu"].wait_ready(60)
        errors: list[str] = []
        refused = asyncio.Event()

        def told(news: int | ClientError) -> None:
            if isinstance(news, ClientError) and "eu does not count" in str(news):
                refused.set()
            errors.append(str(news))

        copying = asyncio.ensure_future(them.replication("eu", "us", PREFIX).run(told))
        async with asyncio.timeout(30):
            await refused.wait()
        assert await all_keys(them.client("us")) == {b"/global/1": b"new", b"/global/2": b"new"}, errors
        await them.readmit("eu")
        assert await same(them, "eu", "us") == {b"/global/1": b"old"}
        copying.cancel()
