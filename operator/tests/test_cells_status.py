"""The status of a HoldfastCells: ages in coarse steps, and what is not known is not told."""

from __future__ import annotations

from typing import Any

import pytest
from holdfast.cells import Survey
from holdfast.cells.cell_set import CellSet
from holdfast.cells.identity import Identity
from holdfast.cells.survey import SurveyedCell, SurveyedQueue, Transactions
from holdfast_operator.cells_status import SHOWN_CHARACTERS, Seen, cells_status, coarse
from holdfast_operator.model.cells import Where
from holdfast_operator.plan.cells import Change, Settled, Step
from holdfast_operator.resources.cells import Place

SET = CellSet.first({"eu": 1, "us": 2})
OBJECT = {"metadata": {"name": "regions", "generation": 1}}
NOW = 1_700_000_000_000


def told(
    *,
    oldest: int = 0,
    error: str = "",
    queues: list[SurveyedQueue] | None = None,
    step: Step | None = None,
    failed: str = "",
    workers: str = "",
) -> Any:
    """Of two cells. `oldest`: seconds since the first open transaction of eu began. `error`: what us answers."""
    transactions = Transactions(1, NOW - 1000 * oldest) if oldest else Transactions()
    cells = [
        SurveyedCell("eu", identity=Identity("eu", 1, SET), cluster_id=1, transactions=transactions),
        SurveyedCell("us", error=error) if error else SurveyedCell("us", identity=Identity("us", 2, SET), cluster_id=2),
    ]
    names = ("eu", "us")
    seen = Seen(
        wanted=frozenset(names),
        where={name: Where(cluster=name) for name in names},
        places={name: Place(f"{name}:2379") for name in names},
        survey=Survey(cells, queues or [], SET),
        version=1,
        step=step or Settled(),
        failed=failed,
        workers=workers,
        now=NOW,
    )
    return cells_status(OBJECT, seen)


def ready(status: Any) -> tuple[str, str, str]:
    (found,) = [c for c in status["conditions"] if c["type"] == "Ready"]
    return found["status"], found["reason"], found["message"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, 0), (0, 0), (0.2, 1), (1, 1), (1.1, 2), (5, 5), (5.1, 10), (99, 100), (101, 200)]
)
def test_an_age_is_shown_in_coarse_steps(seconds: float, shown: int) -> None:
    assert coarse(seconds) == shown


def test_a_status_that_says_the_same_stays_the_same() -> None:
    assert told(oldest=11) == told(oldest=19)
    assert told(oldest=11)["oldestIntentSeconds"] == 20


def test_what_a_cell_that_is_away_would_tell_is_absent() -> None:
    found = told(error="timeout: no\nanswer", queues=[SurveyedQueue("eu", "us", 7, None, None)])
    us = found["cells"][1]
    assert us == {"name": "us", "reachable": False, "counts": False, "message": "timeout: no answer", "cluster": "us"}
    assert found["queues"] == [{"from": "eu", "to": "us"}]
    assert (found["reachable"], found["lag"]) == ("1/2", 0)
    assert ready(found) == (
        "False",
        "CellAway",
        "us does not answer: timeout: no answer; without a majority registers and leases wait",
    )


def test_a_step_that_fails_says_why_in_one_short_line() -> None:
    step = Change(frozenset({"eu", "us"}))
    assert ready(told(step=step)) == ("False", "Change", "the set is changed to eu, us")
    status, reason, message = ready(told(step=step, failed="no\nanswer " + "x" * 1000))
    assert (status, reason) == ("False", "ChangeFailed")
    assert message.startswith("the set is changed to eu, us, which failed: no answer x")
    assert len(message) < SHOWN_CHARACTERS + 100


def test_pods_that_do_not_work_are_told() -> None:
    found = told(workers="0 of 1 pods are up to date and ready")
    assert ready(found) == ("False", "NotWorking", "0 of 1 pods are up to date and ready")
    assert {c["type"]: c["status"] for c in found["conditions"]} == {
        "Ready": "False",
        "Reconciling": "True",
        "Stalled": "False",
        "Available": "True",
        "Working": "False",
    }
