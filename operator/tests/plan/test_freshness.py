"""Whether replicas are as fresh as wanted: what is not known is said, and nothing flaps."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from holdfast_operator.plan.freshness import HOLD_SECONDS, Peak, Report, corrected, judged, last_seen, peaks

NOW = 1_800_000_000.0
WANTED = ["a", "b", "c", "d", "e"]


def following(bound: int) -> Report:
    return Report(whole=True, bound=bound)


def offline(seconds: float) -> Report:
    return Report(whole=True, bound=2, offline_since=NOW - seconds)


def verdict(reports: Mapping[str, Report], target: int = 10) -> tuple[bool | None, str, str]:
    found = judged(WANTED, reports, peaks({}, reports, NOW), target, NOW)
    return found.fresh, found.reason, found.message


ALL = {name: following(5) for name in WANTED}


@pytest.mark.parametrize("bound", [1, 10])
def test_all_are_fresh(bound: int) -> None:
    message = "the data of each of the 5 replicas is at most 10 s old"
    assert verdict({**ALL, "a": following(bound)}) == (True, "AllFresh", message)


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ({"b": following(20)}, "1 of 5 replicas may be older than 10 s: b (up to 20 s)"),
        ({"b": following(20), "c": following(0)}, "1 of 5 replicas may be older than 10 s: b (up to 20 s)"),
        ({"d": offline(11)}, "1 of 5 replicas may be older than 10 s: d (offline since 2027-01-15 07:59:49 UTC)"),
        (
            dict.fromkeys(WANTED, following(50)),
            "5 of 5 replicas may be older than 10 s: a (up to 50 s), b (up to 50 s), c (up to 50 s), and 2 more",
        ),
    ],
)
def test_some_are_too_old(reports: dict[str, Report], message: str) -> None:
    assert verdict({**ALL, **reports}) == (False, "TooOld", f"the data of {message}")


@pytest.mark.parametrize(
    "unknown",
    [following(0), offline(3), offline(-3600), Report(whole=True, bound=2, offline_since=1e300)],
    ids=["no bound", "just left", "a clock in the future", "no time at all"],
)
def test_what_is_not_known_is_not_called_fresh(unknown: Report) -> None:
    message = "the age of the data of 1 of 5 replicas is not known: e"
    assert verdict({**ALL, "e": unknown}) == (None, "NotReported", message)


def test_a_replica_that_nobody_reports_is_not_known() -> None:
    assert verdict({name: ALL[name] for name in "abcd"})[0] is None
    assert verdict({})[2].endswith("5 of 5 replicas is not known: a, b, c, and 2 more")


def test_a_bound_that_goes_to_and_fro_is_told_once() -> None:
    known: dict[str, Peak] = {}
    told = []
    for second in range(0, 600, 30):
        known = peaks(known, {"a": following(1 + (second // 30) % 2)}, NOW + second)
        told.append(known["a"].bound)
    assert told == [1] + [2] * 19


def test_a_bound_rises_at_once_and_falls_after_a_while() -> None:
    known = peaks({}, {"a": following(5)}, NOW)
    known = peaks(known, {"a": following(50)}, NOW + 1)
    assert known["a"].bound == 50
    assert peaks(known, {"a": following(5)}, NOW + HOLD_SECONDS)["a"].bound == 50
    assert peaks(known, {"a": following(5)}, NOW + 2 + HOLD_SECONDS)["a"].bound == 5


def test_what_a_replica_reports_first_after_it_was_offline_does_not_hold() -> None:
    known = peaks({"a": Peak(2, NOW)}, {"a": offline(100)}, NOW)
    known = peaks(known, {"a": following(200)}, NOW + 1)
    assert known["a"].bound == 200
    assert peaks(known, {"a": following(2)}, NOW + 2)["a"].bound == 2


@pytest.mark.parametrize("report", [following(0), offline(1)])
def test_nothing_is_remembered_of_a_replica_whose_bound_is_not_known_now(report: Report) -> None:
    assert peaks({"a": Peak(50, NOW)}, {"a": report}, NOW) == {}
    assert peaks({"gone": Peak(50, NOW)}, {}, NOW) == {}


def test_what_a_member_says_that_a_replica_left_long_ago_is_not_believed_after_it_was_seen_elsewhere() -> None:
    """The member that it follows is restarted, so only that other member tells of it."""
    seen = last_seen({}, WANTED, ALL, NOW - 3)
    assert last_seen(seen, ["a"], {}, NOW) == {"a": NOW - 3}, "what is not wanted any more is forgotten"
    reports = {name: offline(600) for name in WANTED}
    assert verdict(reports)[0] is False
    assert verdict(corrected(reports, last_seen(seen, WANTED, reports, NOW)))[0] is None
    assert verdict(corrected(reports, last_seen({}, WANTED, reports, NOW)))[0] is False, "never seen to follow"
    assert corrected({"a": offline(2)}, seen) == {"a": offline(2)}, "it stopped following since"
    assert corrected(ALL, last_seen(seen, WANTED, ALL, NOW)) == ALL
