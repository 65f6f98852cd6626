"""Each rule of the tester of staleness, broken and kept."""

from __future__ import annotations

import pytest
from holdfast_lab.sim.violation import Violation
from holdfast_lab.staleness import judge as module
from holdfast_lab.staleness.judge import Answer, Judge, Mode

SECOND = 10**9
LOCAL = Mode("local", "local")
BOUNDED = Mode("bounded", "bounded=2s", within=2 * SECOND)


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic_ns(self) -> int:
        return int(self.seconds * SECOND)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


@pytest.fixture
def judge(clock: Clock) -> Judge:
    """Number n of the key /k was acknowledged at 100 + n seconds, at revision 10 n."""
    found = Judge()
    for n in range(1, 6):
        clock.seconds = 100.0 + n
        found.acknowledged("/k", n, 10 * n)
    clock.seconds = 106.5
    return found


def answer(number: int, mode: str = "local", revision: int | None = None, bound: float | None = None) -> Answer:
    known = None if bound is None else int(bound * SECOND)
    return Answer(mode, number, 10 * number, 10 * number if revision is None else revision, known)


def refused(judge: Judge, mode: Mode, given: Answer) -> str:
    with pytest.raises(Violation) as found:
        judge.answered(judge.asked("r", "/k", mode), given)
    return found.value.name


def test_a_bounded_read_has_what_was_acknowledged_before(judge: Judge) -> None:
    judge.answered(judge.asked("r", "/k", BOUNDED), answer(4, "bounded"))
    assert judge.behind == 1
    assert judge.oldest == int(1.5 * SECOND), "number 5 was acknowledged so long before the read"
    assert refused(judge, BOUNDED, answer(3, "bounded")) == "S1"
    assert refused(judge, BOUNDED, answer(5, "local")) == "S1"


def test_an_answer_is_not_older_than_it_says(judge: Judge) -> None:
    judge.answered(judge.asked("r", "/k", LOCAL), answer(2, bound=3.6))
    assert refused(judge, LOCAL, answer(2, bound=3.4)) == "S2"
    judge.answered(judge.asked("r", "/k", LOCAL), answer(2))


def test_an_answer_is_at_the_position_that_was_asked_for(judge: Judge) -> None:
    mode = Mode("at-least", "at-least=1:30", revision=30)
    judge.answered(judge.asked("r", "/k", mode), answer(3, "at-least"))
    assert refused(judge, mode, answer(2, "at-least", revision=29)) == "S3"


def test_a_replica_never_goes_back(judge: Judge) -> None:
    under_way = judge.asked("r", "/k", LOCAL)
    judge.answered(judge.asked("r", "/k", LOCAL), answer(3, revision=38))
    judge.answered(under_way, answer(2))
    assert refused(judge, LOCAL, answer(2)) == "S4"
    assert refused(judge, LOCAL, answer(3, revision=37)) == "S4"
    judge.answered(judge.asked("another", "/k", LOCAL), answer(1))
    judge.restarted("r")
    assert refused(judge, LOCAL, answer(2)) == "S4", "what it showed was on its disk"
    judge.answered(judge.asked("r", "/k", LOCAL), answer(3, revision=31))


def test_an_answer_is_complete_at_its_position(judge: Judge) -> None:
    assert refused(judge, LOCAL, answer(3, revision=40)) == "S5"
    assert refused(judge, LOCAL, answer(3, revision=29)) == "S5"
