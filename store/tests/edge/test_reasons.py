"""What does not go on is said once, then seldom, and is new again once the trouble was over."""

from __future__ import annotations

import logging

import pytest
from holdfast.edge.reasons import AGAIN_SECONDS, MOST, Reasons

log = logging.getLogger("reasons under test")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reasons(clock: Clock, caplog: pytest.LogCaptureFixture) -> Reasons:
    caplog.set_level(logging.INFO)
    return Reasons(log, logging.WARNING, clock)


def test_reasons_that_alternate_are_said_once_and_again_after_a_while(
    reasons: Reasons, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(600):
        for server in "abc":
            reasons.say(f"{server} refuses")
        clock.now += (AGAIN_SECONDS - 1) / 600
    assert [record.message for record in caplog.records] == ["a refuses", "b refuses", "c refuses"]
    caplog.clear()
    clock.now += 2
    for _ in range(3):
        reasons.say("a refuses")
    assert [record.message for record in caplog.records] == ["a refuses (600 times more in 10 min)"]


def test_what_was_over_is_new(reasons: Reasons, caplog: pytest.LogCaptureFixture) -> None:
    assert not reasons.over()
    reasons.say("a refuses")
    assert reasons.over()
    assert not reasons.over()
    reasons.say("a refuses")
    assert len(caplog.records) == 2


def test_lines_about_the_same_count_together(reasons: Reasons, caplog: pytest.LogCaptureFixture) -> None:
    for revision in range(5):
        reasons.say(f"following a from revision {revision}", key="following a", level=logging.INFO)
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.INFO, "following a from revision 0")


def test_no_more_than_some_are_remembered(reasons: Reasons, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(2 * MOST):
        reasons.say(str(n))
    assert len(caplog.records) == 2 * MOST
    reasons.say(str(MOST))
    assert len(caplog.records) == 2 * MOST
    reasons.say("0")
    assert len(caplog.records) == 2 * MOST + 1
