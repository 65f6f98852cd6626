"""Sessions that live only while they handle what changes: on real servers, ours and etcd's."""

from __future__ import annotations

import asyncio
import time

import pytest
from holdfast import client, recipes
from holdfast.client.keepalive import now
from holdfast.recipes import blocking
from holdfast.recipes.liveness import State

pytestmark = pytest.mark.integration

TTL = 3
PATIENCE = 30.0


async def test_a_session_lives_while_its_changes_are_handled(hf: client.Client) -> None:
    handled: list[bytes] = []
    async with recipes.session(hf, ttl=TTL) as session, await session.follow("/follow/a/") as events:

        async def handle() -> None:
            async for changes in events:
                handled.extend(change.kv.value for change in changes)

        handling = asyncio.ensure_future(handle())
        until = now() + 3 * TTL
        number = 0
        while now() < until:
            number += 1
            await hf.put("/follow/a/x", str(number))
            assert session.state() is State.SAFE
            await asyncio.sleep(0.1)
        async with asyncio.timeout(PATIENCE):
            while handled[-1:] != [b"%d" % number]:
                await asyncio.sleep(0.01)
        handling.cancel()


async def test_who_does_not_handle_changes_loses_the_session_and_who_goes_on_in_time_keeps_it(
    hf: client.Client,
) -> None:
    async with (
        recipes.session(hf, ttl=TTL) as other,
        recipes.session(hf, ttl=TTL, grace=PATIENCE) as session,
        await session.follow("/follow/b/") as events,
    ):
        lock = recipes.Lock(session, "/lock/follow")
        assert await lock.acquire(timeout=PATIENCE)
        await hf.put("/follow/b/x", "1")
        jeopardy = asyncio.Event()
        session.on_change(lambda state: jeopardy.set() if state is State.JEOPARDY else None)
        began = now()
        async with asyncio.timeout(PATIENCE):
            changes = await anext(events)  # and this one is not handled
            assert [change.kv.value for change in changes] == [b"1"]
            await jeopardy.wait()
        assert now() - began < 2 * TTL
        assert not lock.held
        moved = asyncio.Event()
        session.on_change(lambda _: moved.set())
        async with asyncio.timeout(PATIENCE):
            asked = asyncio.ensure_future(anext(events))  # now it is
            await moved.wait()
            asked.cancel()
        # It asks for its lease again: that lives still, or has ended, and then another one gets the lock.
        if session.state() is State.EXPIRED:
            assert await recipes.Lock(other, "/lock/follow").acquire(timeout=PATIENCE)
        else:
            assert session.state() is State.SAFE


async def test_a_session_that_follows_no_more_depends_on_its_lease_alone(hf: client.Client) -> None:
    async with recipes.session(hf, ttl=TTL) as session:
        async with await session.follow("/follow/c/"):
            pass
        await hf.put("/follow/c/x", "1")
        until = now() + 2 * TTL
        while now() < until:
            assert session.state() is State.SAFE
            await asyncio.sleep(0.1)


def test_the_blocking_one(endpoints: str) -> None:
    with (
        client.connect_blocking(endpoints, timeout=20) as hf,
        blocking.session(hf, ttl=TTL) as session,
        session.follow("/follow/d/") as events,
    ):
        hf.put("/follow/d/x", "1")
        (change,) = next(events)
        assert change.kv.value == b"1"
        until = time.monotonic() + PATIENCE
        while session.state() is State.SAFE:
            assert time.monotonic() < until
            time.sleep(0.05)
