"""Locks, permits and elections on real servers, ours and etcd's."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from holdfast import client, recipes
from holdfast.client.keepalive import now
from holdfast.proto import rpc_pb2
from holdfast.recipes import blocking
from holdfast_lab.sim.apps.mutants import RECIPE_MUTANTS
from holdfast_lab.sim.mutation import broken

from ..tools import CACHE, tool

pytestmark = pytest.mark.integration

PATIENCE = 20.0


async def test_a_lock_has_one_holder_and_is_handed_over_in_the_order_of_asking(hf: client.Client) -> None:
    order: list[int] = []
    async with recipes.session(hf) as one, recipes.session(hf) as two:
        first = recipes.Lock(one, "/lock/a")
        others = [recipes.Lock(session, "/lock/a") for session in (two, one, two)]

        async def take(number: int, lock: recipes.Lock) -> int:
            async with lock as token:
                order.append(number)
                return token.revision

        async with first as token:
            assert first.held
            waiting = []
            for number, lock in enumerate(others):
                waiting.append(asyncio.ensure_future(take(number, lock)))
                while len((await hf.range("/lock/a/", prefix=True)).kvs) < number + 2:
                    await asyncio.sleep(0.01)
            assert not order
        revisions = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
    assert order == [0, 1, 2]
    assert [token.revision, *revisions] == sorted({token.revision, *revisions}), "tokens grow with each holder"
    assert not (await hf.range("/lock/a/", prefix=True)).kvs


async def give_up_and_come_late(
    hf: client.Client, session: recipes.Session, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The request to enter arrives when the place was given up and deleted, and while another write of this client,
    begun before, was still under way."""
    late: list[Callable[[], Awaitable[object]]] = []
    other_may_go, other_began = asyncio.Event(), asyncio.Event()
    to_server = hf.connection.call

    async def call(path: str, request: Message, *args: Any, **how: Any) -> Any:
        if isinstance(request, rpc_pb2.PutRequest):
            other_began.set()
            await other_may_go.wait()
        elif isinstance(request, rpc_pb2.TxnRequest) and request.success[0].HasField("request_put"):
            late.append(lambda: to_server(path, request, *args, **how))
            await asyncio.Event().wait()
        return await to_server(path, request, *args, **how)

    monkeypatch.setattr(hf.connection, "call", call)
    other = asyncio.ensure_future(hf.put("/elsewhere", "x"))
    await other_began.wait()
    assert not await recipes.Lock(session, name).acquire(timeout=0.2)
    gone = asyncio.gather(*session._work)
    await asyncio.wait((gone,), timeout=0.5)
    other_may_go.set()
    await asyncio.gather(other, gone)
    with contextlib.suppress(client.ClientError):
        await late[0]()


async def test_an_attempt_to_enter_that_comes_after_it_was_given_up_does_not_enter(
    ours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client.connect(ours, timeout=20) as hf, recipes.session(hf) as session, asyncio.timeout(2 * PATIENCE):
        await give_up_and_come_late(hf, session, monkeypatch, "/lock/late")
        assert not (await hf.range("/lock/late/", prefix=True)).kvs, "it entered, and nobody will leave"


async def test_on_etcd_a_place_that_comes_back_is_deleted_again(etcd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client.connect(etcd, timeout=20) as hf, recipes.session(hf) as session:
        async with asyncio.timeout(2 * PATIENCE):
            await give_up_and_come_late(hf, session, monkeypatch, "/lock/back")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                while (await hf.range("/lock/back/", prefix=True)).kvs:
                    await asyncio.sleep(0.01)
        assert not (await hf.range("/lock/back/", prefix=True)).kvs, "it entered, and nobody will leave"
        began = now()
    assert now() - began < 2.0, "closing the session does not wait for what may come"


@pytest.mark.parametrize(("mutant", "servers"), [("given-up-without-barrier", "ours"), ("back-on-etcd", "etcd")])
async def test_that_is_found_here_because_few_seeds_of_the_simulator_notice(
    mutant: str, servers: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = {
        "ours": test_an_attempt_to_enter_that_comes_after_it_was_given_up_does_not_enter,
        "etcd": test_on_etcd_a_place_that_comes_back_is_deleted_again,
    }
    endpoints: str = request.getfixturevalue(servers)
    with broken(RECIPE_MUTANTS[mutant]), pytest.raises(AssertionError, match="nobody will leave"):
        await tests[servers](endpoints, monkeypatch)


async def test_who_waits_until_the_session_is_safe_notices_a_renewal(hf: client.Client) -> None:
    """Also if the jeopardy before it was so short that nothing else noticed it."""
    async with recipes.session(hf) as session, asyncio.timeout(PATIENCE):
        session._liveness.safe_until = now()
        waiting = asyncio.ensure_future(session.safe())
        for _ in range(5):  # until it waits
            await asyncio.sleep(0)
        session._renewed(now(), 30.0)
        await waiting


async def test_trying_waiting_for_a_time_and_giving_up_leave_nothing_behind(hf: client.Client) -> None:
    async with recipes.session(hf) as one, recipes.session(hf) as two:
        held, wanted = recipes.Lock(one, "/lock/b"), recipes.Lock(two, "/lock/b")
        async with held:
            assert not await wanted.acquire(timeout=0)
            assert not await wanted.acquire(timeout=0.2)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await wanted.acquire()
            with pytest.raises(recipes.AlreadyHeld):
                await held.acquire()
            with pytest.raises(recipes.NotHeld):
                await wanted.release()
        assert await wanted.acquire(timeout=PATIENCE)
        await wanted.release()
    assert not (await hf.range("/lock/b/", prefix=True)).kvs


async def test_the_end_of_the_session_ends_the_block_and_the_store_refuses_the_token(hf: client.Client) -> None:
    async with recipes.session(hf) as session:
        lock = recipes.Lock(session, "/lock/c")
        tokens: list[recipes.Token] = []

        async def work() -> None:
            async with lock as token:
                tokens.append(token)
                assert (await hf.txn().if_(token.held()).then(hf.op.put("/work", "mine")).commit()).succeeded
                await _revoke(hf, session.lease)  # as an administrator may
                await asyncio.sleep(PATIENCE)

        with pytest.raises(recipes.SessionLost):
            await work()
        (token,) = tokens
        assert not lock.held
        assert session.state() is recipes.State.EXPIRED
        assert not (await hf.txn().if_(token.held()).then(hf.op.put("/work", "late")).commit()).succeeded
        with pytest.raises(recipes.SessionLost):
            await lock.acquire()


async def _revoke(hf: client.Client, lease: int) -> None:
    request = rpc_pb2.LeaseRevokeRequest(ID=lease)
    path = "/etcdserverpb.Lease/LeaseRevoke"
    await hf.connection.call(path, request, rpc_pb2.LeaseRevokeResponse, idempotent=True)


async def test_a_key_that_somebody_deletes_is_noticed(hf: client.Client) -> None:
    async with recipes.session(hf) as one, recipes.session(hf) as two:
        holder, waiter = recipes.Lock(one, "/lock/d"), recipes.Lock(two, "/lock/d")
        async with holder as token:
            waiting = asyncio.ensure_future(waiter.acquire())
            while len(found := (await hf.range("/lock/d/", prefix=True)).kvs) < 2:
                await asyncio.sleep(0.01)
            (other,) = (kv.key for kv in found if kv.key != token.key)
            await hf.delete(other)
            with pytest.raises(recipes.PlaceLost):
                await asyncio.wait_for(waiting, PATIENCE)
            await hf.delete(token.key)
            with pytest.raises(recipes.PlaceLost):
                await holder.confirm()


async def test_readers_share_and_a_writer_is_alone(hf: client.Client) -> None:
    async with recipes.session(hf) as session:
        rw = [recipes.RWLock(session, "/rw") for _ in range(4)]
        assert await rw[0].reading.acquire(timeout=PATIENCE)
        assert await rw[1].reading.acquire(timeout=PATIENCE)
        assert not await rw[2].writing.acquire(timeout=0)
        while (await hf.range("/rw/write/", prefix=True)).kvs:  # the place that was given up goes in the background
            await asyncio.sleep(0.01)
        writing = asyncio.ensure_future(rw[2].writing.acquire())
        while len((await hf.range("/rw/write/", prefix=True)).kvs) < 1:
            await asyncio.sleep(0.01)
        assert not await rw[3].reading.acquire(timeout=0.2), "a reader does not overtake a writer that waits"
        await rw[0].reading.release()
        await rw[1].reading.release()
        assert await asyncio.wait_for(writing, PATIENCE)
        await rw[2].writing.release()


async def test_a_semaphore_has_so_many_permits_and_one_size(hf: client.Client) -> None:
    async with recipes.session(hf) as session:
        three = [recipes.Semaphore(session, "/permits", 2) for _ in range(3)]
        assert [await s.acquire(timeout=0) for s in three] == [True, True, False]
        waiting = asyncio.ensure_future(three[2].acquire())
        await three[0].release()
        assert await asyncio.wait_for(waiting, PATIENCE)
        with pytest.raises(recipes.OtherSize, match="has 2 permits, not 5"):
            await recipes.Semaphore(session, "/permits", 5).acquire()
        with pytest.raises(ValueError, match="at least"):
            recipes.Semaphore(session, "/permits", 0)


async def test_an_election_is_observed_and_resigned(hf: client.Client) -> None:
    async with recipes.session(hf) as one, recipes.session(hf) as two:
        first, second = recipes.Election(one, "/office"), recipes.Election(two, "/office")
        assert await second.leader() is None
        seen = second.observe()
        assert await anext(seen) is None
        assert await first.campaign("one", timeout=PATIENCE)
        assert (await anext(seen)) == recipes.Leader(b"one", first.token.key, first.token.revision)
        await first.proclaim("still one")
        leader = await anext(seen)
        assert leader is not None
        assert leader.value == b"still one"
        assert not await second.campaign("two", timeout=0)
        waiting = asyncio.ensure_future(second.campaign("two"))
        await first.resign()
        assert await asyncio.wait_for(waiting, PATIENCE)
        with pytest.raises(recipes.NotHeld):
            await first.proclaim("no more")


def test_the_blocking_recipes_do_the_same(endpoints: str) -> None:
    with client.connect_blocking(endpoints, timeout=20) as hf, blocking.session(hf) as session:
        lock, other = blocking.Lock(session, "/lock/blocking"), blocking.Lock(session, "/lock/blocking")
        with lock as token:
            assert lock.held
            assert token == lock.token
            assert not other.acquire(timeout=0)
        with other as later:
            assert later > token
        queue = blocking.Queue(session, "/queue/blocking")
        queue.put("work")
        item = queue.get(timeout=PATIENCE)
        assert item is not None
        assert item.value == b"work"
        item.done()
        assert queue.get(timeout=0) is None
        counter = blocking.Counter(hf, "/counter/blocking")
        assert [counter.add(), counter.add(4), counter.value()] == [1, 5, 5]

        def work(transaction: blocking.Transaction) -> bytes | None:
            before = transaction.get("/x")
            transaction.put("/x", "1")
            return before

        assert [blocking.transact(hf, work), blocking.transact(hf, work)] == [None, b"1"]


async def test_our_locks_and_those_of_go_and_java_wait_in_one_queue(endpoints: str) -> None:
    """Of etcd's Go library and of jetcd. Each holder appends its revision to a shared key by a read and a write:
    without mutual exclusion some are lost, and without fairness they are out of order."""
    rounds, name = 12, "/lock/shared"
    java = ["java", "-cp", f"{CACHE / 'java-clients' / 'lib'}/*:{CACHE / 'java-clients'}", "Locks"]
    assert (CACHE / "java-clients" / "Locks.class").exists(), "the program with jetcd is missing: run `make tools`"
    words = [endpoints, name, str(rounds)]
    others = [subprocess.Popen([*program, *words]) for program in ([tool("go-locks")], java)]
    async with client.connect(endpoints, timeout=60) as hf, recipes.session(hf) as one, recipes.session(hf) as two:
        async with recipes.Lock(one, name):  # until all have begun
            while len((await hf.range(name + "/", prefix=True)).kvs) < 1 + len(others):
                assert all(other.poll() is None for other in others)
                await asyncio.sleep(0.02)

        async def take(session: recipes.Session) -> None:
            for _ in range(rounds):
                async with recipes.Lock(session, name) as token:
                    before = await hf.get(name + "-order")
                    order = before.value + b" " if before is not None else b""
                    await hf.put(name + "-order", order + b"ours:%d" % token.revision)

        await asyncio.gather(take(one), take(two))
        for other in others:
            assert await asyncio.to_thread(other.wait, 90) == 0
        found = await hf.get(name + "-order")
    assert found is not None
    holders = [entry.split(":") for entry in found.value.decode().split()]
    assert len(holders) == 4 * rounds
    revisions = [int(revision) for _, revision in holders]
    assert revisions == sorted(revisions), "in the order of asking"
    changes = sum(a[0] != b[0] for a, b in itertools.pairwise(holders))
    assert changes > rounds // 2, "the holders took turns"


async def test_a_lock_delay_holds_after_an_expiry_and_not_after_a_release(ours: str) -> None:
    delay = 3
    async with client.connect(ours, timeout=20) as hf, recipes.session(hf) as other:
        lost = await recipes.Session.open(hf, 2, lock_delay=delay)
        lock, next_one = recipes.Lock(lost, "/lock/delay"), recipes.Lock(other, "/lock/delay")
        await lock.acquire()
        await lock.release()
        assert await next_one.acquire(timeout=1), "a release has no delay"
        await next_one.release()
        await lock.acquire()
        hf.connection.keep_alives.remove(lost.lease)  # as when the process is frozen
        assert await next_one.acquire(timeout=PATIENCE)
        assert now() >= lost.safe_until + delay
        await next_one.release()
        await lost.close()


async def test_a_lock_delay_needs_holdfast_and_has_bounds(ours: str, etcd: str) -> None:
    async with client.connect(etcd) as hf:
        with pytest.raises(client.Refused):
            await recipes.Session.open(hf, lock_delay=5)
    async with client.connect(ours) as hf:
        with pytest.raises(client.Refused, match="0 to 600"):
            await recipes.Session.open(hf, lock_delay=601)


class Interrupted(Exception):
    pass


def test_a_blocking_call_that_is_interrupted_takes_nothing(endpoints: str) -> None:
    """By Ctrl-C, or by a signal's handler, as of a time limit of tasks: it went on, and took the lock for nobody."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    def interrupted(call: Callable[[], object]) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(Interrupted):
            call()

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with (
            client.connect_blocking(endpoints, timeout=20) as hf,
            blocking.session(hf) as one,
            blocking.session(hf) as two,
        ):
            holder, waiter = blocking.Lock(one, "/lock/i"), blocking.Lock(two, "/lock/i")
            assert holder.acquire()
            interrupted(waiter.acquire)
            assert not waiter.acquire(timeout=0), "and not that it is waited for already"
            interrupted(blocking.Queue(two, "/queue/i").get)
            interrupted(blocking.DoubleBarrier(two, "/barrier/i", 2).enter)
            until = time.monotonic() + PATIENCE
            while len(hf.range("/lock/i/", prefix=True).kvs) + len(hf.range("/barrier/i/", prefix=True).kvs) > 1:
                assert time.monotonic() < until, "a place was left"
                time.sleep(0.01)
            queue = blocking.Queue(one, "/queue/i")
            queue.put("for somebody")
            item = queue.get(timeout=PATIENCE)
            assert item is not None
            assert item.value == b"for somebody"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
