"""Leases over a register in memory, whose answers get lost or come late. Real cells: `test_cell_leases.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

import pytest
from holdfast.cells import CellsUnavailable, Holder, Lease, LeaseLost, LeaseRegister, lease
from holdfast.cells.lease_rules import LeaseRecord
from holdfast.cells.links import Links
from holdfast.client.errors import OutcomeUnknown

TTL = 10.0
Change = Callable[[bytes | None], bytes | None]


class World:
    """The clock, and what is in the register. `fate`: what becomes of a change; it is given what carries it out."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.value: bytes | None = None
        self.changed = asyncio.Event()
        self.fate: Callable[[Callable[[], None]], None] = lambda carry_out: carry_out()

    def once(self, fate: Callable[[Callable[[], None]], None]) -> None:
        """For the next change only."""
        usual = self.fate

        def happen(carry_out: Callable[[], None]) -> None:
            self.fate = usual
            fate(carry_out)

        self.fate = happen

    @property
    def record(self) -> LeaseRecord:
        found = LeaseRecord.unpacked(self.value)
        assert found is not None
        return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    class Register:
        def __init__(self, links: Links, name: str, timeout: float) -> None:
            self.name = name

        async def read(self) -> bytes | None:
            return made.value

        async def change(self, change: Change) -> bytes | None:
            def carry_out() -> None:
                after = change(made.value)
                made.value = made.value if after is None else after
                made.changed.set()

            made.fate(carry_out)
            return made.value

    class Learner:
        def __init__(self, links: Links, name: str, timeout: float) -> None:
            pass

        async def __aenter__(self) -> Learner:
            return self

        async def __aexit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            pass

        async def next(self) -> bytes | None:
            made.changed.clear()
            await made.changed.wait()
            return made.value

    monkeypatch.setattr(lease, "Register", Register)
    monkeypatch.setattr(lease, "Learner", Learner)
    monkeypatch.setattr(lease, "now", lambda: made.now)
    return made


def primary(timeout: float = 1.0) -> LeaseRegister:
    return LeaseRegister(Links({}), "primary", TTL, timeout)


async def taken(by: LeaseRegister, holder: str = "eu") -> Lease:
    found = await by.try_acquire(holder)
    assert found is not None
    return found


def unknown(carry_out: Callable[[], None]) -> None:
    raise OutcomeUnknown("the request was lost")


def done_and_unknown(carry_out: Callable[[], None]) -> None:
    carry_out()
    raise OutcomeUnknown("the answer was lost")


async def test_one_holds_it_and_the_next_one_has_it_once_it_is_released(world: World) -> None:
    held, waiting = await taken(primary()), asyncio.ensure_future(primary().acquire("us"))
    assert held.valid
    assert held.fence == 1
    other = primary()
    assert await other.try_acquire("ap") is None
    assert await other.read() == Holder(b"eu", 1)
    await held.renew()
    await asyncio.sleep(0)
    assert not waiting.done()
    await held.release()
    second = await waiting
    assert second.fence == 2
    assert not held.valid
    assert not held.lost.is_set()
    await second.release()
    assert await other.read() is None
    with pytest.raises(LeaseLost, match="not held any more"):
        await held.renew()


async def test_it_is_taken_from_a_holder_that_is_gone(world: World) -> None:
    held, other = await taken(primary()), primary()
    world.now += 5
    assert await other.try_acquire("us") is None
    world.now += 10.05  # of its clock, which may be fast
    assert await other.try_acquire("us") is None
    assert not held.valid
    world.now += 0.1
    assert (await taken(other, "us")).fence == 2
    with pytest.raises(LeaseLost):
        await held.renew()
    assert held.lost.is_set()


async def test_a_renewal_counts_from_before_it_was_sent(world: World) -> None:
    held = await taken(primary())

    def late(carry_out: Callable[[], None]) -> None:
        carry_out()
        world.now += 6

    world.now += 1
    world.once(late)
    await held.renew()
    world.now += 3.8  # 9.8 s after it was sent
    assert held.valid
    world.now += 0.2
    assert not held.valid


async def test_a_lease_that_ended_meanwhile_stays_so(world: World) -> None:
    """Its user may have seen that it was not valid."""
    held = await taken(primary())

    def late(carry_out: Callable[[], None]) -> None:
        world.now += 9.95
        assert not held.valid
        carry_out()

    world.now += 1
    world.once(late)
    with pytest.raises(LeaseLost):
        await held.renew()
    assert world.record.renewals == 1
    assert not held.valid
    assert held.lost.is_set()


async def test_a_renewal_that_was_not_answered_extends_nothing(world: World) -> None:
    held = await taken(primary())
    world.now += 5
    world.once(done_and_unknown)
    with pytest.raises(OutcomeUnknown):
        await held.renew()
    assert world.record.renewals == 1
    assert held.valid
    world.now += 5
    assert not held.valid


async def test_a_holder_that_finds_another_one_has_lost_it(world: World) -> None:
    held = await taken(primary())
    world.value = LeaseRecord(b"us", b"another", 2, 10_000).packed()
    with pytest.raises(LeaseLost, match="another one"):
        await held.renew()
    assert not held.valid
    assert held.lost.is_set()
    await held.release()
    assert await primary().read() == Holder(b"us", 2)


async def test_the_record_tells_whether_it_was_taken(world: World) -> None:
    first = primary()
    world.once(unknown)
    assert await first.try_acquire("eu") is None
    world.once(done_and_unknown)
    held = await taken(first)
    assert held.valid
    assert world.record.renewals == 0


async def test_who_hears_late_of_having_taken_it_renews_it_first(world: World) -> None:
    def late(carry_out: Callable[[], None]) -> None:
        carry_out()
        world.now += TTL
        raise OutcomeUnknown("the answer was lost")

    world.once(late)
    held = await taken(primary())
    assert held.valid
    assert world.record.renewals == 1


async def test_it_is_not_said_to_be_taken_if_nobody_knows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    held = primary(timeout=0.2)

    async def away() -> bytes | None:
        raise CellsUnavailable("too few cells answered")

    def unknown_and_away(carry_out: Callable[[], None]) -> None:
        monkeypatch.setattr(held._register, "read", away)
        raise OutcomeUnknown("the request was lost")

    world.once(unknown_and_away)
    with pytest.raises(OutcomeUnknown):
        await held.acquire("eu")


async def test_it_is_not_valid_while_it_is_being_released(world: World) -> None:
    held = await taken(primary())
    seen: list[bool] = []

    def look(carry_out: Callable[[], None]) -> None:
        seen.append(held.valid)
        unknown(carry_out)

    world.once(look)
    with pytest.raises(OutcomeUnknown):
        await held.release()
    assert seen == [False]
    assert not held.valid


def test_what_is_no_lease_is_refused() -> None:
    for name in ("", "a/b"):
        with pytest.raises(ValueError, match="no name of a lease"):
            LeaseRegister(Links({}), name, TTL, 1.0)
    for ttl in (0.0, 0.99, 86_401.0, float("nan")):
        with pytest.raises(ValueError, match="the ttl of a lease"):
            LeaseRegister(Links({}), "primary", ttl, 1.0)


async def test_what_a_holder_says_is_short(world: World) -> None:
    with pytest.raises(ValueError, match="at most 1024 bytes"):
        await primary().acquire(b"x" * 1025)
    await taken(primary(), "x" * 1024)
