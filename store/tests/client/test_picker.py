"""The choice of an address: properties that hold whatever happened, and what each policy is for."""

from __future__ import annotations

import random
from collections import Counter

import hypothesis.strategies as st
import pytest
from holdfast.client.picker import (
    EJECTED_MOST_SECONDS,
    FAILURES,
    LEAST_ATTEMPT_SECONDS,
    POLICIES,
    Budget,
    Picker,
    Policy,
)
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

NAMES = [f"10.0.0.{n}:2379" for n in range(5)]


def picker(policy: Policy = "p2c", names: list[str] = NAMES[:3], **options: object) -> Picker:
    made = Picker(policy, chance=random.Random(1), **options)  # type: ignore[arg-type]
    made.update(dict.fromkeys(names, "members"))
    return made


def answer(made: Picker, address: str, now: float, seconds: float) -> None:
    made.began(address)
    made.ended(address, now, seconds, True)


class PickerMachine(RuleBasedStateMachine):
    """Any sequence of attempts and of sets of addresses."""

    @initialize(policy=st.sampled_from(POLICIES), seed=st.integers(0, 1000))
    def begin(self, policy: Policy, seed: int) -> None:
        self.now = 0.0
        self.picker = Picker(policy, zone="eu/a", zones=dict.fromkeys(NAMES[:2], "eu/a"), chance=random.Random(seed))
        self.names = NAMES[:3]
        self.picker.update(dict.fromkeys(self.names, ""))

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(names=st.lists(st.sampled_from(NAMES), unique=True))
    def the_addresses_change(self, names: list[str]) -> None:
        self.names = names
        self.picker.update(dict.fromkeys(names, ""))

    @rule(name=st.sampled_from(NAMES), seconds=st.floats(0, 5), answered=st.sampled_from([True, False, None]))
    def an_attempt(self, name: str, seconds: float, answered: bool | None) -> None:
        out = self.ejected()
        self.picker.began(name)
        self.picker.ended(name, self.now, seconds, answered)
        if len(self.ejected()) > len(out):
            assert 2 * len(self.ejected()) <= len(self.names), "more than half was ejected"

    @rule(name=st.sampled_from(NAMES))
    def a_leader(self, name: str) -> None:
        self.picker.leader = name

    def ejected(self) -> list[str]:
        return [a for a, known in self.picker.addresses.items() if known.ejected_until > self.now]

    @invariant()
    def every_address_is_in_each_order_once_and_ejected_ones_are_last(self) -> None:
        if not hasattr(self, "picker"):
            return
        out = set(self.ejected())
        for write in (False, True):
            for stream in (False, True):
                order = self.picker.order(self.now, write=write, stream=stream)
                assert sorted(order) == sorted(self.names)
                assert set(order[len(order) - len(out) :]) == out
        for known in self.picker.addresses.values():
            assert known.outstanding >= 0
            assert known.ejected_until <= self.now + EJECTED_MOST_SECONDS


TestPicker = PickerMachine.TestCase
TestPicker.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_a_slower_address_gets_less_than_a_twentieth() -> None:
    made = picker()
    slow, now, counts = NAMES[0], 0.0, Counter[str]()
    chance = random.Random(2)
    for _ in range(20_000):
        first = made.order(now)[0]
        counts[first] += 1
        answer(made, first, now, chance.uniform(0.001, 0.004) + (0.05 if first == slow else 0.0))
        now += 0.001
    assert 0 < counts[slow] < 1000
    assert min(counts[name] for name in NAMES[1:3]) > 7000


def test_thirty_clients_use_three_equal_addresses_alike() -> None:
    counts = Counter[str]()
    for client in range(30):
        made = Picker(chance=random.Random(client))
        made.update(dict.fromkeys(NAMES[:3], ""))
        now, chance = 0.0, random.Random(100 + client)
        for _ in range(300):
            first = made.order(now)[0]
            counts[first] += 1
            answer(made, first, now, chance.expovariate(500))
            now += 0.01
    assert all(2400 <= count <= 3600 for count in counts.values()), counts


def test_calls_leave_an_address_that_does_not_answer() -> None:
    made = picker()
    for name in NAMES[:3]:
        answer(made, name, 0.0, 0.002)
    frozen, taken = NAMES[0], 0
    for n in range(300):
        first = made.order(0.001 * n)[0]
        if first == frozen:
            made.began(frozen)  # and no end
            taken += 1
        else:
            answer(made, first, 0.001 * n, 0.002)
    assert taken < 10


def test_three_failures_eject_for_longer_each_time() -> None:
    made = picker()
    now, waits = 0.0, []
    for _ in range(8):
        for _ in range(FAILURES):
            made.failed(NAMES[0], now)
        until = made.addresses[NAMES[0]].ejected_until
        assert made.order(now)[-1] == NAMES[0]
        waits.append(until - now)
        now = until
        assert made.addresses[NAMES[0]].ejected_until <= now
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    answer(made, NAMES[0], now, 0.001)
    for _ in range(FAILURES):
        made.failed(NAMES[0], now)
    assert made.addresses[NAMES[0]].ejected_until - now == 1


def test_a_single_address_is_never_ejected() -> None:
    made = picker(names=NAMES[:1])
    for _ in range(10):
        made.failed(NAMES[0], 0.0)
    assert made.order(0.0) == NAMES[:1]
    assert made.addresses[NAMES[0]].ejected_until < 0


def test_the_own_zone_comes_first_then_the_region() -> None:
    made = Picker("p2c", zone="eu/a", zones={NAMES[0]: "us/a", NAMES[1]: "eu/b", NAMES[2]: "eu/a"})
    made.update(dict.fromkeys(NAMES[:3], ""))
    answer(made, NAMES[2], 0.0, 0.5)
    answer(made, NAMES[0], 0.0, 0.001)
    assert made.order(0.0) == [NAMES[2], NAMES[1], NAMES[0]]
    by_name = Picker("p2c", zone="eu/a", zones={"near:2379": "eu/a", "far:2379": "us/a"})
    by_name.update({NAMES[0]: "far:2379", NAMES[1]: "near:2379"})
    assert by_name.order(0.0) == [NAMES[1], NAMES[0]]


def test_writes_go_to_the_leader_unless_it_is_ejected() -> None:
    for policy in ("p2c", "leader"):
        made = picker(policy)
        made.leader = NAMES[1]
        answer(made, NAMES[1], 0.0, 1.0)
        assert made.order(0.0, write=True)[0] == NAMES[1]
        assert {made.order(0.0)[0] for _ in range(20)} == {NAMES[0], NAMES[2]}
        for _ in range(FAILURES):
            made.failed(NAMES[1], 0.0)
        assert made.order(0.0, write=True)[-1] == NAMES[1]


def test_streams_are_spread_by_their_number() -> None:
    made = picker()
    for _ in range(9):
        made.stream_began(made.order(0.0, stream=True)[0])
    assert {known.streams for known in made.addresses.values()} == {3}
    made.stream_ended(NAMES[0])
    assert made.order(0.0, stream=True)[0] == NAMES[0]


def test_rotation_takes_turns() -> None:
    made = picker("rotate")
    assert Counter(made.order(0.0)[0] for _ in range(30)) == dict.fromkeys(NAMES[:3], 10)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="pick='best': write one of p2c"):
        Picker("best")  # type: ignore[arg-type]


def test_an_attempt_gets_company_after_three_times_what_is_usual() -> None:
    made = picker()
    assert made.attempt_seconds == LEAST_ATTEMPT_SECONDS
    for _ in range(300):
        answer(made, NAMES[0], 0.0, 0.6)
    assert made.attempt_seconds == pytest.approx(1.8)


@given(st.lists(st.booleans(), max_size=500))
def test_a_budget_gives_no_more_than_its_share(steps: list[bool]) -> None:
    budget, calls, spent = Budget(0.1, 5), 0, 0
    for call in steps:
        if call:
            calls += 1
            budget.earn()
        elif budget.spend():
            spent += 1
    assert spent <= 5 + 0.1 * calls + 1e-6
