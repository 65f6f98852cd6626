"""What a replica may say of its age."""

from __future__ import annotations

import pytest
from holdfast.edge.lineage import Lineage
from holdfast.edge.probes import MAX_SENT, MAX_WAITING, Probes, bound_seconds

HERE = Lineage.of(7, 1, 0)
LATER = Lineage.of(8, 2, 7)


def test_it_counts_from_when_the_probe_was_sent_and_only_once_its_revision_is_here() -> None:
    probes = Probes()
    assert probes.fresh_at is None
    first, second = probes.send(100), probes.send(200)
    probes.answered(second, 9)
    probes.answered(first, 7)
    probes.reached(8, HERE)
    assert probes.fresh_at == 100
    probes.reached(9, HERE)
    assert probes.fresh_at == 200
    probes.answered(first, 9)
    probes.reached(10, HERE)
    assert probes.fresh_at == 200, "an answer that comes twice, or late, makes it no older"


def test_a_replica_below_waits_for_a_probe_that_is_sent_after_its_own_came() -> None:
    told: list[int | None] = []
    probes = Probes()
    before = probes.send(100)
    probes.confirm(told.append)
    probes.answered(before, 5)
    assert told == []
    after = probes.send(200)
    assert probes.outstanding
    probes.answered(after, 6)
    assert told == [6]
    assert not probes.outstanding


def test_a_lost_connection_answers_nobody_and_makes_nothing_older() -> None:
    told: list[int | None] = []
    probes = Probes()
    probes.answered(probes.send(100), 5)
    probes.reached(5, HERE)
    id = probes.send(200)
    probes.confirm(told.append)
    probes.lost()
    assert told == [None]
    probes.answered(id, 6)
    probes.answered(probes.send(300), 7)
    assert told == [None]
    assert probes.fresh_at == 100


def test_what_is_kept_is_bounded() -> None:
    told: list[int | None] = []
    probes = Probes()
    for _ in range(MAX_WAITING + 5):
        probes.confirm(told.append)
    assert told == [None] * 5
    first = probes.send(0)
    ids = [probes.send(n) for n in range(MAX_SENT)]
    assert len(told) == MAX_WAITING + 5
    probes.answered(first, 1)
    assert set(told) == {None}, "it was forgotten"
    probes.answered(ids[0], 1)
    probes.reached(1, HERE)
    assert probes.fresh_at == 0


def test_what_another_history_says_does_not_count() -> None:
    """The cluster was restored: its revisions are other ones. Until its data is here, nothing is known of its age."""
    told: list[int | None] = []
    probes = Probes()
    probes.greeted(HERE)
    probes.answered(probes.send(100), 5)
    probes.reached(5, HERE)
    assert probes.fresh_at == 100
    probes.lost()
    probes.greeted(LATER)
    assert probes.fresh_at is None
    probes.reached(5, HERE)
    probes.confirm(told.append)
    probes.answered(probes.send(200), 3)
    assert told == [None], "a replica below has the earlier history, too"
    probes.reached(5, HERE)
    assert probes.fresh_at is None
    probes.reached(4, LATER)
    assert probes.fresh_at == 200


@pytest.mark.parametrize(
    ("staleness_ms", "bound"),
    [
        (None, 0),
        (0, 1),
        (999, 1),
        (1000, 2),  # whole milliseconds: it is a little more
        (1999, 2),
        (2000, 5),
        (5000, 10),
        (10_001, 20),
        (49_999, 50),
        (50_000, 100),
        (86_400_000, 100_000),
    ],
)
def test_a_bound_is_rounded_up(staleness_ms: int | None, bound: int) -> None:
    assert bound_seconds(staleness_ms) == bound
