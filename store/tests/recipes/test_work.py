"""Queues, groups, barriers, counters and transactions on real servers, ours and etcd's."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from holdfast import client, recipes
from holdfast.proto import rpc_pb2
from holdfast.recipes import sql
from holdfast.recipes.place import Place
from holdfast_lab.sim.apps.mutants import RECIPE_MUTANTS
from holdfast_lab.sim.mutation import broken

pytestmark = pytest.mark.integration

PATIENCE = 20.0


async def test_a_queue_is_first_in_first_out_within_a_priority(hf: client.Client) -> None:
    async with recipes.session(hf) as session:
        queue = recipes.Queue(session, "/queue/a")
        for value in ("1", "2", "3"):
            await queue.put(value)
        await queue.put("urgent", priority=1)
        taken = []
        for _ in range(4):
            item = await queue.get(timeout=PATIENCE)
            assert item is not None
            taken.append(item.value)
            await item.done()
        assert taken == [b"urgent", b"1", b"2", b"3"]
        assert await queue.get(timeout=0) is None
        with pytest.raises(ValueError, match="0 to 999"):
            await queue.put("x", priority=1000)


async def test_an_item_whose_worker_is_lost_is_there_again_with_a_greater_token(hf: client.Client) -> None:
    async with recipes.session(hf) as other:
        async with recipes.session(hf) as session:
            queue = recipes.Queue(session, "/queue/b")
            await queue.put("work")
            lost = await queue.get(timeout=PATIENCE)
            assert lost is not None
            rival = recipes.Queue(other, "/queue/b")
            assert await rival.get(timeout=0) is None
            waiting = asyncio.ensure_future(rival.get())
            await asyncio.sleep(0.1)
        item = await asyncio.wait_for(waiting, PATIENCE)  # its session has ended
        assert item is not None
        assert item.value == b"work"
        assert item.token > lost.token
        await item.release()
        again = await rival.get(timeout=PATIENCE)
        assert again is not None
        with pytest.raises(recipes.PlaceLost):
            await item.done()
        await again.done()
        await again.done()  # whose answer was lost: no error


async def test_a_bounded_queue_takes_no_more_however_many_put_at_once(hf: client.Client) -> None:
    async with recipes.session(hf) as session:
        queue = recipes.Queue(session, "/queue/c", bound=3)
        outcomes = await asyncio.gather(*(queue.put(str(n)) for n in range(8)), return_exceptions=True)
        assert sum(isinstance(outcome, recipes.QueueFull) for outcome in outcomes) == 5
        waiting = asyncio.ensure_future(queue.put("later", timeout=PATIENCE))
        item = await queue.get(timeout=PATIENCE)
        assert item is not None
        await item.done()
        assert b"/queue/c/items/" in await waiting


async def test_each_item_is_worked_on_by_one_of_many_workers(hf: client.Client) -> None:
    done: list[bytes] = []

    async def work(queue: recipes.Queue) -> None:
        while (item := await queue.get(timeout=0.5)) is not None:
            done.append(item.value)
            await item.done()

    async with recipes.session(hf) as one, recipes.session(hf) as two:
        queues = [recipes.Queue(session, "/queue/d") for session in (one, two, one)]
        for number in range(30):
            await queues[0].put(str(number))
        await asyncio.gather(*(work(queue) for queue in queues))
    assert sorted(done) == sorted(str(n).encode() for n in range(30))


async def test_a_barrier_holds_back_until_it_is_released(hf: client.Client) -> None:
    async with recipes.session(hf) as session:
        barrier = recipes.Barrier(session, "/barrier/a")
        await barrier.hold()
        await barrier.hold()
        assert not await barrier.wait(timeout=0.2)
        assert not await barrier.wait(timeout=0)
        waiting = asyncio.ensure_future(barrier.wait())
        await barrier.release()
        assert await asyncio.wait_for(waiting, PATIENCE)
        assert await barrier.wait(timeout=0.1)
        assert await barrier.wait(timeout=0), "nobody holds it, so there is nothing to wait for"


async def test_a_double_barrier_begins_and_ends_together_again_and_again(hf: client.Client) -> None:
    inside, most = 0, 0

    async def participate(session: recipes.Session) -> None:
        nonlocal inside, most
        barrier = recipes.DoubleBarrier(session, "/barrier/b", 3)
        for _ in range(2):
            assert await barrier.enter(timeout=PATIENCE)
            inside += 1
            most = max(most, inside)
            while inside % 3:  # all are inside before anybody leaves
                await asyncio.sleep(0.01)
            await barrier.leave()

    async with recipes.session(hf) as one, recipes.session(hf) as two:
        alone = recipes.DoubleBarrier(one, "/barrier/b", 3)
        assert not await alone.enter(timeout=0.2)
        await asyncio.wait_for(asyncio.gather(participate(one), participate(two), participate(two)), PATIENCE)
    assert inside == 6
    assert not (await hf.range("/barrier/b/", prefix=True)).kvs


async def test_a_double_barrier_tells_that_a_participant_was_lost(hf: client.Client) -> None:
    async with recipes.session(hf) as one:
        staying = recipes.DoubleBarrier(one, "/barrier/c", 2)
        async with recipes.session(hf) as two:
            lost = recipes.DoubleBarrier(two, "/barrier/c", 2)
            entered = await asyncio.gather(staying.enter(timeout=PATIENCE), lost.enter(timeout=PATIENCE))
            assert all(entered)
        with pytest.raises(recipes.Broken, match="1 of 2"):
            await staying.leave()


async def test_who_comes_to_a_double_barrier_that_is_open_waits_for_the_next_round(hf: client.Client) -> None:
    """A participant that was lost and comes again must not hide that it was lost."""
    async with recipes.session(hf) as one, recipes.session(hf) as again, asyncio.timeout(2 * PATIENCE):
        staying = recipes.DoubleBarrier(one, "/barrier/e", 2)
        async with recipes.session(hf) as two:
            lost = recipes.DoubleBarrier(two, "/barrier/e", 2)
            assert all(await asyncio.gather(staying.enter(timeout=PATIENCE), lost.enter(timeout=PATIENCE)))
        back = recipes.DoubleBarrier(again, "/barrier/e", 2)
        assert not await back.enter(timeout=0.5)
        entering = asyncio.ensure_future(back.enter(timeout=PATIENCE))
        with pytest.raises(recipes.Broken, match="1 of 2"):
            await staying.leave()
        next_round = recipes.DoubleBarrier(one, "/barrier/e", 2)
        assert await next_round.enter(timeout=PATIENCE)
        assert await entering
        await asyncio.gather(next_round.leave(), back.leave())
    assert not (await hf.range("/barrier/e/", prefix=True)).kvs


async def test_a_request_to_open_a_double_barrier_that_comes_late_lets_nobody_pass(
    hf: client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent while two are there, and arrives when both are lost and another one waits."""
    sent, arrives = asyncio.Event(), asyncio.Event()
    async with recipes.session(hf) as one, recipes.session(hf) as two, recipes.session(hf) as three:
        to_server = one.txn

        async def txn(
            request: rpc_pb2.TxnRequest, until: float | None = None, *, barrier: bool = False
        ) -> rpc_pb2.TxnResponse:
            if any(op.request_put.key == b"/barrier/d/ready" for op in request.success):
                sent.set()
                await arrives.wait()
            return await to_server(request, until, barrier=barrier)

        monkeypatch.setattr(one, "txn", txn)
        waits = Place(two, b"/barrier/d/waiters/two", b"/barrier/d/waiters/")
        await waits.enter(b"here", None)
        late = asyncio.ensure_future(recipes.DoubleBarrier(one, "/barrier/d", 2).enter())
        await asyncio.wait_for(sent.wait(), PATIENCE)
        await hf.delete("/barrier/d/waiters/", prefix=True)
        third = asyncio.ensure_future(recipes.DoubleBarrier(three, "/barrier/d", 2).enter(timeout=1))
        async with asyncio.timeout(PATIENCE):
            while not (await hf.range("/barrier/d/waiters/", prefix=True)).kvs:
                await asyncio.sleep(0.01)
        arrives.set()
        assert not await third, "it passed alone"
        with pytest.raises(recipes.PlaceLost):
            await asyncio.wait_for(late, PATIENCE)


async def test_that_is_found_here_because_few_seeds_of_the_simulator_notice(
    hf: client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broken(RECIPE_MUTANTS["barrier-opens-for-the-lost"]), pytest.raises(AssertionError, match="passed alone"):
        await test_a_request_to_open_a_double_barrier_that_comes_late_lets_nobody_pass(hf, monkeypatch)


async def test_a_group_knows_who_is_there(hf: client.Client) -> None:
    async with recipes.session(hf) as one:
        mine = recipes.Group(one, "/group")
        seen = mine.changes()
        assert await anext(seen) == []
        name = await mine.join("host-1")
        assert await anext(seen) == [recipes.Member(name, b"host-1")]
        async with recipes.session(hf) as two:
            other = await recipes.Group(two, "/group").join("host-2")
            assert [m.name for m in await anext(seen)] == [name, other]
        assert [m.name for m in await anext(seen)] == [name], "its session has ended"
        await mine.leave()
        assert await mine.members() == []


async def test_partitions_are_held_by_one_member_at_a_time_and_all_are_held(hf: client.Client) -> None:
    partitions = [f"p{n}" for n in range(8)]
    held: dict[str, str] = {}

    async def work(name: str, session: recipes.Session, partitioner: recipes.Partitioner) -> None:
        async for mine in partitioner.run():
            for partition in [p for p, who in held.items() if who == name and p not in mine]:
                del held[partition]
            for partition in mine:
                assert held.setdefault(partition, name) == name, "another member holds it"

    async def all_held(least: int) -> None:
        while len(held) < len(partitions) or min(list(held.values()).count(n) for n in set(held.values())) < least:
            await asyncio.sleep(0.02)

    async with recipes.session(hf) as one, recipes.session(hf) as two:
        first, second = (recipes.Partitioner(s, "/partitions", partitions) for s in (one, two))
        tasks = [asyncio.ensure_future(work("one", one, first))]
        await asyncio.wait_for(all_held(8), PATIENCE)
        tasks.append(asyncio.ensure_future(work("two", two, second)))
        async with asyncio.timeout(PATIENCE):
            while set(held.values()) != {"one", "two"} or len(held) < len(partitions):
                await asyncio.sleep(0.02)
        for task in tasks:
            assert not task.done()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_transactions_as_functions_are_serializable(hf: client.Client) -> None:
    """Write skew: each of two takes from the sum only if enough is left; together they must not take too much."""
    await hf.put("/bank/a", "50")
    await hf.put("/bank/b", "50")

    async def take(key: str) -> bool:
        async def work(transaction: recipes.Transaction) -> bool:
            total = sum(int(v) for v in (await transaction.range("/bank/")).values())
            if total < 80:
                return False
            transaction.put(key, str(int(await transaction.get(key) or b"0") - 80))
            return True

        return await recipes.transact(hf.commit, work)

    assert sorted(await asyncio.gather(take("/bank/a"), take("/bank/b"))) == [False, True]

    async def insert(transaction: recipes.Transaction) -> int:
        seen = await transaction.range("/phantom/")
        transaction.put(f"/phantom/{len(seen)}", "x")
        assert f"/phantom/{len(seen)}".encode() in await transaction.range("/phantom/"), "it reads what it writes"
        return len(seen)

    numbers = await asyncio.gather(*(recipes.transact(hf.commit, insert) for _ in range(6)))
    assert sorted(numbers) == list(range(6))

    async def forget(transaction: recipes.Transaction) -> None:
        transaction.delete("/phantom/0")
        assert await transaction.get("/phantom/0") is None

    await recipes.transact(hf.commit, forget)
    assert await hf.get("/phantom/0") is None


async def test_a_transaction_that_never_takes_effect_says_so(hf: client.Client) -> None:
    async def work(transaction: recipes.Transaction) -> None:
        await transaction.get("/busy")
        await hf.put("/busy", "x")
        transaction.put("/busy", "mine")

    with pytest.raises(recipes.Contended, match="3 times"):
        await recipes.transact(hf.commit, work, attempts=3)


async def test_a_counter_counts_all(hf: client.Client) -> None:
    counter = recipes.Counter(hf.commit, "/counter")
    sums = await asyncio.gather(*(counter.add() for _ in range(12)))
    assert sorted(sums) == list(range(1, 13))
    assert await counter.value() == 12
    await hf.put("/counter", "many")
    with pytest.raises(recipes.NoNumber, match="many"):
        await counter.add()


def test_a_database_refuses_an_older_token() -> None:
    database = sqlite3.connect(":memory:")
    database.execute(sql.CREATE)
    cursor = database.cursor()
    for token in ((0, 5), (0, 5), (0, 9), (1, 2)):
        sql.fence(cursor, "report", recipes.Token(*token, b"k"), mark="?")
    for token in ((0, 9), (1, 1)):
        with pytest.raises(sql.Stale, match="report"):
            sql.fence(cursor, "report", recipes.Token(*token, b"k"), mark="?")
    sql.fence(cursor, "another", recipes.Token(0, 1, b"k"), mark="?")
