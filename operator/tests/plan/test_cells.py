"""What is done next about a set of cells: each case of the table in `plan/cells.py`."""

from __future__ import annotations

from random import Random

import pytest
from holdfast.cells import Survey
from holdfast.cells.cell_set import CellSet
from holdfast.cells.identity import Identity
from holdfast.cells.survey import SurveyedCell, SurveyedReplication
from holdfast_operator.plan.cells import (
    Await,
    Change,
    Forget,
    Readmit,
    Refuse,
    Settled,
    SetUp,
    Step,
    counting,
    plan,
    stale,
)

IDS = {"eu": 1, "us": 2, "ap": 3}
EU_US = CellSet.first({"eu": 1, "us": 2})
OTHERS = CellSet.first({"ap": 3, "jp": 4})


def fresh(cell: str) -> SurveyedCell:
    return SurveyedCell(cell, cluster_id=IDS[cell])


def silent(cell: str) -> SurveyedCell:
    return SurveyedCell(cell, error="it does not answer")


def member(cell: str, of: CellSet, *, name: str = "", restored: int = 0) -> SurveyedCell:
    return SurveyedCell(cell, identity=Identity(name or cell, IDS[cell], of), cluster_id=restored or IDS[cell])


def surveyed(*cells: SurveyedCell) -> Survey:
    """As `survey` sums up what the cells have."""
    known = [found.identity.set for found in cells if found.identity is not None and found.counts]
    return Survey(cells, [], max(known, key=lambda each: each.version, default=None))


def planned(*cells: SurveyedCell, managed: bool = True, readmit: dict[str, int] | None = None) -> Step:
    names = frozenset(found.cell for found in cells)
    return plan(names, names, surveyed(*cells), managed=managed, readmit=readmit or {})


def refused(step: Step) -> str:
    assert isinstance(step, Refuse), step
    return step.message


@pytest.mark.parametrize("managed", [False, True])
def test_clusters_that_are_no_cells_are_set_up_once_all_answer(managed: bool) -> None:
    assert planned(fresh("eu"), fresh("us"), managed=managed) == SetUp()
    step = planned(fresh("eu"), silent("us"), managed=managed)
    assert isinstance(step, Await)
    assert "us: it does not answer" in step.message


def test_a_set_is_adopted_only_as_it_is() -> None:
    both = member("eu", EU_US), member("us", EU_US)
    assert planned(*both, managed=False) == Settled()
    assert "name just these" in refused(planned(*both, fresh("ap"), managed=False))
    assert planned(*both, fresh("ap")) == Change(frozenset(IDS))


@pytest.mark.parametrize("managed", [False, True])
def test_a_set_with_a_cell_that_the_spec_does_not_name_is_left_alone(managed: bool) -> None:
    step = planned(member("eu", EU_US), managed=managed)
    assert "add us to spec.cells" in refused(step)


def test_a_cell_of_another_set_is_not_taken_over() -> None:
    step = planned(member("eu", EU_US), member("us", EU_US), member("ap", OTHERS))
    assert "no cluster in common" in refused(step)
    step = planned(fresh("eu"), member("us", EU_US, name="usa"))
    assert "us is set up already, as the cell usa of eu, us" in refused(step)
    # The other set has changed more often than ours: it is refused all the same.
    newer = CellSet(9, OTHERS.cells, members=OTHERS.members)
    assert "no cluster in common" in refused(planned(member("eu", EU_US), member("us", EU_US), member("ap", newer)))


def test_a_cell_that_has_left_our_set_may_come_back() -> None:
    """It was away when it was removed, or was told of it."""
    all_three = CellSet.first(IDS)
    now = all_three.joint(frozenset({"eu", "us"}), {}).completed()
    for known in (all_three, now):
        assert planned(member("eu", now), member("us", now), member("ap", known)) == Change(frozenset(IDS))


def test_a_cell_that_does_not_know_its_set_is_told() -> None:
    assert planned(member("eu", EU_US), fresh("us")) == Change(frozenset({"eu", "us"}))
    assert planned(member("eu", EU_US), fresh("us"), managed=False) == Change(frozenset({"eu", "us"}))


def test_a_change_that_was_cut_short_goes_on() -> None:
    joint = EU_US.joint(frozenset(IDS), {"ap": 3})
    assert planned(member("eu", joint), member("us", EU_US), fresh("ap")) == Change(frozenset(IDS))


def test_a_restored_cell_waits_for_its_id_to_be_confirmed() -> None:
    cells = member("eu", EU_US), member("us", EU_US, restored=9)
    assert 'set readmit: "9"' in refused(planned(*cells))
    assert refused(planned(*cells, readmit={"us": 2})) == refused(planned(*cells))
    assert planned(*cells, readmit={"us": 9}) == Readmit("us")
    removed = CellSet(3, frozenset({"eu"}), members=frozenset(m for m in EU_US.members if m.cell == "eu"))
    half = member("eu", removed), member("us", EU_US, restored=9)
    assert planned(*half, readmit={"us": 9}) == Readmit("us"), "it was removed, and is to be added"


def test_an_id_that_was_confirmed_earlier_does_nothing() -> None:
    assert planned(member("eu", EU_US), member("us", EU_US), readmit={"us": 2}) == Settled()
    assert planned(member("eu", EU_US), silent("us"), readmit={"us": 2}) == Settled()


def test_a_restored_cell_does_not_count() -> None:
    survey = surveyed(member("eu", EU_US), member("us", EU_US, restored=9))
    assert counting(survey) == {"eu"}
    assert counting(surveyed(member("eu", EU_US), silent("us"))) == {"eu"}


def test_in_no_situation_is_another_set_changed() -> None:
    """The invariant, in random situations: a step that writes is planned only over clusters that are free or ours."""
    rng = Random(5)
    acted = 0
    for _ in range(5000):
        ours = EU_US if rng.random() < 0.7 else EU_US.joint(frozenset(IDS), {"ap": 3})
        theirs = OTHERS if ours is EU_US else CellSet.first({"ap": 7, "jp": 4})
        cells = []
        for cell in IDS:
            choices = [fresh(cell), silent(cell), member(cell, theirs), member(cell, ours, restored=rng.choice([0, 9]))]
            cells.append(rng.choice(choices))
        wanted = frozenset(found.cell for found in cells if rng.random() < 0.8) or frozenset({"eu"})
        asked = [found for found in cells if found.cell in wanted]
        managed = rng.random() < 0.5
        readmit = {"us": 9} if rng.random() < 0.3 else {}
        step = plan(wanted, wanted, surveyed(*asked), managed=managed, readmit=readmit)
        if not isinstance(step, SetUp | Change | Readmit):
            continue
        acted += 1
        sets = [found.identity.set for found in asked if found.identity]
        assert theirs not in sets or all(each is theirs for each in sets)
        assert isinstance(step, SetUp) <= all(not found.error and found.identity is None for found in asked)
        assert managed or not sets or (sets[0].after or sets[0].cells) == wanted
    assert acted > 100


def test_a_copy_that_the_spec_has_no_more_is_forgotten() -> None:
    found = [SurveyedReplication("eu", "us", b"/a/", 7, 7), SurveyedReplication("us", "eu", b"/b/", 0, None)]
    survey = Survey([], [], None, found)
    kept, gone = Forget("eu", "us", "/a/"), Forget("us", "eu", "/b/")
    assert stale({kept, gone}, survey) is None
    assert stale({kept, Forget("ap", "us", "/c/")}, survey) == gone
