"""A prefix is replicated from one cluster to another: real clusters, of one process each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from holdfast.cells import Cells, Replication, ReplicationLoop, ReplicationRefused
from holdfast.cells.replication_record import Record, place
from holdfast.client import Client, ClientError
from holdfast.client.txn import Ops
from holdfast.proto import rpc_pb2
from holdfast_lab.processes import LocalCluster

from .test_edge_restore import restored
from .test_registers import clusters, reach  # noqa: F401 - a fixture
from .test_restore import holdfast

pytestmark = pytest.mark.timeout(90)
PREFIX = "/global/"


class Running:
    """Replications that run meanwhile, and the errors of which they tell."""

    def __init__(self, *replications: Replication) -> None:
        self.errors: list[ClientError] = []
        self._replications = replications
        self.tasks: list[asyncio.Task[None]] = []

    def _told(self, news: int | ClientError) -> None:
        if isinstance(news, ClientError):
            self.errors.append(news)

    async def __aenter__(self) -> Running:
        self.tasks = [asyncio.ensure_future(each.run(self._told)) for each in self._replications]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        ended = await asyncio.gather(*self.tasks, return_exceptions=True)
        strange = [end for end in ended if not isinstance(end, asyncio.CancelledError | ReplicationRefused)]
        assert not strange, strange

    async def tells(self, text: str) -> None:
        while not any(text in str(error) for error in self.errors):
            await asyncio.sleep(0.02)


async def state(client: Client, prefix: str = PREFIX) -> dict[bytes, bytes]:
    return {kv.key: kv.value for kv in (await client.range(prefix, prefix=True)).kvs}


async def equal(them: Cells, source: str, destination: str, prefix: str = PREFIX) -> dict[bytes, bytes]:
    """Wait until the destination is equal to what the source has now, and return that."""
    wanted = await state(them.client(source), prefix)
    while await state(them.client(destination), prefix) != wanted:
        await asyncio.sleep(0.02)
    return wanted


async def record(client: Client, prefix: str = PREFIX) -> Record | None:
    found = await client.get(place(prefix.encode()))
    return None if found is None else Record.unpacked(found.value)


@asynccontextmanager
async def pairs(them: Cells, source: str, destination: str) -> AsyncIterator[Callable[[], int]]:
    """Write two keys in each transaction of the source, and read both of them at the destination, in one transaction
    each: they have to be equal there. Yields how many were written."""
    written = seen = 0
    one, two = f"{PREFIX}pair/1", f"{PREFIX}pair/2"

    async def write() -> None:
        nonlocal written
        while True:
            value = str(written + 1)
            await them.client(source).txn().then(Ops.put(one, value), Ops.put(two, value)).commit()
            written += 1

    async def read() -> None:
        nonlocal seen
        while True:
            found = await them.client(destination).txn().then(Ops.get(one), Ops.get(two)).commit()
            numbers = [int(kvs[0].value) if kvs else 0 for kvs in found.responses if isinstance(kvs, list)]
            assert numbers[0] == numbers[1], "a transaction is torn"
            assert numbers[0] >= seen, "it went back"
            seen = numbers[0]

    tasks = [asyncio.ensure_future(write()), asyncio.ensure_future(read())]
    try:
        yield lambda: seen
        assert not tasks[1].done(), tasks[1].exception()
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        await equal(them, source, destination)
        assert not tasks[1].done(), tasks[1].exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def reaches(number: Callable[[], int], wanted: int) -> None:
    while number() < wanted:
        await asyncio.sleep(0.02)


# ---- data ----------------------------------------------------------------------------------------------------


async def test_a_snapshot_then_changes(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them:
        await them.set_up()
        eu, us = them.client("eu"), them.client("us")
        for first in range(0, 700, 100):
            await eu.txn().then(*(Ops.put(f"/global/{n:04d}", str(n)) for n in range(first, first + 100))).commit()
        await eu.put("/elsewhere", "eu")
        await us.put("/global/0001", "it is overwritten")
        await us.put("/global/0002", "2")
        await us.put("/global/zzz", "it is removed")
        await us.put("/globe", "it stays")
        replication = them.replication("eu", "us", PREFIX)
        assert (await replication.lag()).reached is None
        async with Running(them.replication("eu", "us", PREFIX)) as runs:
            assert len(await equal(them, "eu", "us")) == 700
            same = await us.get("/global/0002")
            assert same is not None
            assert same.version == 1, "what was equal is not written"
            lease = await eu.lease(60)
            await eu.put("/global/leased", "for a while", lease=lease)
            await eu.put("/global/0002", "changed")
            await eu.delete("/global/01", prefix=True)
            found = await equal(them, "eu", "us")
            assert len(found) == 601
            copied = await us.get("/global/leased")
            assert copied is not None
            assert not copied.lease
            await lease.revoke()
            assert b"/global/leased" not in await equal(them, "eu", "us")
            assert await us.get("/elsewhere") is None
            assert [kv.value for kv in (await us.range("/globe")).kvs] == [b"it stays"]
            await eu.put("/elsewhere", "again")
            while (await replication.lag()).behind:
                await asyncio.sleep(0.05)
        assert runs.errors == []


async def test_a_key_whose_lease_expires_is_deleted(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them:
        await them.set_up()
        eu, us = them.client("eu"), them.client("us")
        async with Running(them.replication("eu", "us", PREFIX)):
            request = rpc_pb2.LeaseGrantRequest(TTL=1)  # nobody keeps it alive
            path = "/etcdserverpb.Lease/LeaseGrant"
            granted = await eu.connection.call(path, request, rpc_pb2.LeaseGrantResponse, idempotent=True)
            await eu.put("/global/leased", "for a while", lease=granted.ID)
            while await us.get("/global/leased") is None:
                await asyncio.sleep(0.02)
            while await us.get("/global/leased") is not None:
                await asyncio.sleep(0.02)
            assert await eu.get("/global/leased") is None


async def test_large_transactions_and_values(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters, 30.0) as them:
        await them.set_up()
        eu, us = them.client("eu"), them.client("us")
        async with Running(them.replication("eu", "us", PREFIX)) as runs:
            await eu.txn().then(*(Ops.put(f"/global/{n:03d}", "x") for n in range(128))).commit()
            await equal(them, "eu", "us")
            revisions = {kv.mod_revision for kv in (await us.range("/global/", prefix=True)).kvs}
            assert len(revisions) == 1, "the transaction was not torn"
            for first in range(0, 2000, 100):
                await eu.txn().then(*(Ops.put(f"/global/many/{first + n}", "x") for n in range(100))).commit()
            assert len(await equal(them, "eu", "us")) == 2128
            await eu.delete("/global/many/", prefix=True)  # one revision, which is more than one request
            assert len(await equal(them, "eu", "us")) == 128
            for large in (1_500_000, 1_572_864 - 200):
                await eu.put("/global/large", b"v" * large)
                assert len((await equal(them, "eu", "us"))[b"/global/large"]) == large
            assert runs.errors == []
            await eu.put("/global/large", b"v" * (1_572_864 - 40))
            await runs.tells("no request that is large enough for /global/large")


async def test_a_snapshot_is_filled_in_after_a_compaction(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them:
        await them.set_up()
        eu, us = them.client("eu"), them.client("us")
        for n in range(20):
            await eu.put(f"/global/{n}", "before")
        async with Running(them.replication("eu", "us", PREFIX)):
            await equal(them, "eu", "us")
        await eu.delete("/global/1", prefix=True)
        await eu.put("/global/2", "after")
        put = await eu.put("/global/new", "after")
        await eu.compact(put.revision)
        before = await us.get("/global/3")
        async with Running(them.replication("eu", "us", PREFIX)) as runs:
            await equal(them, "eu", "us")
        assert runs.errors == []
        after = await us.get("/global/3")
        assert before is not None
        assert after == before, "only what differs is written"
        there = await record(us)
        assert there is not None
        assert there.revision >= put.revision


# ---- replicators and servers that stop -----------------------------------------------------------------------


async def test_two_replicators_and_servers_that_are_killed(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters, 30.0) as them, reach(clusters, 30.0) as others, reach(clusters, 30.0) as users:
        await them.set_up()
        both = them.replication("eu", "us", PREFIX), others.replication("eu", "us", PREFIX)
        async with Running(*both) as runs, pairs(users, "eu", "us") as seen:
            await reaches(seen, 50)
            runs.tasks[0].cancel()
            await reaches(seen, seen() + 50)
            for cell in ("eu", "us"):
                clusters[cell].kill()
                clusters[cell].start()
                await reaches(seen, seen() + 50)


# ---- which replications exclude each other -------------------------------------------------------------------


async def test_what_comes_from_there_does_not_go_back(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them:
        await them.set_up()
        await them.client("eu").put("/global/a", "1")
        async with Running(them.replication("eu", "us", PREFIX), them.replication("us", "ap", "/global/")) as runs:
            await equal(them, "eu", "us")
            await equal(them, "eu", "ap")
            there, eu = await record(them.client("ap")), await record(them.client("us"))
            assert there is not None
            assert eu is not None
            while (there := await record(them.client("ap"))) is None or there.path != (eu.cluster_id, there.cluster_id):
                await asyncio.sleep(0.02)
            for back in (
                ("us", "eu", "/global/"),
                ("ap", "eu", "/glo"),
                ("ap", "eu", "/global/a/"),
                ("ap", "us", "/g"),
            ):
                with pytest.raises(ReplicationRefused):
                    await them.replication(*back).run()
            with pytest.raises(ReplicationLoop, match="us gets /global/ from eu"):
                await them.replication("us", "eu", PREFIX).run()
            with pytest.raises(ReplicationLoop, match="ap gets /global/ from us"):
                await them.replication("ap", "eu", PREFIX).run()
            with pytest.raises(ReplicationRefused, match="ap gets /global/ from us already"):
                await them.replication("eu", "ap", "/global/a").run()
            assert (await them.client("eu").range("/cells/replication/", prefix=True)).kvs == []
            assert not any(task.done() for task in runs.tasks)
        assert await them.replication("us", "ap", PREFIX).forget()
        assert not await them.replication("us", "ap", PREFIX).forget()
        async with Running(them.replication("eu", "ap", "/global/a")):
            await equal(them, "eu", "ap", "/global/a")


async def decided(them: Cells, tasks: dict[str, asyncio.Task[None]], prefix: str) -> set[str]:
    """Wait until each of these has begun, or was refused. Returns the destinations of the latter: they have no record.
    The tasks by their destination."""
    waiting, refused = set(tasks), set[str]()
    while waiting:
        for cell in sorted(waiting):
            found = await record(them.client(cell), prefix)
            if tasks[cell].done():
                assert isinstance(tasks[cell].exception(), ReplicationLoop)
                assert await record(them.client(cell), prefix) is None
                refused.add(cell)
            if tasks[cell].done() or (found is not None and not found.claimed):
                waiting.remove(cell)
    return refused


async def test_both_directions_at_the_same_moment(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    """At most one of them goes on, and nothing that only one of them had before is lost at both."""
    async with reach(clusters) as them, reach(clusters) as others:
        await them.set_up()
        for attempt in range(5):
            prefix = f"/global/{attempt}/"
            await them.client("eu").put(f"{prefix}eu", "1")
            await them.client("us").put(f"{prefix}us", "1")
            there, back = them.replication("eu", "us", prefix), others.replication("us", "eu", prefix)
            tasks = [asyncio.ensure_future(there.run()), asyncio.ensure_future(back.run())]
            refused = await decided(them, {"us": tasks[0], "eu": tasks[1]}, prefix)
            assert refused
            for source, destination in (("eu", "us"), ("us", "eu")):
                if destination not in refused:
                    assert await equal(them, source, destination, prefix) == {f"{prefix}{source}".encode(): b"1"}
            for cell in refused:
                assert f"{prefix}{cell}".encode() in await state(them.client(cell), prefix), "nothing was written there"
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await there.forget()
            await back.forget()


async def test_three_in_a_ring_at_the_same_moment(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them:
        await them.set_up()
        for cell in clusters:
            await them.client(cell).put(f"/global/{cell}", "1")
        ring = [("eu", "us"), ("us", "ap"), ("ap", "eu")]
        tasks = {to: asyncio.ensure_future(them.replication(of, to, PREFIX).run()) for of, to in ring}
        refused = await decided(them, tasks, PREFIX)
        assert refused
        for cell in refused:
            assert await state(them.client(cell)) == {f"/global/{cell}".encode(): b"1"}, "nothing was written there"
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("prefix", ["", "/", "/cells", "/cells/", "/cells/self", "/cells/replication/"])
async def test_what_cells_have_of_their_own_is_not_replicated(
    clusters: dict[str, LocalCluster],  # noqa: F811
    prefix: str,
) -> None:
    async with reach(clusters) as them:
        with pytest.raises(ValueError, match="/cells/"):
            them.replication("eu", "us", prefix)


# ---- cells that are restored ---------------------------------------------------------------------------------


async def restore(cluster: LocalCluster, saved: Path) -> None:
    cluster.kill()
    restored(cluster, saved)
    cluster.start()
    await cluster.wait_ready(60)


async def test_a_restored_source_counts_when_it_is_readmitted(
    clusters: dict[str, LocalCluster],  # noqa: F811
    tmp_path: Path,
) -> None:
    saved = tmp_path / "saved.db"
    async with reach(clusters) as them, reach(clusters) as others:
        await them.set_up()
        eu, us = them.client("eu"), them.client("us")
        await eu.put("/global/a", "1")
        async with Running(them.replication("eu", "us", PREFIX)) as runs:
            await equal(them, "eu", "us")
            holdfast("snapshot", "save", str(saved), "--endpoints", clusters["eu"].endpoints[0])
            await eu.put("/global/b", "it is lost by the restore")
            await equal(them, "eu", "us")
            await restore(clusters["eu"], saved)
            await runs.tells("eu does not count")
            assert len(await state(us)) == 2
            await others.readmit("eu")
            assert await equal(them, "eu", "us") == {b"/global/a": b"1"}
            await eu.put("/global/c", "1")
            await equal(them, "eu", "us")


async def test_a_restored_destination_goes_on_from_its_record(
    clusters: dict[str, LocalCluster],  # noqa: F811
    tmp_path: Path,
) -> None:
    saved = tmp_path / "saved.db"
    async with reach(clusters) as them, reach(clusters) as others:
        await them.set_up()
        eu, us = them.client("eu"), them.client("us")
        await eu.put("/global/a", "1")
        async with Running(them.replication("eu", "us", PREFIX)) as runs:
            await equal(them, "eu", "us")
            holdfast("snapshot", "save", str(saved), "--endpoints", clusters["us"].endpoints[0])
            before = await us.get("/global/a")
            await eu.put("/global/b", "1")
            await equal(them, "eu", "us")
            await restore(clusters["us"], saved)
            assert await us.get("/global/b") is None
            await eu.put("/global/c", "1")
            await runs.tells("us does not count")
            await others.readmit("us")
            await equal(them, "eu", "us")
            assert await us.get("/global/a") == before, "it was not written again"
