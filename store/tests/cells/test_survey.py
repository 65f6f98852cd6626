"""What a survey makes of the answers: which cells count, and what of a queue is known."""

from __future__ import annotations

from holdfast.cells.cell_set import CellSet
from holdfast.cells.identity import Identity
from holdfast.cells.replication_record import Record
from holdfast.cells.survey import (
    Survey,
    SurveyedCell,
    SurveyedQueue,
    SurveyedReplication,
    _Found,
    _queues,
    _replications,
)

SET = CellSet(3, frozenset({"eu", "us", "ap"}))


def answered(cell: str, *, named: str = "", set_up_as: int = 7) -> SurveyedCell:
    return SurveyedCell(cell, identity=Identity(named or cell, set_up_as, SET), cluster_id=7)


def silent(cell: str) -> SurveyedCell:
    return SurveyedCell(cell, error="away")


def test_a_quorum_is_of_cells_that_count() -> None:
    assert Survey([answered("eu"), answered("us"), silent("ap")], [], SET).quorum
    assert not Survey([answered("eu"), silent("us"), silent("ap")], [], SET).quorum
    assert not Survey([answered("eu"), answered("us", set_up_as=6), silent("ap")], [], SET).quorum, "restored"
    assert not Survey([answered("eu"), answered("us", named="ap"), silent("ap")], [], SET).quorum, "swapped"
    assert not Survey([answered("eu"), answered("sa"), silent("ap")], [], SET).quorum, "not in the set"
    assert not Survey([SurveyedCell("eu", cluster_id=7)], [], None).quorum


def test_a_queue_is_told_by_its_two_ends() -> None:
    both = {
        "eu": _Found(answered("eu"), outboxes={"us": (9, 5), "sa": (1, 0)}),
        "us": _Found(answered("us"), inboxes={"eu": (7, 2), "sa": (4, 0)}),
    }
    assert _queues(both) == [
        SurveyedQueue("eu", "sa", 1, 0, None),  # of sa nothing is known
        SurveyedQueue("eu", "us", 9, 7, 2),
        SurveyedQueue("sa", "us", None, 4, 0),
    ]
    assert _queues(both | {"us": _Found(silent("us"))})[1] == SurveyedQueue("eu", "us", 9, 5, None)
    assert _queues(both | {"eu": _Found(silent("eu"))})[0] == SurveyedQueue("eu", "us", None, 7, 2)
    assert [queue.waiting for queue in _queues(both)] == [1, 2, None]


def test_a_replication_is_told_by_its_destination() -> None:
    records = {b"/a/": Record("eu", 7, 1, 7, 40), b"/b/": Record("eu", 7), b"/c/": Record("eu", 6, 1, 6, 90)}
    found = {
        "eu": _Found(answered("eu"), revision=50),
        "us": _Found(answered("us"), replications=records, revision=9),
    }
    assert _replications(found) == [
        SurveyedReplication("eu", "us", b"/a/", 40, 50),
        SurveyedReplication("eu", "us", b"/b/", 0, 50),
        SurveyedReplication("eu", "us", b"/c/", 90, None),  # eu is another cluster now
    ]
    assert [each.behind for each in _replications(found)] == [10, None, None]
    away = _replications(found | {"eu": _Found(silent("eu"))})
    assert [(each.reached, each.behind) for each in away] == [(40, None), (0, None), (90, None)]
    assert [each.revision for each in _replications({"us": found["us"]})] == [None] * 3
    assert _replications({"us": _Found(silent("us"))}) == []
